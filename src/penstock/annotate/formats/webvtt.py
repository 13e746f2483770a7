"""WebVTT: what each moment of a video shows, as JSON in the cues of a track of metadata.

A browser plays such a track beside the video.  Its times are rounded to milliseconds; the exact ones stand in
the cues.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from penstock.annotate.formats.base import LOSSES, Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.reading import Unreadable, read_text
from penstock.annotate.formats.writing import opened, text_of
from penstock.annotate.records import Frame

_TIMES = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})")
_LEAST_MS = 1


class WebVtt(Format):
    """A cue for each frame, until the next."""

    name = "webvtt"
    says = frozenset(LOSSES) - {"stills"}
    thin = True
    video = True

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        for name, shots in groupby(self.shots(data), key=lambda shot: shot.frame.name):
            path = folder / f"{data.stems[name]}.vtt"
            with opened(path) as file:
                file.write("WEBVTT\n")
                for start, end, frame in _cues(shots):
                    file.write(f"\n{_time(start)} --> {_time(end)}\n{payload(frame)}\n")
            yield path

    def faults(self, folder: Path) -> Iterator[Fault]:
        for path in sorted(folder.rglob("*.vtt")):
            name = path.relative_to(folder).as_posix()
            try:
                blocks = read_text(folder, name).split("\n\n")
            except Unreadable as unreadable:
                yield unreadable.fault
                continue
            if blocks[0] not in ("WEBVTT", "WEBVTT\n"):
                yield Fault(name, "", "it should begin with WEBVTT and an empty line")
            before = 0
            for number, block in enumerate(blocks[1:], 1):
                what, before = _cue_fault(block.rstrip("\n"), before)
                if what:
                    yield Fault(name, f"cue {number}", what)


def payload(frame: Frame) -> str:
    """Return what a frame says as a line that can stand in a cue."""
    # An arrow would end the cue.
    return text_of(msgspec.to_builtins(frame)).replace("-->", "--\\u003e")


def _cues(shots: Iterable[Shot]) -> Iterator[tuple[int, int, Frame]]:
    """Yield start and end of each frame in milliseconds; the last one lasts as long as the one before it."""
    waiting: Frame | None = None
    start = length = 0
    for shot in shots:
        at = _milliseconds(shot.frame.seconds)
        if waiting is not None:
            length = max(at - start, _LEAST_MS)
            yield start, start + length, waiting
        waiting, start = shot.frame, max(at, 0)
    if waiting is not None:
        yield start, start + max(length, _LEAST_MS), waiting


def _milliseconds(seconds: Fraction) -> int:
    return round(seconds * 1000)


def _time(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{rest:03}"


def _cue_fault(block: str, before: int) -> tuple[str, int]:
    times, _, text = block.partition("\n")
    found = _TIMES.fullmatch(times)
    if not found:
        return "its first line should be two times", before
    parts = [int(part) for part in found.groups()]
    start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (parts[:4], parts[4:]))
    if end <= start or start < before:
        return "it should end after it begins, and begin no earlier than the cue before", start
    if "-->" in text or "\n" in text:
        return "its text should be one line without an arrow", start
    try:
        value: Any = json.loads(text)
    except ValueError:
        return "its text should be JSON", start
    return ("" if isinstance(value, dict) else "its text should be a JSON object"), start
