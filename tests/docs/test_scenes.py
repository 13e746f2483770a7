"""What pages show as a scene is played as it stands; what they show besides is tried elsewhere, or listed
with the reason why nobody tries it.  Every command line of penstock is one that it takes.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.pages import DOCS, Fence, fences
from docs.scenes import Scene, played
from penstock.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = sorted(DOCS.glob("*.md"))
BLOCKS = [fence for page in PAGES for fence in fences(page)]
SCENES = sorted({fence.page for fence in BLOCKS if played(fence)})
SHELL = [fence for fence in BLOCKS if fence.info.split(" ")[0] == "sh"]
NOT_PLAYED: dict[str, list[dict[str, str]]] = tomllib.loads(
    (Path(__file__).parent / "not_played.toml").read_text(encoding="utf-8")
)


@pytest.mark.timeout(300)  # a dozen processes, on a machine that may have others to run
@pytest.mark.parametrize("page", SCENES)
def test_a_page_is_played(page: str, tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        for fence in BLOCKS:
            if fence.page == page and played(fence):
                scene.play(fence)
        scene.finish()
    if page == "start.md":
        assert '"status":"cancelled"' in scene.said[-1]  # the call that was begun


def test_what_is_not_played_is_listed_with_its_reason() -> None:
    listed = [(page, entry["begins"]) for page, entries in NOT_PLAYED.items() for entry in entries]
    assert all(entry["reason"] for entries in NOT_PLAYED.values() for entry in entries)
    shown = [fence for fence in BLOCKS if _untried(fence)]
    missing = [fence.place for fence in shown if not any(_is(fence, *entry) for entry in listed)]
    assert missing == [], "say `run` behind its fence, or name it in not_played.toml"
    assert [entry for entry in listed if not any(_is(fence, *entry) for fence in shown)] == []


def _is(fence: Fence, page: str, begins: str) -> bool:
    return fence.page == page and fence.body.startswith(begins)


def _untried(fence: Fence) -> bool:
    kind = fence.info.split(" ")[0]
    return kind in ("sh", "bash", "python", "py", "") and not played(fence) and not _tried_as_python(fence)


def _tried_as_python(fence: Fence) -> bool:
    """Whether ``test_snippets`` tries it: as a project, as an engine, or as a program."""
    if fence.info.startswith("py "):  # test_clarifai_doc and test_litellm try them
        return True
    return fence.info.startswith("python ") or (fence.info == "python" and "Runtime(" in fence.body)


def lines_of_penstock(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each command line of penstock in a text of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("|&;<>"):
                words.append(word)
                continue
            while words and re.fullmatch(r"\w+=.*", words[0]):
                del words[0]
            if words[:1] == ["penstock"]:
                yield words[1:]
            words = []


COMMAND_LINES = [
    pytest.param(words, id=f"{fence.place}-{' '.join(words)}"[:60])
    for fence in SHELL
    for words in lines_of_penstock(fence.body)
    if "completion" not in " ".join(words)  # it would be installed; tests/cli looks at it
]
COMMAND_LINES += [
    pytest.param(shlex.split(re.sub(r'[\[\]",]', "", words)), id=f"{fence.place}-{fence.info}")
    for fence in BLOCKS
    for words in re.findall(r'^(?:ExecStart=\S+/penstock|CMD \["penstock",) (.*)$', fence.body, re.MULTILINE)
]


@pytest.fixture(scope="module")
def takes() -> Any:
    """Penstock's command line, which does nothing with what it takes."""
    command: Any = typer.main.get_command(app)
    leaves = [command]
    while leaves:
        found = leaves.pop()
        leaves += getattr(found, "commands", {}).values()
        if not hasattr(found, "commands"):
            found.callback = lambda **_: None
    return command


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_a_command_line_is_one(takes: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        takes.main(args=words, prog_name="penstock")
    said = capsys.readouterr().err
    assert ended.value.code == 0 or "does not exist" in said, said
