"""What CVAT exports as "CVAT for video 1.1"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from penstock.annotate.formats.cvat import TOLERANCE
from penstock.annotate.formats.reading import read_xml
from penstock.annotate.keyframes import Values, parse_reduction
from penstock.annotate.review.films import Film, Key, Trail
from penstock.annotate.review.given import Drawn, from_rotated
from penstock.annotate.review.reading_cvat import attribute, drawn_of, keypoints_in
from penstock.annotate.shapes.kinds import bounds

_KINDS = ("box", "polygon", "polyline", "points")
_SIDES = ("xtl", "ytl", "xbr", "ybr")


def read_cvat_video(path: Path) -> Iterator[Film]:
    """Yield the video of the file.

    Raises:
        Unreadable: It is no XML.
        ValueError: It is no file of this kind; also ``KeyError``, ``TypeError``.
    """
    root = read_xml(path.parent, path.name)
    if root.tag != "annotations" or root.find("image") is not None:
        raise ValueError("it should be annotations of CVAT for video; of images, say --from cvat")
    meta = root.find("meta/task")
    if meta is None:
        meta = root.find("meta/job")
    told = {} if meta is None else {one.tag: one.text or "" for one in meta}
    if told.get("frame_filter"):
        some = told["frame_filter"]
        raise ValueError(f"its task shows some frames only ({some}) and counts those; make one of all frames")
    width, height = (_number(root.findtext(f"meta/*/original_size/{side}")) for side in ("width", "height"))
    trails = tuple(_trail(track) for track in root.iterfind("track"))
    last = told.get("stop_frame")
    yield Film(
        root.findtext("meta/*/source") or root.findtext("meta/source") or told.get("name", ""),
        (width, height),
        tuple(trail for trail in trails if trail.keys),
        int(told.get("start_frame") or 0),
        int(last) if last else None,
        lines=True,
    )


def _number(text: str | None) -> int:
    return int(text) if text else 0


def _trail(track: Element) -> Trail:
    label, name = track.attrib["label"], f"cvat-{track.get('id')}"
    shapes = sorted((one for one in track if one.tag in _KINDS), key=_frame)
    keys = [_key(one, label, name) for one in shapes if not _is_away_still(one)]
    return Trail(keys, _draw, shortest=True)


def _frame(shape: Element) -> int:
    return int(shape.attrib["frame"])


def _is_away_still(shape: Element) -> bool:
    return shape.get("outside") == "1" and shape.get("keyframe") == "0"


def _key(shape: Element, label: str, name: str) -> Key:
    if shape.get("outside") == "1":
        return Key(_frame(shape), None)
    tolerance = attribute(shape, TOLERANCE)
    region = attribute(shape, "region") or None
    drawn = _drawn(shape, label)._replace(
        track=attribute(shape, "track") or (None if region else name),
        tolerance=parse_reduction(tolerance) if tolerance else None,
    )
    values = tuple(float(shape.attrib[side]) for side in _SIDES) if shape.tag == "box" else ()
    turn = float(shape.get("rotation", 0))
    if shape.get("keyframe") == "0":
        drawn = drawn._replace(region=None, src="interpolated")
    return Key(_frame(shape), drawn, values=(*values, turn) if values else ())


def _drawn(shape: Element, label: str) -> Drawn:
    if shape.tag != "points":
        return drawn_of(shape, label, (0, 0))
    points = keypoints_in(shape)
    return Drawn(
        attribute(shape, "region") or None,
        label,
        bounds((x, y) for x, y, _ in points),
        kp=points,
        text=attribute(shape, "text"),
    )


def _draw(values: Values, like: Drawn, size: tuple[int, int]) -> Drawn:
    left, top, right, bottom, turn = values
    if not turn:
        return like._replace(box=(left, top, right, bottom), obb=None)
    turned = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    angle = turn - 360 if turn > 180 else turn
    made = from_rotated(like.region, like.label, (*turned, angle))
    return like._replace(box=made.box, obb=made.obb)
