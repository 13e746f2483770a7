"""The way out and back: frames that are worth a look, and what people made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.corrected import append_corrections, load_corrections
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import Report, dataset_of, export_data
from penstock.annotate.records import Frame
from penstock.annotate.review.comparing import Judged, judge
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
    """

    frames: int
    verdicts: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    iou: Mapping[str, float]
    unknown: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield it as people read it."""
        yield f"{self.frames} frames: {_counts(self.verdicts)}"
        for label, counts in self.labels.items():
            kept = f", IoU {self.iou[label]:.3f}" if label in self.iou else ""
            yield f"  {label}: {_counts(counts)}{kept}"
        yield from (f"  no picture of this log: {name}" for name in self.unknown)


def export_review(log_path: Path, below: float, formats: Iterable[str], directory: Path) -> Report:
    """Write the frames in which something is less sure than a score, whole, for people to correct.

    Frames that were corrected already are left out, and so are scores that nobody gave.

    Raises:
        ConfigError: There is no format of a name.
        OSError: The log cannot be read, or something cannot be written.
    """
    return export_data(worth_a_look(log_path, below), formats, directory)


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
    nothing in it was changed.

    Args:
        log_path: The log.
        kind: ``label-studio``, ``cvat`` or ``coco``.
        path: The file that tool wrote.

    Raises:
        ConfigError: It is no such file, or no picture in it is one of the log.
        OSError: It cannot be read or written.
    """
    given = read_given(kind, path)
    found, unknown = _matched(log_path, given)
    if given and not found:
        raise ConfigError(f"no picture of {path} is one of {log_path}, such as {unknown[0]}")
    frames: list[Frame] = []
    judged: list[Judged] = []
    for frame, one in found:
        mine = _judged(frame, one)
        tags = as_tags(one.tags, frame) if kind != "coco" else frame.labels
        regions = tuple(each.after for each in mine if each.after is not None)
        frames.append(msgspec.structs.replace(frame, regions=regions, labels=tags))
        judged += mine
    append_corrections(log_path, frames)
    return _agreement(frames, judged, tuple(unknown))


def _matched(log_path: Path, given: list[Given]) -> tuple[list[tuple[Frame, Given]], list[str]]:
    """Return what was given with the frames that went out, in the order of the log, and names of no frame."""
    by_place = {(one.file, one.frame): one for one in given if one.file is not None}
    by_name = {one.picture: one for one in given if one.file is None}
    found: list[tuple[Frame, Given]] = []
    for shot in dataset_of(log_path).shots():
        one = by_place.pop((shot.frame.name, shot.frame.frame), None)
        for name in (shot.file_name, shot.flat_name):
            one = one or by_name.pop(name, None)
        if one is not None:
            _check_size(one, shot.frame)
            found.append((shot.frame, one))
    return found, [one.picture for one in (*by_place.values(), *by_name.values())]


def _judged(frame: Frame, one: Given) -> list[Judged]:
    try:
        return list(judge(frame, one.regions))
    except ValueError as error:
        raise ConfigError(f"{one.picture}: {error}") from error


def _check_size(one: Given, frame: Frame) -> None:
    if one.size not in ((0, 0), (frame.w, frame.h)):
        raise ConfigError(
            f"{one.picture} is {one.size[0]} x {one.size[1]} there, and {frame.w} x {frame.h} in the log"
        )


def _agreement(frames: list[Frame], judged: list[Judged], unknown: tuple[str, ...]) -> Agreement:
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
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
