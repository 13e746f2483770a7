"""From what models find to what is kept: repaired, inside its image, said once; each drop has its reason."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from fractions import Fraction
from math import isfinite

import msgspec

from penstock.annotate import rle
from penstock.annotate.answers import Answer, Found
from penstock.annotate.concepts import Concept, check_roi, touches
from penstock.annotate.overlaps import Way, resolve
from penstock.annotate.records import Box, Keypoint, Region, Ring, Rle, Tag, region_id
from penstock.annotate.shapes.kinds import area, around, bounds, corners
from penstock.annotate.shapes.lines import around_lines, clip_lines
from penstock.annotate.shapes.outline import outline
from penstock.annotate.shapes.repair import Fitted, fit

PLACES = 4  # decimals of a pixel that are kept of a box

_ANY = Concept(label="")


class Refining(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is kept, and how it is made fit to be written.  The steps are taken in this order.

    Args:
        concepts: What is kept of each label, and how it is called.
        others: Whether labels that ``concepts`` does not name are kept.
        min_score: Least confidence of any region.
        begins: When the first frame of each file was taken, as ISO 8601; needed for the hours of a concept.
        polygons: Whether masks get their exact polygons, too.
        tolerance: How far an edge may move when a polygon is made simpler, in pixels.
        floor: The IoU of the masks, before and after, that a simpler polygon must keep.
        min_area: Least area, in pixels.
        overlaps: What becomes of several regions for one thing; None: nothing.
        iou: Above which two regions are for one thing.
        by_class: Whether only regions of one label can be.
        roi: A polygon that all regions must touch, in fractions of width and height.
        avoid: A polygon that no region must touch.
        most: How many regions of a frame are kept, the surest first.

    Raises:
        ValueError: Something of it is contradictory.
    """

    concepts: tuple[Concept, ...] = ()
    others: bool = True
    min_score: float | None = None
    begins: str | None = None
    polygons: bool = False
    tolerance: float = 0.0
    floor: float = 0.999
    min_area: float = 0.0
    overlaps: Way | None = None
    iou: float = 0.5
    by_class: bool = True
    roi: Ring = ()
    avoid: Ring = ()
    most: int | None = None

    def __post_init__(self) -> None:
        check_roi(self.roi)
        check_roi(self.avoid)
        if self.begins is not None:
            _ = datetime.fromisoformat(self.begins)
        elif any(concept.hours for concept in self.concepts):
            raise ValueError("a concept has hours, and `begins` does not say when the first frame was taken")
        if not 0 < self.iou <= 1:
            raise ValueError(f"iou is {self.iou}; it must be between 0 and 1")
        if self.most is not None and self.most < 1:
            raise ValueError(f"most is {self.most}; it must be at least 1")


class Spot(msgspec.Struct, frozen=True, kw_only=True):
    """Which frame it is: of a file with this digest (and so many with the same before it), its number, its
    time in seconds from the first, and its size."""

    src: str
    copy: int
    frame: int
    seconds: Fraction
    w: int
    h: int


class Refined(msgspec.Struct):
    """What is kept of a frame, how many regions were dropped for which reason, and the least IoU that making
    polygons simpler left."""

    regions: tuple[Region, ...]
    tags: tuple[Tag, ...]
    drops: dict[str, int]
    iou: float = 1.0


class Refiner:
    """Refines the answers about each frame; it remembers nothing from one to the next.

    Args:
        settings: What is kept.
        models: How many models are asked about each frame.
    """

    def __init__(self, settings: Refining, models: int = 1) -> None:
        self._settings = settings
        self._models = models
        self._concepts = {concept.label: concept for concept in settings.concepts}
        self._begins = None if settings.begins is None else datetime.fromisoformat(settings.begins)

    def refine(self, answer: Answer, spot: Spot) -> Refined:
        """Return what is kept of what was found in a frame."""
        drops: Counter[str] = Counter()
        kept = []
        for found in answer.regions:
            reason = self._take(found, spot)
            if reason:
                drops[reason] += 1
            else:
                kept.append(found)
        kept = self._resolved(kept, drops)
        kept = self._in_place(kept, spot, drops)
        kept = self._most(kept, drops)
        tags = tuple(tag for tag in (self._tag(tag, spot, drops) for tag in answer.tags) if tag)
        least = min((found.iou for found in kept), default=1.0)
        return Refined(self._regions(kept, spot), tags, dict(sorted(drops.items())), least)

    # -- one region ----------------------------------------------------------------------------------

    def _take(self, found: Found, spot: Spot) -> str:
        """Make a region fit; returns the reason if it is not kept."""
        if not _is_finite(found):
            return "not_finite"
        concept = self._concept(found.label)
        if concept is None:
            return "label"
        least = self._settings.min_score
        if not concept.takes_score(found.score) or (
            least is not None and found.score is not None and found.score < least
        ):
            return "score"
        if not concept.takes_time(self._begins, spot.seconds):
            return "hours"
        found.known, found.label = found.label, concept.name or found.label
        if concept.status:
            found.attrs = {**found.attrs, "status": concept.status}
        return self._shape(found, spot) or _restrict(found, concept) or self._small(found)

    def _shape(self, found: Found, spot: Spot) -> str:
        if found.polys is not None:
            tolerance, floor = self._settings.tolerance, self._settings.floor
            fitted = fit(found.polys, spot.w, spot.h, tolerance=tolerance, floor=floor)
            if not fitted.polys:
                return "empty"
            found.polys, found.iou = fitted.polys, fitted.iou
        if found.lines is not None:
            reason = _clip_lines(found, spot)
            if reason:
                return reason
        if found.kp is not None:
            found.kp = tuple(_inside(point, spot) for point in found.kp)
        return self._mask(found, spot) or _box_of(found, spot)

    def _mask(self, found: Found, spot: Spot) -> str:
        if found.mask is None:
            return ""
        if not found.mask.area:
            return "empty"
        if self._settings.polygons and found.polys is None:
            exact = outline(rle.decode(found.mask))
            tolerance, floor = self._settings.tolerance, self._settings.floor
            simpler = Fitted(exact, 1.0)
            if tolerance:
                simpler = fit(exact, spot.w, spot.h, tolerance=tolerance, floor=floor)
            found.polys, found.iou = simpler.polys, simpler.iou
        return ""

    def _small(self, found: Found) -> str:
        least = self._settings.min_area
        lasting = found.kp is not None or found.lines is not None
        return "small" if least and not lasting and _area(found) < least else ""

    def _concept(self, label: str) -> Concept | None:
        return self._concepts.get(label) or (_ANY if self._settings.others else None)

    def _tag(self, tag: Tag, spot: Spot, drops: Counter[str]) -> Tag | None:
        concept = self._concept(tag.label)
        if concept is None or (concept.types and "tag" not in concept.types):
            drops["label" if concept is None else "type"] += 1
            return None
        if not concept.takes_score(tag.score):
            drops["score"] += 1
            return None
        if not concept.takes_time(self._begins, spot.seconds):
            drops["hours"] += 1
            return None
        return Tag(concept.name or tag.label, tag.score)

    # -- all of a frame ------------------------------------------------------------------------------

    def _resolved(self, kept: list[Found], drops: Counter[str]) -> list[Found]:
        way = self._settings.overlaps
        if way is None or not kept:
            return kept
        left = resolve(kept, way, self._settings.iou, by_class=self._settings.by_class, models=self._models)
        if len(left) < len(kept):
            drops["overlap"] += len(kept) - len(left)
        return left

    def _in_place(self, kept: list[Found], spot: Spot, drops: Counter[str]) -> list[Found]:
        settings = self._settings
        some = settings.roi or settings.avoid or any(one.roi or one.avoid for one in settings.concepts)
        if not some:
            return kept
        left = []
        for found in kept:
            concept, touched = self._concepts.get(found.known, _ANY), _Touched(found, spot)
            if not all(map(touched, filter(None, (settings.roi, concept.roi)))):
                drops["roi"] += 1
            elif any(map(touched, filter(None, (settings.avoid, concept.avoid)))):
                drops["avoid"] += 1
            else:
                left.append(found)
        return left

    def _most(self, kept: list[Found], drops: Counter[str]) -> list[Found]:
        most = self._settings.most
        if most is None or len(kept) <= most:
            return kept
        drops["cap"] += len(kept) - most
        order = sorted(range(len(kept)), key=lambda at: (-(1.0 if (s := kept[at].score) is None else s), at))
        return [kept[at] for at in sorted(order[:most])]

    def _regions(self, kept: list[Found], spot: Spot) -> tuple[Region, ...]:
        regions = []
        seen: Counter[str] = Counter()
        for found in kept:
            region = _region(found)
            first = region_id(spot.src, spot.frame, region, str(spot.copy))
            name = first
            if seen[first]:
                name = region_id(spot.src, spot.frame, region, f"{spot.copy}.{seen[first]}")
            seen[first] += 1
            regions.append(msgspec.structs.replace(region, id=name, track=found.track))
        return tuple(regions)


_NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)


class _Touched:
    """Whether polygons touch a region, whose outline is drawn once."""

    def __init__(self, found: Found, spot: Spot) -> None:
        self._found, self._spot = found, spot
        self._polys = found.polys
        if found.polys is None and found.mask is not None:
            self._polys = outline(rle.decode(found.mask))

    def __call__(self, roi: Ring) -> bool:
        found, spot = self._found, self._spot
        return touches(roi, found.box or _NOWHERE, self._polys, spot.w, spot.h, found.lines)


def _region(found: Found) -> Region:
    assert found.box is not None
    return Region(
        id="",
        label=found.label,
        score=None if found.score is None else float(found.score),
        box=found.box,
        obb=found.obb,
        polys=found.polys,
        lines=found.lines,
        rle=None if found.mask is None else Rle((found.mask.height, found.mask.width), found.mask.text),
        kp=found.kp,
        text=found.text,
        src="model",
        attrs=found.attrs,
    )


def _is_finite(found: Found) -> bool:
    numbers = (found.score or 0.0, *(found.box or ()), *(found.obb or ()))
    points = [
        *((x, y) for x, y, _ in found.kp or ()),
        *(point for line in found.lines or () for point in line),
    ]
    return all(map(isfinite, numbers)) and all(isfinite(x) and isfinite(y) for x, y in points)


def _box_of(found: Found, spot: Spot) -> str:
    """Set the box that is tight around a region, inside the image; returns the reason if there is none."""
    if found.mask is not None:
        found.box = found.mask.box()
    elif found.polys is not None:
        found.box = around(found.polys)
    elif found.obb is not None:
        found.box = bounds(corners(found.obb))
    elif found.lines is not None:
        found.box = around_lines(found.lines)  # of a line that is level it has no area
        return ""
    elif found.box is None:
        seen = [(x, y) for x, y, v in found.kp or () if v]
        if not seen:
            return "empty"
        found.box = bounds(seen)
        return ""
    assert found.box is not None
    x1, y1, x2, y2 = found.box
    if x2 < x1 or y2 < y1:
        return "inside_out"
    if found.mask is None and found.polys is None:
        x1, x2 = (round(min(max(x, 0.0), spot.w), PLACES) for x in (x1, x2))
        y1, y2 = (round(min(max(y, 0.0), spot.h), PLACES) for y in (y1, y2))
    if x1 >= x2 or y1 >= y2:
        whole = found.box
        return "empty" if whole[0] == whole[2] or whole[1] == whole[3] else "outside"
    found.box = (float(x1), float(y1), float(x2), float(y2))
    return ""


def _clip_lines(found: Found, spot: Spot) -> str:
    """Leave of lines what is in the image; returns the reason if that is nothing, and there is no more."""
    given = found.lines or ()
    found.lines = clip_lines(given, spot.w, spot.h) or None
    others = (found.polys, found.mask, found.obb, found.kp)
    if found.lines is not None or any(one is not None for one in others):
        return ""
    whole = all(0 <= x <= spot.w and 0 <= y <= spot.h for line in given for x, y in line)
    return "empty" if whole else "outside"


def _inside(point: Keypoint, spot: Spot) -> Keypoint:
    x, y, v = point
    return (float(x), float(y), v) if v and 0 <= x <= spot.w and 0 <= y <= spot.h else (0.0, 0.0, 0)


def _restrict(found: Found, concept: Concept) -> str:
    """Leave of a region what its concept may have; returns the reason if nothing is left."""
    types = concept.types
    if not types:
        return ""
    if "polygon" in types and found.polys is None and found.mask is not None:
        found.polys = outline(rle.decode(found.mask))
    shaped = found.mask is not None or found.polys is not None or found.obb is not None
    found.mask = found.mask if "mask" in types else None
    found.polys = found.polys if "polygon" in types else None
    found.lines = found.lines if "line" in types else None
    found.obb = found.obb if "box" in types else None
    found.kp = found.kp if "point" in types else None
    found.text = found.text if "text" in types else None
    left = (found.mask, found.polys, found.lines, found.kp, found.text)
    some = any(one is not None for one in left)
    if (
        not some
        and found.box is not None
        and not (found.box[0] < found.box[2] and found.box[1] < found.box[3])
    ):
        return "type"  # a line that is level, of which the box may stay
    return "" if some or "box" in types else "type" if shaped or found.box else "empty"


def _area(found: Found) -> float:
    if found.mask is not None:
        return found.mask.area
    if found.polys is not None:
        return area(found.polys)
    if found.obb is not None:
        return found.obb[2] * found.obb[3]
    x1, y1, x2, y2 = found.box or _NOWHERE
    return (x2 - x1) * (y2 - y1)
