"""Text, images, audio, video, concepts, regions, frames and arrays: as JSON, and as Clarifai's messages.

The JSON is that of model folders (docs/clarifai.md, Types).  What such a message has besides is left out.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from typing import Any, TypeVar

import msgspec
from clarifai_grpc.grpc.api import resources_pb2 as proto

from penstock.protocol.clarifai.misfits import Misfit

_MAX_FLOAT = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_MAX_TIME_S = 2**32 / 1000
_DTYPE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)|[<>=|]?[biufc]\d{1,2}")

Media = TypeVar("Media", proto.Image, proto.Audio, proto.Video)


class _Form(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A JSON object."""


class _Text(_Form):
    text: str = ""
    url: str | None = None


class _Media(_Form):
    base64: str = ""
    url: str = ""


class _Concept(_Form):
    name: str
    value: float = 1.0
    id: str | None = None


class _Region(_Form):
    id: str | None = None
    box: tuple[float, float, float, float] | None = None
    point: tuple[float, float, float] | None = None
    mask: _Media | None = None
    concepts: list[_Concept] = []
    text: str | None = None
    track_id: str | None = None


class _Frame(_Form):
    image: _Media | None = None
    regions: list[_Region] = []
    time: float = 0.0
    index: int = 0


class _Array(_Form):
    buffer: str
    shape: list[int]
    dtype: str


# -- bytes and numbers ---------------------------------------------------------------------------------


def write_bytes(text: Any) -> bytes:
    """Return the bytes that a text is in base64, of either alphabet.

    Raises:
        Misfit: It is no such text.
    """
    if not isinstance(text, str):
        raise Misfit("should be a string, in base64")
    try:
        raw = text.encode("ascii").translate(_URL_SAFE)
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Misfit("should be base64") from None


def read_bytes(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode("ascii")


def single(value: float) -> float:
    """Return the shortest number that is the same in single precision: 0.1, and not 0.10000000149.

    Raises:
        Misfit: It is not finite.
    """
    if not math.isfinite(value):
        raise Misfit(f"{value}, and JSON has no such number")
    packed = struct.pack("<f", value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= _MAX_FLOAT and struct.pack("<f", short) == packed:
            return short
    return float(f"{value:.9g}")  # so many are always enough


# -- text and media ------------------------------------------------------------------------------------


def write_text(value: Any, target: proto.Text) -> None:
    """Fill ``target``.

    Raises:
        Misfit: ``value`` is neither a string nor ``{"text", "url"}``.
    """
    form = _Text(value) if isinstance(value, str) else _form(value, _Text)
    target.SetInParent()
    target.raw = form.text
    target.url = form.url or ""


def read_text(source: proto.Text) -> Any:
    """Return a text, with its URL where it has one."""
    return {"text": source.raw, "url": source.url} if source.url else source.raw


def write_media(value: Any, target: Media) -> None:
    """Fill ``target``.

    Raises:
        Misfit: ``value`` is not ``{"base64"}``, ``{"url"}`` or both.
    """
    _fill_media(_form(value, _Media), target)


def read_media(source: Media) -> dict[str, str]:
    """Return an image, audio or video: its bytes, its URL, or both."""
    found = {"url": source.url} if source.url else {}
    if source.base64:
        found["base64"] = read_bytes(source.base64)
    return found


def _fill_media(form: _Media, target: Media) -> None:
    if not form.base64 and not form.url:
        raise Misfit("give base64, or a url")
    try:
        target.base64 = write_bytes(form.base64)
    except Misfit as misfit:
        raise misfit.within("base64") from None
    target.url = form.url


# -- concepts, regions, frames -------------------------------------------------------------------------


def write_concept(value: Any, target: proto.Concept) -> None:
    """Fill ``target``.

    Raises:
        Misfit: ``value`` is no concept.
    """
    _fill_concept(_form(value, _Concept), target)


def read_concept(source: proto.Concept) -> dict[str, Any]:
    """Return a concept.

    Raises:
        Misfit: Its value is no number.
    """
    found: dict[str, Any] = {"name": source.name, "value": single(source.value)}
    if source.id:
        found["id"] = source.id
    return found


def write_region(value: Any, target: proto.Region) -> None:
    """Fill ``target``.

    Raises:
        Misfit: ``value`` is no region.
    """
    _fill_region(_form(value, _Region), target)


def read_region(source: proto.Region) -> dict[str, Any]:
    """Return a region.

    Raises:
        Misfit: A number in it is none.
    """
    info, box, point = source.region_info, source.region_info.bounding_box, source.region_info.point
    found: dict[str, Any] = {"id": source.id} if source.id else {}
    if info.HasField("bounding_box"):
        found["box"] = [single(side) for side in (box.left_col, box.top_row, box.right_col, box.bottom_row)]
    if info.HasField("point"):
        found["point"] = [single(place) for place in (point.col, point.row, point.z)]
    if mask := read_media(info.mask.image):
        found["mask"] = mask
    if source.data.concepts:
        found["concepts"] = [read_concept(concept) for concept in source.data.concepts]
    if source.data.text.raw:
        found["text"] = source.data.text.raw
    if source.track_id:
        found["track_id"] = source.track_id
    return found


def write_frame(value: Any, target: proto.Frame) -> None:
    """Fill ``target``.

    Raises:
        Misfit: ``value`` is no frame.
    """
    form = _form(value, _Frame)
    if not 0 <= form.time < _MAX_TIME_S or not 0 <= form.index < 2**32:
        raise Misfit("time is seconds, from 0 to 2^32 ms, and index a number below 2^32")
    if form.image is not None:
        _fill_media(form.image, target.data.image)
    for region in form.regions:
        _fill_region(region, target.data.regions.add())
    target.frame_info.time = min(round(form.time * 1000), 2**32 - 1)
    target.frame_info.index = form.index


def read_frame(source: proto.Frame) -> dict[str, Any]:
    """Return a frame.

    Raises:
        Misfit: A number in it is none.
    """
    info = source.frame_info
    found: dict[str, Any] = {"time": info.time / 1000, "index": info.index}
    if image := read_media(source.data.image):
        found["image"] = image
    if source.data.regions:
        found["regions"] = [read_region(region) for region in source.data.regions]
    return found


def _fill_concept(form: _Concept, target: proto.Concept) -> None:
    target.name = form.name
    target.value = _as_single(form.value)
    target.id = form.id or ""


def _fill_region(form: _Region, target: proto.Region) -> None:
    target.id, target.track_id = form.id or "", form.track_id or ""
    info = target.region_info
    if form.box is not None:
        box, sides = info.bounding_box, [_as_single(side) for side in form.box]
        box.SetInParent()
        box.left_col, box.top_row, box.right_col, box.bottom_row = sides
    if form.point is not None:
        info.point.SetInParent()
        info.point.col, info.point.row, info.point.z = (_as_single(place) for place in form.point)
    if form.mask is not None:
        _fill_media(form.mask, info.mask.image)
    for concept in form.concepts:
        _fill_concept(concept, target.data.concepts.add())
    if form.text:
        target.data.text.raw = form.text


# -- arrays --------------------------------------------------------------------------------------------


def write_array(value: Any, target: proto.NDArray) -> None:
    """Fill ``target``.

    Raises:
        Misfit: ``value`` is no array of numbers.
    """
    form = _form(value, _Array)
    if not _DTYPE.fullmatch(form.dtype):
        raise Misfit(f"{form.dtype[:40]!r} is no dtype of numbers")
    if not all(0 <= size < 2**31 for size in form.shape):
        raise Misfit("a size in shape is not from 0 to 2^31")
    target.buffer = write_bytes(form.buffer)
    target.shape.extend(form.shape)
    target.dtype = form.dtype


def read_array(source: proto.NDArray) -> dict[str, Any]:
    """Return an array: its bytes in the order of C."""
    return {"buffer": read_bytes(source.buffer), "shape": list(source.shape), "dtype": source.dtype}


# -- inside --------------------------------------------------------------------------------------------

F = TypeVar("F", bound=_Form)


def _form(value: Any, kind: type[F]) -> F:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Misfit(str(error)) from None


def _as_single(value: float) -> float:
    if abs(value) > _MAX_FLOAT:
        raise Misfit(f"{value} is no number of single precision")
    return value
