"""The TypeScript client is built, and its own tests run: against real servers, with Node's test runner."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from docs.pages import DOCS, ROOT, fences
from pages.chromium import CHROMIUM, open_page

HOME = ROOT / "clients" / "typescript"
PAGE = DOCS / "typescript.md"
INSTALL_S = 60.0
TEST_S = 150.0
OLDEST = 20


def _major(node: str | None) -> int:
    """Return the version of a Node, 0 where none runs."""
    if node is None:
        return 0
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)\.", said)
    return int(found[1]) if found else 0


NODE = shutil.which("node")
NPM = shutil.which("npm")

pytestmark = [
    pytest.mark.skipif(not HOME.is_dir(), reason="the client's folder is not here"),
    pytest.mark.skipif(_major(NODE) < OLDEST, reason=f"there is no Node of version {OLDEST} or later here"),
    pytest.mark.timeout(INSTALL_S + TEST_S + 60),
]


@pytest.fixture
def compiler() -> Path:
    """The compiler, which is installed where it is not there yet."""
    tsc = HOME / "node_modules" / "typescript" / "bin" / "tsc"
    if not tsc.exists() and NPM is not None:
        install = [NPM, "ci", "--no-audit", "--no-fund", "--fetch-retries", "0"]
        with_timeout(install, INSTALL_S)
    if not tsc.exists():
        pytest.skip("the TypeScript compiler cannot be had: `make typescript` installs it")
    return tsc


def with_timeout(command: list[str], seconds: float) -> tuple[int, str]:
    """Run a command in the client's folder; end it with all that it started if it takes too long."""
    env = {**os.environ, "PENSTOCK_TEST_PYTHON": sys.executable}
    for name in ("PENSTOCK_API_KEY", "PENSTOCK_AUTH_KEYS"):
        env.pop(name, None)
    process = subprocess.Popen(
        command,
        cwd=HOME,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return -1, f"{said}\nit was ended after {seconds:g} s"
    return process.returncode, said


def test_it_builds_and_its_tests_pass(compiler: Path) -> None:
    assert NODE is not None
    shutil.rmtree(HOME / "dist", ignore_errors=True)  # what is no longer in the source must not run
    code, said = with_timeout([NODE, str(compiler)], TEST_S)
    assert code == 0, said
    _compile_snippets(compiler)
    code, said = with_timeout([NODE, "--test", "dist/tests/"], TEST_S)
    sys.stdout.write("\n".join(re.findall(r"^.*items/s.*$", said, re.MULTILINE)))
    assert code == 0, said
    assert re.search(r"^# pass [1-9]\d", said, re.MULTILINE), said


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_it_works_in_a_page_of_another_origin(compiler: Path, tmp_path: Path) -> None:
    code, said = with_timeout([str(NODE), str(compiler), "--outDir", str(tmp_path / "dist")], TEST_S)
    assert code == 0, said
    with site(tmp_path / "dist" / "src") as origin, served(origin) as url:
        for address in (url, url.replace("http", "ws", 1)):
            with open_page(tmp_path / address[:2], f"{origin}/") as page:
                found = page.evaluate(f"({IN_PAGE})({json.dumps(address)})")
            assert found == {"items": [{"i": 0}, {"i": 1}], "ended": "caller", "code": "not_found"}


IN_PAGE = """async (url) => {
  const { Client } = await import("/index.js");
  const client = new Client(url);
  const items = [];
  for await (const item of client.stream("count", { n: 2 })) items.push(item);
  const held = client.stream("hold");
  const read = async () => { for await (const _ of held) await held.cancel(); };
  const ended = await read().catch((error) => error.reason);
  const code = await client.run("nope").catch((error) => error.code);
  client.close();
  return { items, ended, code };
}"""


class _Files(SimpleHTTPRequestHandler):
    """Serves a folder's files, and an empty page, without a word."""

    def do_GET(self) -> None:
        if self.path == "/":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Serve a folder as a page's own; give its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder))) as files:
        thread = Thread(target=files.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{files.server_port}"
        finally:
            files.shutdown()
            thread.join()


@contextmanager
def served(origin: str) -> Iterator[str]:
    """Serve the project of the client's tests to pages of an origin; give its URL."""
    command = [sys.executable, "-m", "penstock.cli", "run", str(HOME / "tests" / "project"), "--port", "0"]
    with subprocess.Popen([*command, "--allow-origin", origin], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"ready on (http:\S+)", process.stdout.readline())
            assert found is not None
            yield found[1]
        finally:
            process.terminate()


def _compile_snippets(compiler: Path) -> None:
    """Compile what the page about the client shows, against the client as it was built."""
    files = []
    for number, fence in enumerate(fence for fence in fences(PAGE) if fence.info == "ts"):
        files.append(HOME / "dist" / f"snippet_{number}.ts")
        files[-1].write_text(fence.body + "\nexport {};\n", encoding="utf-8")
    assert files
    strictly = ["--noEmit", "--strict", "--skipLibCheck", "--target", "ES2022", "--module", "NodeNext"]
    code, said = with_timeout([str(NODE), str(compiler), *strictly, *map(str, files)], TEST_S)
    assert code == 0, said


def test_the_client_stands_on_nothing_and_names_no_host() -> None:
    package = json.loads((HOME / "package.json").read_text(encoding="utf-8"))
    assert sorted(package["devDependencies"]) == ["@types/node", "typescript"]
    assert {"dependencies", "peerDependencies", "optionalDependencies"} & package.keys() == set()
    assert "://" not in (HOME / "package-lock.json").read_text(encoding="utf-8")
