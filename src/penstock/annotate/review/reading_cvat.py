"""What CVAT exports as "CVAT for images 1.1"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from penstock.annotate import rle
from penstock.annotate.formats.reading import read_xml
from penstock.annotate.records import Keypoint, Rle
from penstock.annotate.review.given import Drawn, Given, from_lines, from_polys, from_rotated, with_lines
from penstock.annotate.rle import Runs

_SEEN = 2


def read_cvat(path: Path) -> Iterator[Given]:
    """Yield all pictures of the file; those without shapes are such in which nothing is.

    Raises:
        Unreadable: It is no XML.
        ValueError: It is no file of this kind; also ``KeyError``, ``TypeError``.
    """
    root = read_xml(path.parent, path.name)
    if root.tag != "annotations":
        raise ValueError("it should be annotations of CVAT for images")
    for image in root.iterfind("image"):
        size = (int(image.attrib["width"]), int(image.attrib["height"]))
        points = {_region(one): keypoints_in(one) for one in image.iterfind("points") if _region(one)}
        shapes = [
            drawn_of(one, one.attrib["label"], size)
            for one in image
            if one.tag in ("box", "polygon", "polyline", "mask")
        ]
        regions = tuple(one._replace(kp=points.get(one.region)) for one in with_lines(shapes))
        tags = tuple(one.attrib["label"] for one in image.iterfind("tag"))
        yield Given(image.attrib["name"], None, None, size, regions, tags, lines=True)


def attribute(shape: Element, name: str) -> str | None:
    """Return an attribute of a shape; None if it has none of that name."""
    found = (one.text for one in shape.iterfind("attribute") if one.get("name") == name)
    return next(found, None)


def _region(shape: Element) -> str | None:
    return attribute(shape, "region") or None


def keypoints_in(shape: Element) -> tuple[Keypoint, ...]:
    """Return points as keypoints, all of them visible."""
    return tuple((x, y, _SEEN) for x, y in _points(shape))


def _points(shape: Element) -> list[tuple[float, float]]:
    pairs = (point.split(",") for point in shape.attrib["points"].split(";"))
    return [(float(x), float(y)) for x, y in pairs]


def drawn_of(shape: Element, label: str, size: tuple[int, int]) -> Drawn:
    """Return a box, a polygon or a mask of a picture of this width and height."""
    region, text = _region(shape), attribute(shape, "text")
    if shape.tag == "polygon":
        return from_polys(region, label, ((tuple(_points(shape)),),), text=text)
    if shape.tag == "polyline":
        return from_lines(region, label, (tuple(_points(shape)),), text=text)
    if shape.tag == "mask":
        return _mask(shape, size)._replace(text=text)
    left, top, right, bottom = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    turn = float(shape.get("rotation", 0))
    if not turn:
        return Drawn(region, label, (left, top, right, bottom), text=text)
    turn = turn - 360 if turn > 180 else turn
    middle = ((left + right) / 2, (top + bottom) / 2)
    return from_rotated(region, label, (*middle, right - left, bottom - top, turn), text=text)


def _mask(shape: Element, size: tuple[int, int]) -> Drawn:
    """Read runs along the rows of a cut, which are those down the columns of what is turned."""
    import numpy as np

    left, top, across, down = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
    counts = tuple(int(one) for one in shape.attrib["rle"].split(","))
    whole = np.zeros((size[1], size[0]), dtype=bool)
    if left < 0 or top < 0 or left + across > size[0] or top + down > size[1]:
        raise ValueError(f"a mask of {shape.attrib['label']} reaches outside its image")
    whole[top : top + down, left : left + across] = rle.decode(Runs(across, down, counts)).T
    runs = rle.encode(whole)
    box = runs.box()
    if box is None:
        raise ValueError(f"a mask of {shape.attrib['label']} is empty")
    return Drawn(_region(shape), shape.attrib["label"], box, rle=Rle((size[1], size[0]), runs.text))
