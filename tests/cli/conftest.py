"""Fixtures of the command line's tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.processes import PATIENCE_S, TINY, Penstock, Serve, Server, command, environment, started


@pytest.fixture(scope="session")
def penstock() -> Penstock:
    """Run a penstock command to its end."""

    def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), env=environment(**env), capture_output=True, text=True, timeout=PATIENCE_S
        )

    return run


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that are gone after the test."""
    with ExitStack() as stack:

        def run(*arguments: object, **env: str) -> Server:
            return Server(stack.enter_context(started("run", *arguments, "--port", 0, **env)))

        yield run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with a scripted model."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "manifest.yml").write_text("name: tiny\nversion: 1.2.3\nentrypoint: run.py\n")
    (folder / "run.py").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[Server]:
    """The small project, served."""
    with started("run", tiny, "--port", 0) as process:
        yield Server(process)
