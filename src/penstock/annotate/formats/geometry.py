"""The shape of a region in the form a format wants it."""

from __future__ import annotations

from penstock.annotate import rle
from penstock.annotate.formats.dataset import THIN
from penstock.annotate.records import Frame, Keypoint, Polys, Region, Ring
from penstock.annotate.rle import Runs
from penstock.annotate.shapes.cutting import hole_free
from penstock.annotate.shapes.kinds import Rotated, area, clip_convex, corners, rectangle
from penstock.annotate.shapes.outline import outline
from penstock.annotate.shapes.raster import rasterise
from penstock.annotate.shapes.repair import clip
from penstock.annotate.shapes.turned import turned_box


def polys_of(region: Region) -> Polys:
    """Return a region as polygons: its own, else the outline of its mask, else its rotated box or box."""
    if region.polys:
        return region.polys
    if region.rle:
        return outline(rle.decode(runs_of_mask(region))) or ((rectangle(region.box),),)
    return (((corners(region.obb) if region.obb else rectangle(region.box)),),)


def polys_in(region: Region, frame: Frame) -> Polys:
    """Return what of a region lies in its picture, as polygons; if that is next to nothing, its box."""
    polys = polys_of(region)
    if all(0 <= x <= frame.w and 0 <= y <= frame.h for part in polys for x, y in part[0]):
        return polys
    if region.polys:
        inside = clip(polys, frame.w, frame.h)
    else:
        ring = clip_convex(polys[0][0], frame.w, frame.h)
        inside = ((ring,),) if ring else ()
    if inside and area(inside) >= THIN * THIN:
        return inside
    x1, y1, x2, y2 = region.box
    return ((rectangle((max(x1, 0.0), max(y1, 0.0), min(x2, frame.w), min(y2, frame.h))),),)


def rings_in(region: Region, frame: Frame) -> tuple[Ring, ...]:
    """Return what of a region lies in its picture, as rings without holes."""
    return hole_free(polys_in(region, frame))


def mask_in(region: Region, frame: Frame) -> Runs | None:
    """Return a region as a mask: its own, else what its polygons cover; None if that is not one pixel."""
    drawn = None if region.rle else rle.encode(rasterise(polys_of(region), frame.h, frame.w))
    runs = drawn or runs_of_mask(region)
    return runs if runs.area else None


def runs_of_mask(region: Region) -> Runs:
    """Return the mask that a region has.

    Raises:
        ValueError: It has none, or its runs are none.
    """
    if region.rle is None:
        raise ValueError(f"region {region.id} has no mask")
    return Runs(region.rle.size[0], region.rle.size[1], tuple(rle.unpack(region.rle.counts)))


def rotated_of(region: Region) -> Rotated:
    """Return a region as a rotated box: its own, else the smallest around its shape."""
    if region.obb:
        return region.obb
    return turned_box(point for part in polys_of(region) for point in part[0])


def area_in(region: Region, frame: Frame) -> float:
    """Return how many pixels a region covers in its picture."""
    return float(runs_of_mask(region).area) if region.rle else area(polys_in(region, frame))


def keypoints_of(region: Region, frame: Frame) -> tuple[Keypoint, ...]:
    """Return a region's keypoints; those outside the image, and those not labelled, as ``(0, 0, 0)``."""
    return tuple(
        (x, y, v) if v and 0 <= x <= frame.w and 0 <= y <= frame.h else (0.0, 0.0, 0)
        for x, y, v in region.kp or ()
    )


def is_turned(rotated: Rotated) -> bool:
    """Whether a rotated box is turned by more than formats round to."""
    return not -0.005 <= (rotated[4] + 180) % 360 - 180 < 0.005


def is_line(region: Region) -> bool:
    """Whether a region is polylines and nothing else that has a shape."""
    return bool(region.lines) and is_plain(region)


def is_plain(region: Region) -> bool:
    """Whether what a region covers is its box, or nothing as it is a line."""
    return not (region.polys or region.rle or region.obb)
