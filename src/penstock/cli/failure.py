"""What an author reads when a project does not start: the error at their own lines, and what to do."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from penstock.errors import PenstockError

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = frozenset(("site-packages", "dist-packages"))


def describe_failure(error: BaseException, project: Path | None) -> str:
    """Return the words for an error that kept a project from starting.

    Args:
        project: The project's folder or file; only frames of its files are shown.
    """
    frames = _frames(error, project)
    if isinstance(error, PenstockError):
        return "\n".join((str(error), *frames))
    if not frames and not isinstance(error, SyntaxError):
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return f"internal error; please report it with this:\n{trace.rstrip()}"
    said = "".join(traceback.format_exception_only(type(error), error)).rstrip()
    return "\n".join(("the project could not be imported", *frames, said, _advice(error)))


def _frames(error: BaseException, project: Path | None) -> list[str]:
    if project is None:
        return []
    folder = project.resolve() if project.is_dir() else project.resolve().parent
    while True:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if _is_own(Path(frame.filename).resolve(), folder)]
        if own or error.__cause__ is None:
            return "".join(traceback.format_list(own)).rstrip().splitlines()
        error = error.__cause__


def _is_own(file: Path, folder: Path) -> bool:
    if not file.is_relative_to(folder) or file.is_relative_to(_PACKAGE):
        return False
    return _INSTALLED.isdisjoint(file.parts)


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f"Install the package that provides {package} for {sys.executable}, or correct the import."
    return "Correct this line and start again."
