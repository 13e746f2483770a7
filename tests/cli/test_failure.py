"""What an author reads when a project does not start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.cli.failure import describe_failure
from penstock.errors import AuthoringError


def raised_in(file: Path, code: str) -> Exception:
    """Return what running ``code`` raises, as if it stood in ``file``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    with pytest.raises(ArithmeticError) as caught:
        exec(compile(code, str(file), "exec"), {})
    return caught.value


def test_an_error_of_the_author_is_shown_at_its_line(tmp_path: Path) -> None:
    error = raised_in(tmp_path / "run.py", "x = 1\nx / 0\n")
    assert describe_failure(error, tmp_path).splitlines() == [
        "the project could not be imported",
        f'  File "{tmp_path / "run.py"}", line 2, in <module>',
        "    x / 0",
        *([] if sys.version_info < (3, 11) else ["    ~~^~~"]),
        "ZeroDivisionError: division by zero",
        "Correct this line and start again.",
    ]


def test_frames_of_installed_packages_are_left_out(tmp_path: Path) -> None:
    installed = tmp_path / ".venv" / "lib" / "site-packages" / "other.py"
    error = raised_in(installed, "1 / 0\n")
    refusal = AuthoringError("the other package is broken")
    refusal.__cause__ = error
    assert describe_failure(refusal, tmp_path) == "the other package is broken"


def test_an_error_of_ours_is_shown_whole(tmp_path: Path) -> None:
    error = raised_in(tmp_path / "elsewhere" / "ours.py", "1 / 0\n")
    project = tmp_path / "project"
    project.mkdir()
    shown = describe_failure(error, project)
    assert shown.startswith("internal error; please report it")
    assert "ours.py" in shown
    assert "ZeroDivisionError" in shown


def test_without_a_project_only_the_message_is_shown(tmp_path: Path) -> None:
    assert describe_failure(AuthoringError("no such engine"), None) == "no such engine"
