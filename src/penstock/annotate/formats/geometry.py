"""The shape of a region in the form a format wants it."""

from __future__ import annotations

from penstock.annotate import rle
from penstock.annotate.records import Frame, Keypoint, Polys, Region, Ring
from penstock.annotate.rle import Runs
from penstock.annotate.shapes.cutting import hole_free
from penstock.annotate.shapes.kinds import Rotated, area, corners, rectangle
from penstock.annotate.shapes.outline import outline
from penstock.annotate.shapes.raster import rasterise
from penstock.annotate.shapes.turned import turned_box


def polys_of(region: Region) -> Polys:
    """Return a region as polygons: its own, else the outline of its mask, else its rotated box or box."""
    if region.polys:
        return region.polys
    if region.rle:
        return outline(rle.decode(runs_of_mask(region))) or ((rectangle(region.box),),)
    return (((corners(region.obb) if region.obb else rectangle(region.box)),),)


def rings_of(region: Region) -> tuple[Ring, ...]:
    """Return a region as rings without holes."""
    return hole_free(polys_of(region))


def runs_of(region: Region, width: int, height: int) -> Runs:
    """Return a region as a mask: its own, else what its polygons cover."""
    if region.rle:
        return runs_of_mask(region)
    return rle.encode(rasterise(polys_of(region), height, width))


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


def area_of(region: Region) -> float:
    """Return how many pixels a region covers."""
    return float(runs_of_mask(region).area) if region.rle else area(polys_of(region))


def keypoints_of(region: Region, frame: Frame) -> tuple[Keypoint, ...]:
    """Return a region's keypoints; those outside the image, and those not labelled, as ``(0, 0, 0)``."""
    return tuple(
        (x, y, v) if v and 0 <= x <= frame.w and 0 <= y <= frame.h else (0.0, 0.0, 0)
        for x, y, v in region.kp or ()
    )


def is_plain(region: Region) -> bool:
    """Whether a region is a box and no more."""
    return not (region.polys or region.rle or region.obb)
