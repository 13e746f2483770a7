"""A log with its corrections: frames that people said anew stand in for those of the model.

Corrections are a second log, ``corrections.jsonl``, which is only ever appended to and which no run writes;
so a run that is repeated or goes on leaves them as they are.  Of several corrections of a frame the last
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penstock.annotate.records import Frame, encode, read

CORRECTIONS = "corrections.jsonl"


def read_log(path: Path) -> Iterator[Frame]:
    """Yield the frames of a log; a last line that is not whole yet is left out.

    Raises:
        ValueError: A line is none of a log's.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        yield from read(line for line in file if line.endswith(b"\n"))


def read_corrected(path: Path) -> Iterator[Frame]:
    """Yield the frames of a log, those that were corrected as they were corrected."""
    corrections = load_corrections(path)
    for frame in read_log(path):
        said = corrections.get((frame.name, frame.frame))
        # Another file may have come to have this name.
        yield said if said is not None and said.src == frame.src else frame


def load_corrections(path: Path) -> dict[tuple[str, int], Frame]:
    """Return the corrections of a log, by file and frame."""
    beside = path.with_name(CORRECTIONS)
    if not beside.exists():
        return {}
    return {(frame.name, frame.frame): frame for frame in read_log(beside)}


def append_corrections(path: Path, frames: list[Frame]) -> None:
    """Add corrections to those of a log."""
    with path.with_name(CORRECTIONS).open("ab+") as file:
        size = file.seek(0, 2)
        file.seek(0)
        whole = _whole(file.read())
        if whole < size:  # a line that was not written whole spoils the next
            file.truncate(whole)
        file.write(b"".join(map(encode, frames)))


def _whole(text: bytes) -> int:
    """Return how much of a log is whole lines."""
    return text.rfind(b"\n") + 1
