"""The way out and back: frames that are worth a look, and what people made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.corrected import append_corrections, load_corrections
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.registry import Exported, Report, dataset_of, export_data, formats_named
from penstock.annotate.keyframes import Reduction
from penstock.annotate.records import Frame
from penstock.annotate.review.comparing import Judged, judge
from penstock.annotate.review.films import Film, films_by_name
from penstock.annotate.review.given import Given, as_tags
from penstock.annotate.review.reading import read_given

VERDICTS = ("accepted", "fixed", "rejected", "added")


class Agreement(NamedTuple):
    """How far people agreed with the model.

    Attributes:
        frames: How many frames were corrected or confirmed.
        verdicts: How many regions were accepted, fixed, rejected and added.
        labels: The same for each label (of the model; of those that were added, of the person).
        iou: The mean IoU of what was kept with what it was, for each label.
        unknown: Pictures that are none of the log.
        before: How many frames of videos were corrected before, and were left as they were then.
    """

    frames: int
    verdicts: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    iou: Mapping[str, float]
    unknown: tuple[str, ...]
    before: int = 0

    def lines(self) -> Iterator[str]:
        """Yield it as people read it."""
        yield f"{self.frames} frames: {_counts(self.verdicts)}"
        for label, counts in self.labels.items():
            kept = f", IoU {self.iou[label]:.3f}" if label in self.iou else ""
            yield f"  {label}: {_counts(counts)}{kept}"
        if self.before:
            yield f"  {self.before} frames were corrected before, and are left as they were then"
        yield from (f"  no picture of this log: {name}" for name in self.unknown)


def export_review(
    log_path: Path,
    below: float,
    formats: Iterable[str],
    directory: Path,
    *,
    reduction: Reduction | None = None,
) -> Report:
    """Write the frames in which something is less sure than a score, whole, for people to correct.

    Frames that were corrected already are left out, and so are scores that nobody gave.  In formats of videos
    all of a video is written in which there is such a frame: tracks go through it.

    Args:
        log_path: The log.
        below: The score.
        formats: Names of formats.
        directory: Where to.
        reduction: What formats that have key frames may leave to interpolation; None: nothing.

    Raises:
        ConfigError: There is no format of a name.
        OSError: The log cannot be read, or something cannot be written.
    """
    some = worth_a_look(log_path, below)
    written: list[Exported] = []
    for one in formats_named(formats):
        data = whole_films(some, dataset_of(log_path, reduction)) if one.video else some
        written += export_data(data, [one.name], directory).formats
    return Report(written)


def whole_films(some: Dataset, data: Dataset) -> Dataset:
    """Return all frames of the files of which some frames are given."""
    names = {shot.frame.name for shot in some.shots()}
    return data.where(lambda frame: frame.name in names)


def worth_a_look(log_path: Path, below: float) -> Dataset:
    """Return the frames of a log in which something is less sure than a score, and which nobody corrected."""
    corrected = load_corrections(log_path)

    def keep(frame: Frame) -> bool:
        scores = [*(region.score for region in frame.regions), *(tag.score for tag in frame.labels)]
        unsure = any(score is not None and score < below for score in scores)
        return unsure and (frame.name, frame.frame) not in corrected

    return dataset_of(log_path).where(keep)


def import_corrections(log_path: Path, kind: str, path: Path) -> Agreement:
    """Read what people made of a log's frames, and keep it beside the log, where every export finds it.

    What was not changed stays as the model said it, to the last digit.  A frame counts as corrected also if
    nothing in it was changed.  What a video shows between the key frames of a person is marked as
    interpolated, and frames of a video that were corrected before stay as they are.

    Args:
        log_path: The log.
        kind: ``label-studio``, ``label-studio-video``, ``cvat``, ``cvat-video`` or ``coco``.
        path: The file that tool wrote.

    Raises:
        ConfigError: It is no such file, or no picture in it is one of the log.
        OSError: It cannot be read or written.
    """
    given = read_given(kind, path)
    found, unknown, before = _matched(log_path, given)
    if given and not found and not before:
        raise ConfigError(f"no picture of {path} is one of {log_path}, such as {unknown[0]}")
    frames: list[Frame] = []
    judged: list[Judged] = []
    for frame, one in found:
        mine = _judged(frame, one)
        regions = tuple(each.after for each in mine if each.after is not None)
        frames.append(msgspec.structs.replace(frame, regions=regions, labels=as_tags(one.tags, frame)))
        judged += mine
    append_corrections(log_path, frames)
    return _agreement(frames, judged, tuple(unknown), before)


class _Matched(NamedTuple):
    """What was given, by the frames that went out, in the order of the log.

    Attributes:
        found: The frames, and what is in them.
        unknown: What was given and is of no frame.
        before: How many frames of videos were corrected before.
    """

    found: list[tuple[Frame, Given]]
    unknown: list[str]
    before: int


def _matched(log_path: Path, given: Sequence[Given | Film]) -> _Matched:
    data, corrected = dataset_of(log_path), load_corrections(log_path)
    pictures = _Pictures([one for one in given if isinstance(one, Given)])
    films, unknown = films_by_name([one for one in given if isinstance(one, Film)], data)
    found: list[tuple[Frame, Given]] = []
    before = 0
    for shot in data.shots():
        frame, film = shot.frame, films.get(shot.frame.name)
        if film is None:
            one = pictures.of(shot)
        elif not film.holds(frame.frame):
            one = None
        elif _is_corrected(frame, corrected):
            one, before = None, before + 1
        else:
            one = film.given(frame)
        if one is not None:
            _check_size(one, frame)
            found.append((frame, one))
    return _Matched(found, unknown + pictures.left(), before)


def _is_corrected(frame: Frame, corrected: Mapping[tuple[str, int], Frame]) -> bool:
    said = corrected.get((frame.name, frame.frame))
    return said is not None and said.src == frame.src


class _Pictures:
    """Pictures as they were given, each of which is of one frame."""

    def __init__(self, given: Sequence[Given]) -> None:
        self._by_place = {(one.file, one.frame): one for one in given if one.file is not None}
        self._by_name = {one.picture: one for one in given if one.file is None}

    def of(self, shot: Shot) -> Given | None:
        """Return what is in a frame, and forget it."""
        one = self._by_place.pop((shot.frame.name, shot.frame.frame), None)
        for name in (shot.file_name, shot.flat_name):
            one = one or self._by_name.pop(name, None)
        return one

    def left(self) -> list[str]:
        """Return the names of those that are of no frame."""
        return [one.picture for one in (*self._by_place.values(), *self._by_name.values())]


def _judged(frame: Frame, one: Given) -> list[Judged]:
    try:
        return list(judge(frame, one.regions, lines=one.lines))
    except ValueError as error:
        raise ConfigError(f"{one.picture}: {error}") from error


def _check_size(one: Given, frame: Frame) -> None:
    if one.size not in ((0, 0), (frame.w, frame.h)):
        raise ConfigError(
            f"{one.picture} is {one.size[0]} x {one.size[1]} there, and {frame.w} x {frame.h} in the log"
        )


def _agreement(frames: list[Frame], judged: list[Judged], unknown: tuple[str, ...], before: int) -> Agreement:
    labels: dict[str, Counter[str]] = {}
    overlaps: dict[str, list[float]] = {}
    for one in judged:
        region = one.before or one.after
        label = region.label if region else ""
        labels.setdefault(label, Counter())[one.verdict] += 1
        if one.before is not None and one.after is not None:
            overlaps.setdefault(label, []).append(one.iou)
    total = Counter(one.verdict for one in judged)
    means = {label: sum(all_) / len(all_) for label, all_ in sorted(overlaps.items())}
    return Agreement(
        len(frames),
        {verdict: total[verdict] for verdict in VERDICTS},
        {label: {verdict: labels[label][verdict] for verdict in VERDICTS} for label in sorted(labels)},
        means,
        unknown,
        before,
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
