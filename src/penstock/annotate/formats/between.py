"""Frames between those that were looked at, with what is followed through them where it must have been.

A film of which every fifth frame was looked at has tracks that are known in every fifth.  Where one is in two
frames that were looked at one after the other, a straight line by the number of the frame says where it was
between them; that is written with ``interpolated`` as its ``src``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import msgspec

from penstock.annotate.keyframes import between
from penstock.annotate.records import Frame, Region, region_id, seconds_text
from penstock.annotate.shapes.kinds import bounds, corners

PLACES = 4  # decimals of a pixel


def with_between(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield frames, and before each those between it and the last in which something is known to be.

    Boxes, plain and turned, move and grow evenly; a shape is its box there.  What else is in such a frame
    nobody knows.
    """
    last: Frame | None = None
    for frame in frames:
        if last is not None and _is_next(last, frame):
            yield from _between(last, frame)
        yield frame
        last = frame


def _is_next(one: Frame, other: Frame) -> bool:
    same = (one.src, one.name, one.w, one.h) == (other.src, other.name, other.w, other.h)
    return same and one.frame < other.frame and one.seconds < other.seconds


def _between(one: Frame, other: Frame) -> Iterator[Frame]:
    later = {(region.track, region.label): region for region in other.regions if region.track is not None}
    pairs = [(region, later[key]) for region in one.regions if (key := (region.track, region.label)) in later]
    if not pairs:
        return
    step = (other.seconds - one.seconds) / (other.frame - one.frame)
    for number in range(one.frame + 1, other.frame):
        at = one.seconds + step * (number - one.frame)
        regions = tuple(_region(one, first, other, last, number) for first, last in pairs)
        yield _frame(one, number, at, regions)


def _frame(like: Frame, number: int, at: Fraction, regions: tuple[Region, ...]) -> Frame:
    return msgspec.structs.replace(
        like,
        frame=number,
        pts=None,
        t=seconds_text(at),
        flags=("no_pts",),
        regions=regions,
        labels=(),
        error=msgspec.UNSET,
        drops=msgspec.UNSET,
        iou=msgspec.UNSET,
    )


def _region(one: Frame, first: Region, other: Frame, last: Region, number: int) -> Region:
    obb = None
    box = between((one.frame, first.box), (other.frame, last.box), number)
    if first.obb is not None and last.obb is not None:
        # It turns the shorter way.
        angle = last.obb[4] + 360 * round((first.obb[4] - last.obb[4]) / 360)
        x, y, w, h, turn = between((one.frame, first.obb), (other.frame, (*last.obb[:4], angle)), number)
        obb = (x, y, w, h, turn)
        box = bounds(corners(obb))
    left, top, right, bottom = (round(side, PLACES) for side in box)
    content = (first.label, first.track, left, top, right, bottom)
    return Region(
        id=region_id(one.src, number, content, one.name),
        label=first.label,
        box=(left, top, right, bottom),
        obb=obb,
        track=first.track,
        src="interpolated",
    )
