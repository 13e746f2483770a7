"""What shells offer behind Tab: a real bash with what is installed for it, and what others are given."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.processes import PATIENCE_S, Server, environment
from cli.terminal import Terminal

BASH, FISH = shutil.which("bash"), shutil.which("fish")
TAB = "\t"
BIN = Path(sys.executable).parent
PLAY = """
source .bash_completions/penstock.sh
while read -r line; do
    read -ra COMP_WORDS <<< "$line"
    [ "${line: -1}" = _ ] && COMP_WORDS[-1]=
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _penstock_completion penstock
    echo "${COMPREPLY[*]}"
done
"""

pytestmark = pytest.mark.skipif(not (BIN / "penstock").exists(), reason="penstock is not on the path here")


def env(home: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    return environment(HOME=str(home), PATH=path, **more)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which completion is installed for bash, and a few files are."""
    folder = tmp_path_factory.mktemp("home")
    if BASH is not None:  # it finds out by itself in which shell it runs
        installing = [BASH, "--norc", "-c", "penstock --install-completion && true"]
        subprocess.run(installing, env=env(folder), check=True, capture_output=True, timeout=PATIENCE_S)
    with (folder / ".bashrc").open("a") as settings:
        settings.write("PS1='> '\n")
    (folder / "story.txt").write_text("A fox")
    (folder / "stories").mkdir()
    (folder / "stories" / "long.txt").write_text("A long one")
    return folder


@pytest.mark.skipif(BASH is None, reason="no bash here")
def test_bash_completes(home: Path, server: Server) -> None:
    expected = {  # `_` is an empty word
        "penstock ca": "call",
        "penstock keys _": "new check",
        "penstock run --log-f": "--log-format",
        "penstock run . --log-format j": "json",
        "penstock call ref": "refuse",
        "penstock call add _": "a:= a:=@ b:= b:=@",
        "penstock call predict pr": "prompt= prompt=@",
        "penstock call predict prompt = _": "",
        "penstock call predict prompt =@ sto": "@stories/ @story.txt",
        "penstock call predict prompt =@ stories/": "@stories/long.txt",
        "penstock call predict @ story": "@story.txt",
        "penstock pull smol": "smollm2-135m",
        "penstock schema Req": "Request",
    }
    ran = subprocess.run(
        [str(BASH), "--norc", "-c", PLAY],
        cwd=home,
        env=env(home, PENSTOCK_URL=server.url),
        input="".join(f"{line}\n" for line in expected),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert dict(zip(expected, ran.stdout.splitlines(), strict=True)) == expected, ran.stderr


@pytest.fixture
def shell(home: Path) -> Iterator[Terminal]:
    """A bash at a terminal, which has read what was installed for it."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [str(BASH), "--noprofile", "--rcfile", ".bashrc", "-i"],
        cwd=home,
        env=env(home, TERM="dumb", PENSTOCK_URL="http://127.0.0.1:1"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    ) as process:
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
    os.close(master)
    os.close(slave)


@pytest.mark.skipif(BASH is None, reason="no bash here")
def test_tab_in_a_bash_at_a_terminal(shell: Terminal) -> None:
    shell.wait_for("> ")
    shell.type(f"penstock doc{TAB}")
    shell.wait_for("penstock doctor ")
    shell.type("\x15")
    shell.type(f"penstock call predict prompt=@story{TAB}")  # no server is there, but files are
    shell.wait_for("@story.txt ")
    shell.type(f"more:=@stories/{TAB}")
    shell.wait_for("@stories/long.txt ")
    shell.type("\x15echo said\r")
    shell.wait_for("said\r\nsaid")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "penstock call predict prompt=@story"}),
        (
            "fish",
            {
                "_TYPER_COMPLETE_ARGS": "penstock call predict prompt=@story",
                "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            },
        ),
    ],
)
def test_other_shells_have_a_script_and_an_answer(home: Path, name: str, asked: dict[str, str]) -> None:
    named = env(home, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    shown = run(named, "--show-completion", name)
    assert f"_PENSTOCK_COMPLETE=complete_{name}" in shown
    assert "prompt=@story.txt" in run(env(home, _PENSTOCK_COMPLETE=f"complete_{name}", **asked), cwd=home)


@pytest.mark.skipif(FISH is None, reason="no fish here")
def test_fish_completes(home: Path) -> None:
    named = env(home, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    (home / "penstock.fish").write_text(run(named, "--show-completion", "fish"))
    asking = "source penstock.fish; complete -C 'penstock doc'; complete -C 'penstock bench u n a:=@stories/'"
    told = subprocess.run(
        [str(FISH), "--no-config", "-c", asking], cwd=home, env=env(home), capture_output=True, text=True
    )
    assert [line.split("\t")[0] for line in told.stdout.splitlines()] == ["doctor", "a:=@stories/long.txt"]


def run(named: dict[str, str], *arguments: str, cwd: Path | None = None) -> str:
    words = [str(BIN / "penstock"), *arguments]
    ran = subprocess.run(words, env=named, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    return ran.stdout
