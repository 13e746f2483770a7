"""What people left of a frame, held against what the model said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from penstock.annotate.formats.dataset import THIN
from penstock.annotate.formats.geometry import is_line, is_plain, is_turned, polys_of
from penstock.annotate.formats.moments import level
from penstock.annotate.keyframes import Reduction
from penstock.annotate.records import Box, Frame, Keypoint, Line, Lines, Polys, Region
from penstock.annotate.review.given import Drawn, as_region, is_box
from penstock.annotate.shapes.kinds import Rotated, around
from penstock.annotate.shapes.raster import overlap, rasterise
from penstock.annotate.shapes.repair import fit

# Formats round to a hundredth of a pixel, or of a percent of a few thousand pixels.
_NEAR = 0.03
_SAME_MASK = 0.999
_ALIKE = 0.5


class Judged(NamedTuple):
    """A region of the model and what became of it; ``before`` is None for one that was added.

    ``after`` is None for one that was rejected, and the very same if it was accepted.
    """

    before: Region | None
    after: Region | None
    iou: float

    @property
    def verdict(self) -> str:
        """What was said of it: accepted, fixed, rejected or added."""
        if self.before is None:
            return "added"
        if self.after is None:
            return "rejected"
        return "accepted" if self.after is self.before else "fixed"


def judge(frame: Frame, drawn: tuple[Drawn, ...], *, lines: bool = True) -> Iterator[Judged]:
    """Yield what became of each region of a frame, those that were added last.

    Regions belong together by their ids; of those that have none that is known, by what they cover most, more
    than half of it.

    Args:
        frame: As the model said it, or people before.
        drawn: What is in it now.
        lines: Whether the tool has polylines; else one is its box there, and a level one is not shown at all.

    Raises:
        ValueError: Something that was drawn is no shape.
    """
    pairs = _paired(frame, drawn)
    for region in frame.regions:
        if region.id not in pairs:
            hidden = is_line(region) and not lines and not has_area(region.box)
            yield Judged(region, region if hidden else None, float(hidden))
            continue
        one = pairs[region.id]
        if one.coarse or (is_line(region) and not lines):
            one = one._replace(coarse=True, kp=region.kp)
        iou = _shared(region, one, frame)
        yield Judged(region, region if _is_same(region, one, iou) else _changed(region, one, frame), iou)
    known = {id(one) for one in pairs.values()}
    added = (one for one in drawn if id(one) not in known)
    for number, one in enumerate(added):
        yield Judged(None, as_region(_sound(one, frame), frame, None, number), 0.0)


def _changed(region: Region, drawn: Drawn, frame: Frame) -> Region:
    """Return a region as a person changed it."""
    unmoved = drawn._replace(label=region.label)
    if drawn.coarse and _is_same(region, unmoved, _shared(region, unmoved, frame)):
        # Only its label is another: a shape of which the tool shows the box stays.
        return msgspec.structs.replace(region, label=drawn.label, src=drawn.src)
    return as_region(_sound(drawn, frame), frame, region)


def _sound(drawn: Drawn, frame: Frame) -> Drawn:
    """Return what was drawn with polygons that are valid and inside the picture; people cross their lines."""
    if not drawn.polys:
        return drawn
    polys = fit(drawn.polys, frame.w, frame.h).polys
    if not polys:
        raise ValueError(f"a polygon of {drawn.label} has no area in the picture")
    return drawn._replace(polys=polys, box=around(polys))


def _paired(frame: Frame, drawn: tuple[Drawn, ...]) -> dict[str, Drawn]:
    ids = {region.id for region in frame.regions}
    pairs: dict[str, Drawn] = {}
    for one in drawn:
        if one.region in ids and one.region not in pairs:
            pairs[one.region] = one
    tracks = {one.track: one for one in drawn if one.region is None and one.track is not None}
    for region in frame.regions:
        if region.id not in pairs and region.track in tracks:
            pairs[region.id] = tracks.pop(region.track)
    known = {id(one) for one in pairs.values()}
    free = [region for region in frame.regions if region.id not in pairs]
    # One that was drawn anew in a tool that gives ids is no region of before.
    loose = [one for one in drawn if id(one) not in known and one.region is None]
    found = [
        (_shared(region, one, frame), at, number)
        for at, region in enumerate(free)
        for number, one in enumerate(loose)
        if region.label == one.label
    ]
    taken: set[int] = set()
    for iou, at, number in sorted(found, key=lambda entry: (-entry[0], entry[1:])):
        if iou > _ALIKE and free[at].id not in pairs and number not in taken:
            pairs[free[at].id] = loose[number]
            taken.add(number)
    return pairs


def _is_same(region: Region, drawn: Drawn, iou: float) -> bool:
    """Whether nothing was changed but by rounding."""
    if drawn.label != region.label or not _are_near(region.kp, drawn.kp):
        return False
    if drawn.text is not None and drawn.text != (region.text or ""):
        return False
    turned = region.obb if region.obb and is_turned(region.obb) else None
    shaped = bool(region.polys or region.rle or region.lines) and not drawn.coarse
    if drawn.src == "interpolated" and drawn.tolerance is not None and not shaped:
        return _is_within(region, turned, drawn, drawn.tolerance)
    if max(abs(a - b) for a, b in zip(region.box, drawn.box, strict=True)) > _NEAR:
        return False
    if not (shaped or turned) and is_box(drawn):
        return True
    if not drawn.coarse and not _are_near_lines(region.lines or (), drawn.lines or ()):
        return False
    if is_line(region) and drawn.lines:
        return True
    if turned and drawn.obb:
        return _are_near_turned(turned, drawn.obb)
    return iou >= _SAME_MASK or _are_near_polys(polys_of(region), drawn.polys)


def _is_within(region: Region, turned: Rotated | None, drawn: Drawn, tolerance: Reduction) -> bool:
    """Whether a box is where interpolation puts it, as nearly as it was to be when it went out."""
    if turned is None or drawn.obb is None:
        return turned is drawn.obb is None and tolerance.allows(region.box, drawn.box)
    # Formats round the angle, which far from the origin would move a box that is turned back.
    level_again = level((*drawn.obb[:4], turned[4]))
    return _turn(turned, drawn.obb) <= _NEAR and tolerance.allows(level(turned), level_again)


def _are_near_turned(one: Rotated, other: Rotated) -> bool:
    apart = max(abs(a - b) for a, b in zip(one[:4], other[:4], strict=True))
    return apart <= _NEAR and _turn(one, other) <= _NEAR


def _turn(one: Rotated, other: Rotated) -> float:
    return abs((one[4] - other[4] + 180) % 360 - 180)


def _are_near(before: tuple[Keypoint, ...] | None, after: tuple[Keypoint, ...] | None) -> bool:
    """Whether the same keypoints are seen, where they were; formats may tell no more of hidden ones."""
    first = [(x, y) for x, y, v in before or () if v]
    second = [(x, y) for x, y, v in after or () if v]
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(abs(a - c) + abs(b - d) <= 2 * _NEAR for (a, b), (c, d) in pairs)


def _are_near_lines(before: Lines, after: Lines) -> bool:
    if sorted(map(len, before)) != sorted(map(len, after)):
        return False
    return all(any(_is_near_line(line, other) for other in after) for line in before)


def _is_near_line(one: Line, other: Line) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(abs(a - c) + abs(b - d) <= 2 * _NEAR for (a, b), (c, d) in pairs)


def _are_near_polys(before: Polys, after: Polys | None) -> bool:
    rings = [ring for part in before for ring in part]
    others = [ring for part in after or () for ring in part]
    if [len(ring) for ring in rings] != [len(ring) for ring in others]:
        return False
    flat = zip((p for ring in rings for p in ring), (p for ring in others for p in ring), strict=True)
    return all(abs(a - c) <= _NEAR and abs(b - d) <= _NEAR for (a, b), (c, d) in flat)


def _shared(region: Region, drawn: Drawn, frame: Frame) -> float:
    """Return the IoU of a region and what was drawn; of a shape the tool does not know, that of its box."""
    other = as_region(drawn, frame, region)
    if drawn.coarse and is_box(drawn):
        return _box_iou(region, other)
    return _iou(region, other, frame)


def _iou(one: Region, other: Region, frame: Frame) -> float:
    if one.lines and other.lines and _are_near_lines(one.lines, other.lines) and is_plain(one):
        return 1.0
    if is_plain(one) and is_plain(other):
        return _box_iou(one, other)
    masks = [rasterise(polys_of(region), frame.h, frame.w) for region in (one, other)]
    return overlap(masks[0], masks[1])


def has_area(box: Box) -> bool:
    """Whether a box is one that tools show."""
    return min(box[2] - box[0], box[3] - box[1]) > THIN


def _box_iou(one: Region, other: Region) -> float:
    a, b = one.box, other.box
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
