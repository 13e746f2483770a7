"""What CVAT's importer trips over, drops in silence or takes although it is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from penstock.annotate.formats.base import Fault
from penstock.annotate.formats.reading import Unreadable, box_fault, decimals, outside, stream_xml

_BOX = ("xtl", "ytl", "xbr", "ybr")
_POINTS = {"polygon": 3, "polyline": 2, "points": 1}
_MASK = ("left", "top", "width", "height")


def check_images(folder: Path, name: str) -> Iterator[Fault]:
    """Yield what is wrong with the annotations of images."""
    try:
        elements = stream_xml(folder, name)
        meta = _meta(elements, "annotation")
        labels = _labels(meta)
        ids: set[str] = set()
        names: set[str] = set()
        images = (element for element in elements if element.tag == "image")
        for place, image in enumerate(images):
            where = f"image {place}"
            if image.get("id", "") in {*ids, ""} or image.get("name", "") in {*names, ""}:
                yield Fault(name, where, "its id and its name should be its own")
            ids.add(image.get("id", ""))
            names.add(image.get("name", ""))
            yield from (Fault(name, f"{where}{at}", what) for at, what in _image_faults(image, labels))
    except (Unreadable, ValueError) as error:
        yield error.fault if isinstance(error, Unreadable) else Fault(name, "", str(error))


def check_video(folder: Path, name: str) -> Iterator[Fault]:
    """Yield what is wrong with the annotations of a video."""
    try:
        elements = stream_xml(folder, name)
        meta = _meta(elements, "interpolation")
        labels = _labels(meta)
        size = decimals([meta.findtext("task/size") or ""])
        if size is None or size[0] < 1:
            raise ValueError("the task should have a size")
        ids: set[str] = set()
        tracks = (element for element in elements if element.tag == "track")
        for place, track in enumerate(tracks):
            where = f"track {place}"
            if track.get("id", "") in {*ids, ""}:
                yield Fault(name, where, "its id should be its own")
            ids.add(track.get("id", ""))
            yield from (Fault(name, where, what) for what in _track_faults(track, labels, int(size[0])))
    except (Unreadable, ValueError) as error:
        yield error.fault if isinstance(error, Unreadable) else Fault(name, "", str(error))


def _meta(elements: Iterator[ElementTree.Element], mode: str) -> ElementTree.Element:
    """Return what is said of all, which stands before the rest."""
    root, version, meta = next(elements), next(elements, None), None
    if (
        root.tag == "annotations"
        and version is not None
        and (version.tag, version.text) == ("version", "1.1")
    ):
        meta = next(elements, None)
    if meta is None or meta.tag != "meta":
        raise ValueError("it should be annotations of version 1.1, with what their task is")
    if meta.findtext("task/mode") != mode:
        raise ValueError(f"the mode of the task should be {mode}")
    return meta


def _labels(meta: ElementTree.Element) -> Mapping[str, set[str]]:
    """Return the attributes of each label."""
    found: dict[str, set[str]] = {}
    for label in meta.iterfind("task/labels/label"):
        name = label.findtext("name")
        if not name or name in found:
            raise ValueError(f"the label {name!r} stands twice, or has no name")
        found[name] = {one.findtext("name") or "" for one in label.iterfind("attributes/attribute")}
    return found


def _image_faults(image: ElementTree.Element, labels: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    size = decimals([image.get("width", ""), image.get("height", "")])
    if size is None or min(size) < 1:
        yield "", "its width and height should be numbers from 1 on"
        return
    for number, shape in enumerate(image):
        if what := _shape_fault(shape, shape.get("label"), labels, (size[0], size[1])):
            yield f", {shape.tag} {number}", what


def _track_faults(track: ElementTree.Element, labels: Mapping[str, set[str]], size: int) -> Iterator[str]:
    shapes = list(track)
    if not shapes:
        yield "it is empty, which the importer fails on"
    if len({shape.tag for shape in shapes}) > 1:
        yield "its shapes are of several kinds"
    last = -1
    for shape in shapes:
        frame = shape.get("frame", "")
        where = f"frame {frame}"
        if not frame.isdigit() or not last < int(frame) < size:
            yield f"{where}: frames should rise, and be below {size}"
            continue
        last = int(frame)
        if shape.get("keyframe") != "1":
            yield f"{where}: it is no key frame, which the importer drops"
        if shape.get("outside") not in ("0", "1") or shape.get("occluded") not in ("0", "1"):
            yield f"{where}: outside and occluded should be 0 or 1"
        if shape.tag == "mask":
            yield f"{where}: of a track of masks the importer keeps the first"
        if what := _shape_fault(shape, track.get("label"), labels, None):
            yield f"{where}: {what}"
    if shapes and shapes[-1].get("outside") != "1" and last + 1 < size:
        yield "it does not end: behind its last frame it should be outside"


def _shape_fault(
    shape: ElementTree.Element,
    label: str | None,
    labels: Mapping[str, set[str]],
    size: tuple[float, float] | None,
) -> str:
    if label is None or label not in labels:
        return f"there is no label {label!r}"
    for attribute in shape.iterfind("attribute"):
        if attribute.get("name") not in labels[label]:
            return f"the label {label!r} has no attribute {attribute.get('name')!r}"
        score = decimals([attribute.text or ""]) if attribute.get("name") == "score" else [1.0]
        if score is None or not 0 <= score[0] <= 1:
            return "its score should be from 0 to 1"
    width, height = size or (float("inf"), float("inf"))
    if shape.tag == "tag":
        return ""
    if shape.tag == "box":
        return _box_fault(shape, width, height)
    if shape.tag == "mask":
        return _mask_fault(shape, width, height)
    if shape.tag not in _POINTS:
        return f"<{shape.tag}> is none of the shapes written here"
    points = [decimals(point.split(",")) for point in shape.get("points", "").split(";")]
    if len(points) < _POINTS[shape.tag] or any(point is None or len(point) != 2 for point in points):
        return f"a {shape.tag} should have {_POINTS[shape.tag]} points or more, of two numbers each"
    return outside(((point[0], point[1]) for point in points if point), width, height)


def _box_fault(shape: ElementTree.Element, width: float, height: float) -> str:
    edges = decimals([shape.get(key, "") for key in _BOX])
    turn = decimals([shape.get("rotation", "0")])
    if edges is None or turn is None:
        return "its edges and its rotation should be finite numbers"
    if turn[0]:  # before it is turned, it may well lie partly outside
        return "" if edges[2] > edges[0] and edges[3] > edges[1] else "the box has no area"
    left, top, right, bottom = edges
    return box_fault(left, top, right, bottom, width, height)


def _mask_fault(shape: ElementTree.Element, width: float, height: float) -> str:
    place = decimals([shape.get(key, "") for key in _MASK])
    counts = decimals(shape.get("rle", "").split(","))
    if place is None or counts is None or any(one != int(one) or one < 0 for one in (*place, *counts)):
        return "its runs and its place should be whole numbers"
    left, top, across, down = place
    if sum(counts) != across * down or not across * down:
        return f"its runs hold {sum(counts):g} pixels; {across:g} x {down:g} are {across * down:g}"
    if left + across > width or top + down > height:
        return "it reaches outside the image"
    return ""
