"""What is shipped is what the source of the page makes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from docs.pages import ROOT
from penstock.server.playground.files import read_files

SOURCE = ROOT / "clients" / "typescript"
STATIC = ROOT / "src" / "penstock" / "server" / "playground" / "static"
NODE = shutil.which("node")
TSC = SOURCE / "node_modules" / "typescript" / "bin" / "tsc"
HAND_MADE = {"index.html", "style.css", "icon.svg"}


@pytest.mark.skipif(not SOURCE.is_dir(), reason="the source of the page is not here")
@pytest.mark.skipif(NODE is None, reason="there is no Node here")
@pytest.mark.skipif(
    not TSC.exists(), reason="the TypeScript compiler is not here: `make typescript` installs it"
)
def test_what_is_shipped_is_what_the_source_makes(tmp_path: Path) -> None:
    build = [str(NODE), str(TSC), "--project", "tsconfig.page.json", "--outDir", str(tmp_path)]
    done = subprocess.run(build, cwd=SOURCE, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout
    made = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.js")}
    shipped = {name: file.body for name, file in read_files().items() if name not in HAND_MADE}
    assert made.keys() == shipped.keys(), "run `make playground`"
    assert [name for name in made if made[name] != shipped[name]] == [], "run `make playground`"


def test_nothing_in_it_leads_elsewhere() -> None:
    files = read_files()
    assert files.keys() >= HAND_MADE
    for name, file in files.items():
        text = file.body.decode()
        urls = set(re.findall(r"(?:https?|wss?)://[^\s\"'`)]+", text))
        assert urls <= {"http://www.w3.org/2000/svg", "http://127.0.0.1:8000"}, name
        assert not re.search(
            r"@import|innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), name
    page = files["index.html"].body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", page)
