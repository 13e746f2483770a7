"""What was read from another tool's file: pictures, and what it says is in each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from penstock.annotate.keyframes import Reduction
from penstock.annotate.records import Box, Frame, Keypoint, Lines, Origin, Polys, Region, Rle, Tag, region_id
from penstock.annotate.shapes.kinds import Rotated, around, bounds, corners
from penstock.annotate.shapes.lines import around_lines


class Drawn(NamedTuple):
    """A region as a person left it.

    Attributes:
        region: The id it went out with; None: it is new, or the tool does not keep ids.
        label: What it is.
        box: Its box.
        obb: Its rotated box, if it is one.
        polys: Its polygons, if it is one.
        lines: Its polylines, if it is such.
        rle: Its mask, if it is one.
        kp: Its keypoints.
        text: What it says.
        track: Which object it is, across frames.
        src: Who says so: a person, or interpolation between what one said.
        tolerance: How far it may be off where interpolation says so.
        coarse: Whether the tool has nothing but boxes, so that this may be that of a shape.
    """

    region: str | None
    label: str
    box: Box
    obb: Rotated | None = None
    polys: Polys | None = None
    rle: Rle | None = None
    kp: tuple[Keypoint, ...] | None = None
    text: str | None = None
    track: str | None = None
    src: Origin = "human"
    tolerance: Reduction | None = None
    coarse: bool = False
    lines: Lines | None = None


class Given(NamedTuple):
    """A picture, by the name it went out with, or by its file and frame; and what is in it.

    ``tags`` is None where the tool has no labels of whole pictures.  ``lines`` says whether it has polylines:
    else one is its box there, or nothing.
    """

    picture: str
    file: str | None
    frame: int | None
    size: tuple[int, int]
    regions: tuple[Drawn, ...]
    tags: tuple[str, ...] | None
    lines: bool = False


def from_polys(region: str | None, label: str, polys: Polys, **more: Any) -> Drawn:
    """Return a region that is polygons."""
    return Drawn(region, label, around(polys), polys=polys, **more)


def from_lines(region: str | None, label: str, lines: Lines, **more: Any) -> Drawn:
    """Return a region that is polylines."""
    return Drawn(region, label, around_lines(lines), lines=lines, **more)


def from_rotated(region: str | None, label: str, rotated: Rotated, **more: Any) -> Drawn:
    """Return a region that is a rotated box."""
    return Drawn(region, label, bounds(corners(rotated)), obb=rotated, **more)


def with_lines(drawn: Iterable[Drawn]) -> list[Drawn]:
    """Return regions of which tools tell each line by itself, put together by their ids."""
    found: dict[object, Drawn] = {}
    for number, one in enumerate(drawn):
        name: object = number if one.region is None else one.region
        before = found.get(name)
        if before is not None and not (before.lines or one.lines):
            name, before = number, None  # copied with its id, as it stands
        if before is None:
            found[name] = one
            continue
        # Lines beside a shape belong to it, and do not say where it is.
        whole = one if before.lines and not one.lines else before
        lines = (*(before.lines or ()), *(one.lines or ()))
        box = around_lines(lines) if whole.lines and is_line(whole) else whole.box
        found[name] = whole._replace(lines=lines, box=box)
    return list(found.values())


def is_line(drawn: Drawn) -> bool:
    """Whether what was drawn is polylines and nothing else."""
    return bool(drawn.lines) and not (drawn.obb or drawn.polys or drawn.rle)


def is_box(drawn: Drawn) -> bool:
    """Whether what was drawn is a box and no more."""
    return not (drawn.obb or drawn.polys or drawn.rle or drawn.lines)


def as_region(drawn: Drawn, frame: Frame, before: Region | None, number: int = 0) -> Region:
    """Return what a person drew as a region of a frame; what the tool cannot say stays as it was before.

    Args:
        drawn: What was drawn.
        frame: Where.
        before: What it was; None: it is new, and ``number`` tells it from others that are.

    Raises:
        ValueError: It is no region.
    """
    made = Region(
        id=before.id if before else "",
        label=drawn.label,
        box=drawn.box,
        obb=drawn.obb,
        polys=drawn.polys,
        lines=drawn.lines,
        rle=drawn.rle,
        kp=drawn.kp,
        text=drawn.text if drawn.text is not None or before is None else before.text,
        track=before.track if before else drawn.track,
        src=drawn.src,
        attrs=before.attrs if before else {},
    )
    if before is not None:
        return made
    content = msgspec.to_builtins(made)
    return msgspec.structs.replace(made, id=region_id(frame.src, frame.frame, content, f"human {number}"))


def as_tags(names: Iterable[str] | None, frame: Frame) -> tuple[Tag, ...]:
    """Return the labels of a whole frame; those that were there before keep their scores.

    Args:
        names: They are; None: the tool does not know of any, and they stay as they were.
        frame: Which frame.
    """
    if names is None:
        return frame.labels
    before = {tag.label: tag for tag in frame.labels}
    return tuple(before.get(name, Tag(name)) for name in names)
