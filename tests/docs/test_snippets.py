"""The programs of README.md and docs/*.md run.

Each block of Python is compiled, and what it imports is there.  Behind ``python`` its fence may say how to
try it: ``COMMAND {input}`` has it loaded as a project and that command called, ``check_engine CLASS`` has the
class checked as an engine, ``run`` has it played with the rest of its page (``test_scenes``).  In docs/ any
other block that makes a ``Runtime`` is run as a program.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest

from docs.pages import DOCS, ROOT, Fence, fences
from penstock import App, AsyncClient
from penstock.protocol.call import State
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.project import import_project
from penstock.testing import check_engine

pytestmark = pytest.mark.anyio

PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
SNIPPETS = [fence for page in PAGES for fence in fences(page) if fence.info.split(" ")[0] == "python"]


def of_kind(*, called: bool = False, engine: bool = False, program: bool = False) -> list[Any]:
    """Return the blocks that are tried in a way."""
    chosen = [
        fence
        for fence in SNIPPETS
        if (called and _way(fence) not in ("", "check_engine", "run"))
        or (engine and _way(fence) == "check_engine")
        or (program and not _way(fence) and "Runtime(" in fence.body and fence.page != "README.md")
    ]
    assert chosen
    return [pytest.param(fence, id=fence.place) for fence in chosen]


def _way(fence: Fence) -> str:
    return (fence.info.split(" ", 2)[1:] or [""])[0]


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) > 10


@pytest.mark.parametrize("fence", [pytest.param(fence, id=fence.place) for fence in SNIPPETS])
def test_a_snippet_compiles_and_what_it_imports_is_there(fence: Fence) -> None:
    tree = ast.parse(fence.body, fence.place)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("fence", of_kind(called=True))
async def test_a_project_is_loaded_and_its_command_called(
    fence: Fence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    _, command, given = fence.info.split(" ", 2)
    entrypoint = tmp_path / f"snippet_{fence.line}.py"
    entrypoint.write_text(fence.body)
    (tmp_path / "manifest.yml").write_text("name: snippet\n")
    runtime = import_project(entrypoint, AbortCallbacks())
    with anyio.fail_after(5):
        async with App(runtime) as app, AsyncClient(app) as client:
            stream = client.stream(command, json.loads(given), task_id="tried")
            async with stream:
                items = [item async for item in stream]
            assert (await client.task("tried")).status == State.COMPLETED.label
    assert items or not runtime.commands[command].streaming


@pytest.mark.parametrize("fence", of_kind(engine=True))
async def test_an_engine_keeps_its_contract(fence: Fence) -> None:
    names: dict[str, Any] = {}
    exec(compile(fence.body, fence.place, "exec"), names)
    await check_engine(names[fence.info.split(" ")[2]](), timeout_s=10)


@pytest.mark.parametrize("fence", of_kind(program=True))
def test_a_program_runs(fence: Fence) -> None:
    ran = subprocess.run([sys.executable, "-c", fence.body], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
