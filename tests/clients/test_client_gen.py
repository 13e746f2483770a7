"""What `penstock client-gen` writes for the TypeScript client is what its compiler wants, and runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clients.test_typescript import HOME, NODE, OLDEST, _major
from docs.pages import ROOT
from penstock.cli.client_gen import client_gen

TSC = HOME / "node_modules" / "typescript" / "bin" / "tsc"
PROJECT = ROOT / "tests" / "client" / "stubs" / "project"
CONFIG = {
    "compilerOptions": {
        "target": "ES2022",
        "module": "NodeNext",
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "exactOptionalPropertyTypes": True,
        "noUnusedLocals": True,
        "noUnusedParameters": True,
        "verbatimModuleSyntax": True,
        "types": [],
    },
    "files": ["use.ts"],
}
USE = """
import { Client } from "penstock-client";
import type { PredictItem } from "./stubs.js";
import { AllKinds } from "./stubs.js";

declare const process: { readonly argv: readonly string[] };

const client = new Client(process.argv[2] ?? "");
const calls = new AllKinds(client);
const items: PredictItem[] = [];
for await (const item of calls.predict({ prompt: "A fox" })) items.push(item);
const { sum } = await calls.add({ a: 1 }, { taskId: "mine" });
const asked = [{ corners: [{ x: 1, y: 2 }], mark: { class: "a" } }];
const regions = await calls.find_all({ regions: asked, how: "exact" });
const both = await calls.run_add_twice({ start: 3 });
const held: string = await calls.class();
// @ts-expect-error
const bad = (): unknown => calls.add({ b: 1 });
// @ts-expect-error
const worse = (): unknown => calls.find_all({ regions: [], how: "slow" });
void bad, worse;
client.close();
console.log(JSON.stringify([items.map(({ chunk }) => chunk), sum, regions[0]?.mark, both, held]));
"""

pytestmark = [
    pytest.mark.skipif(_major(NODE) < OLDEST, reason=f"there is no Node of version {OLDEST} or later here"),
    pytest.mark.skipif(not TSC.exists(), reason="no TypeScript compiler here: `make typescript` installs it"),
]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_typescript_is_what_the_compiler_wants_and_runs(tmp_path: Path) -> None:
    library = tmp_path / "node_modules" / "penstock-client"
    library.mkdir(parents=True)
    shutil.copy(HOME / "package.json", library)
    run(str(NODE), TSC, "--outDir", library / "dist", cwd=HOME)
    client_gen(str(PROJECT), tmp_path / "stubs.ts")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps(CONFIG))
    (tmp_path / "use.ts").write_text(USE)
    run(str(NODE), TSC, cwd=tmp_path)
    command = [sys.executable, "-m", "penstock.cli", "run", str(PROJECT), "--port", "0", "--ws-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = next(line for line in server.stdout if "ready on http" in line)
            said = run(str(NODE), "use.js", line.split("ready on ")[1].split()[0], cwd=tmp_path)
        finally:
            server.terminate()
    both = {"steps": {"once": {"sum": 4}, "twice": {"sum": 5}}}
    assert json.loads(said) == [["A", "fox"], 2, {"class": "a"}, both, "held"]
