"""Tracks as formats with key frames have them: stretches in which a thing is seen, and what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import cos, radians, sin
from typing import Any, NamedTuple, Protocol, TypeVar

from penstock.annotate.formats.dataset import Shot
from penstock.annotate.formats.geometry import is_turned
from penstock.annotate.keyframes import Reduction, Values, keys_of
from penstock.annotate.records import Box, Region
from penstock.annotate.shapes.kinds import Rotated


class Moment(NamedTuple):
    """A shape of a track.

    Attributes:
        frame: Which frame it is in.
        seen: Which of the frames that were looked at this is; where two are not neighbours, it was away.
        values: The sides of a box as they are read again, and the angle it is turned by, if it is; of other
            shapes, all that is written.
        exact: Where the box is.
        said: What else is said of it that key frames have.
        human: Whether a person says so.
    """

    frame: int
    seen: int
    values: Values | str
    exact: Box
    said: tuple[Any, ...]
    human: bool


class _Timed(Protocol):
    @property
    def at(self) -> Moment: ...


Timed = TypeVar("Timed", bound=_Timed)


def moment_of(region: Region, shot: Shot, seen: int, values: Values | str) -> Moment:
    """Return when a region is where."""
    turned = region.obb if region.obb and is_turned(region.obb) else None
    exact = level(turned) if turned else shot.clipped(region.box)
    said = (region.text, sorted((name, repr(value)) for name, value in region.attrs.items()))
    return Moment(shot.frame.frame, seen, values, exact, said, region.src == "human")


def level(rotated: Rotated) -> Box:
    """Return a turned box on a plane that is turned back: two of one angle are as far apart there as here."""
    x, y, width, height, angle = rotated
    across, along = cos(radians(angle)), sin(radians(angle))
    u, v = x * across + y * along, y * across - x * along
    return (u - width / 2, v - height / 2, u + width / 2, v + height / 2)


def stretches(shapes: Sequence[Timed]) -> Iterator[list[Timed]]:
    """Yield the shapes of a track in stretches: whatever is seen in every frame that was looked at."""
    stretch: list[Timed] = []
    for shape in shapes:
        if stretch and shape.at.seen > stretch[-1].at.seen + 1:
            yield stretch
            stretch = []
        stretch.append(shape)
    if stretch:
        yield stretch


def reduced(
    shapes: Sequence[Timed], reduction: Reduction | None, losses: Counter[str]
) -> Iterator[list[Timed]]:
    """Yield the stretches of a track, of each what is to be key frames.

    Boxes are left out that interpolation gives back, other shapes that stay as they are.
    """
    for stretch in stretches(shapes):
        if reduction is None:
            yield stretch
            continue
        kept = _keys([shape.at for shape in stretch], reduction)
        what = f"shapes left to interpolation ({reduction}), with the scores they had"
        losses[what] += len(stretch) - len(kept)
        yield [stretch[number] for number in kept]


def _keys(stretch: list[Moment], reduction: Reduction) -> list[int]:
    forced = {number for number, at in enumerate(stretch) if at.human}
    for number, (one, other) in enumerate(pairwise(stretch)):
        if one.said != other.said or not _is_line(one.values, other.values):
            forced |= {number, number + 1}
    path = [(at.frame, () if isinstance(at.values, str) else at.values) for at in stretch]
    return keys_of(path, lambda number, values: _off(stretch[number], values, reduction), sorted(forced))


def _is_line(one: Values | str, other: Values | str) -> bool:
    """Whether interpolation may lead from one shape to another: a box that keeps its angle."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return len(one) == len(other) and one[4:] == other[4:]


def _off(at: Moment, values: Values, reduction: Reduction) -> float:
    if not values:
        return 0.0
    left, top, right, bottom = values[:4]
    if len(values) == 4:
        return reduction.off(at.exact, (left, top, right, bottom))
    middle = ((left + right) / 2, (top + bottom) / 2)
    return reduction.off(at.exact, level((*middle, right - left, bottom - top, values[4])))
