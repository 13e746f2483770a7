"""MOT: the boxes of tracks in a video, a line each; frames, tracks and pixels are counted from 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import groupby
from pathlib import Path

from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.reading import SLACK, Unreadable, decimals, read_lines
from penstock.annotate.formats.writing import number, one_line, opened

_KEYS = ("name", "imDir", "frameRate", "seqLength", "imWidth", "imHeight", "imExt")
_TRUTH, _FOUND = 9, 10  # columns
_DEFAULT_RATE = 30


class Mot(Format):
    """Tracked boxes as truth, and all boxes as found, with their scores."""

    name = "mot"
    says = frozenset({"score", "track"})
    video = True

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        classes = {label: place for place, label in enumerate(data.survey.labels, 1)}
        for name, shots in groupby(self.shots(data), key=lambda shot: shot.frame.name):
            place = folder / data.stems[name]
            last = _write(shots, place, classes, losses)
            with opened(place / "seqinfo.ini") as file:
                file.writelines(_info(data, name, last))
            with opened(place / "gt" / "labels.txt") as file:
                file.writelines(f"{one_line(label)}\n" for label in classes)
            yield from (place / one for one in ("gt/gt.txt", "det/det.txt", "seqinfo.ini", "gt/labels.txt"))

    def faults(self, folder: Path) -> Iterator[Fault]:
        for path in sorted(folder.rglob("seqinfo.ini")):
            place = path.parent.relative_to(folder).as_posix()
            try:
                yield from _sequence_faults(folder, place)
            except Unreadable as unreadable:
                yield unreadable.fault


def _write(shots: Iterable[Shot], place: Path, classes: dict[str, int], losses: Counter[str]) -> int:
    """Write the boxes; return the number of the last frame."""
    tracks: dict[str, int] = {}
    last = 0
    with opened(place / "gt" / "gt.txt") as truth, opened(place / "det" / "det.txt") as found:
        for shot in shots:
            last = shot.frame.frame + 1
            for region in shot.regions:
                left, top, right, bottom = shot.clipped(region.box)
                box = ",".join(str(number(one)) for one in (left + 1, top + 1, right - left, bottom - top))
                score = 1 if region.score is None else number(region.score)
                found.write(f"{last},-1,{box},{score},-1,-1,-1\n")
                if region.track is None:
                    losses["regions without a track, which are in det.txt only"] += 1
                    continue
                track = tracks.setdefault(region.track, len(tracks) + 1)
                truth.write(f"{last},{track},{box},1,{classes[region.label]},1\n")
    return last


def _info(data: Dataset, name: str, last: int) -> Iterator[str]:
    source, (width, height) = data.sources[name], data.survey.sizes[name]
    rate = Fraction(source.rate) if source.rate else Fraction(_DEFAULT_RATE)
    stem = data.stems[name].rpartition("/")[2]
    values = (stem, "img1", number(float(rate)), source.frames or last, width, height, ".png")
    yield "[Sequence]\n"
    yield from (f"{key}={value}\n" for key, value in zip(_KEYS, values, strict=True))


def _sequence_faults(folder: Path, place: str) -> Iterator[Fault]:
    lines = [line.partition("=") for line in read_lines(folder, f"{place}/seqinfo.ini")[1:]]
    info = {key: value for key, _, value in lines}
    size = decimals([info.get(key, "") for key in ("seqLength", "imWidth", "imHeight", "frameRate")])
    if tuple(info) != _KEYS or size is None or min(size) <= 0:
        yield Fault(f"{place}/seqinfo.ini", "", f"it should have {', '.join(_KEYS)}, and numbers above 0")
        return
    labels = len(read_lines(folder, f"{place}/gt/labels.txt"))
    for name, columns in (("gt/gt.txt", _TRUTH), ("det/det.txt", _FOUND)):
        seen: set[tuple[float, ...]] = set()
        for line, text in enumerate(read_lines(folder, f"{place}/{name}"), 1):
            if what := _line_fault(text, columns, size, labels, seen):
                yield Fault(f"{place}/{name}", f"line {line}", what)


def _line_fault(text: str, columns: int, size: list[float], labels: int, seen: set[tuple[float, ...]]) -> str:
    found = decimals(text.split(","))
    if found is None or len(found) != columns:
        return f"it should be {columns} finite numbers"
    frame, track, left, top, width, height = found[:6]
    if frame != int(frame) or not 1 <= frame <= size[0]:
        return f"there is no frame {frame:g}; they are counted from 1"
    if width <= 0 or height <= 0:
        return "the box has no area"
    beyond = (1 - left, 1 - top, left + width - 1 - size[1], top + height - 1 - size[2])
    if max(beyond) > SLACK:
        return "the box reaches outside the image; pixels are counted from 1"
    if columns == _FOUND:
        return ""
    if track != int(track) or track < 1 or found[7] not in range(1, labels + 1):
        return "track and class should be whole numbers from 1 on, the class one of the labels"
    if (frame, track) in seen:
        return f"the track {track:g} stands twice in the frame"
    seen.add((frame, track))
    return ""
