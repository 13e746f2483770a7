"""What methods of Clarifai's models answer, read as regions: the forms of ``docs/clarifai.md``, as JSON."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.annotate import rle
from penstock.annotate.answers import Answer, Found
from penstock.annotate.errors import AnswerError
from penstock.annotate.extras import needed
from penstock.annotate.records import Tag

REGION = "region"
"""Attribute of regions that are of one place and have a concept each: which place it is."""
_PLAIN = "region"  # the label of a place that no concept is said of
_THRESHOLD = 127
_ALPHABET = str.maketrans("-_", "+/")  # either will do


class _Concept(msgspec.Struct):
    name: str = ""
    value: float = 1.0
    id: str | None = None


class _Media(msgspec.Struct):
    base64: str = ""


class _Region(msgspec.Struct):
    box: tuple[float, float, float, float] | None = None
    point: tuple[float, float, float] | None = None
    mask: _Media | None = None
    concepts: list[_Concept] = []
    text: str | None = None
    track_id: str | None = None


class ClarifaiAdapter:
    """Reads the answers of a method: regions, concepts, frames, one of these or a list.

    A region of several concepts becomes as many, which say in their attributes that they are of one place.

    Args:
        model: Its number in an ensemble.
        by_id: Whether concepts go by their ids, where they have some, and not by their names.
    """

    def __init__(self, model: int = 0, *, by_id: bool = False) -> None:
        self._model = model
        self._by_id = by_id

    def read(self, answer: Any, width: int, height: int, place: str) -> Answer:
        """See ``penstock.annotate.answers.Adapter.read``."""
        found: list[Found] = []
        tags: list[Tag] = []
        for number, one in enumerate(_parts(answer, place)):
            where = f"{place}, item {number}"
            if "name" in one:
                concept = _read(one, _Concept, where)
                tags.append(Tag(self._label(concept), concept.value))
            else:
                region = _read(one, _Region, where)
                found += self._regions(region, number, width, height, where)
        return Answer(found, tuple(tags))

    def _regions(self, region: _Region, number: int, width: int, height: int, place: str) -> Iterator[Found]:
        # What a model has not set may come as empty text, or as zeros.
        runs = _mask(region.mask, width, height, place) if region.mask and region.mask.base64 else None
        for concept in region.concepts or (None,):
            found = Found(label=_PLAIN if concept is None else self._label(concept), model=self._model)
            found.score = None if concept is None else concept.value
            if region.box is not None and any(region.box):
                left, top, right, bottom = region.box
                found.box = (left * width, top * height, right * width, bottom * height)
            if region.point is not None and any(region.point):
                found.kp = ((region.point[0] * width, region.point[1] * height, 2),)
            found.mask, found.text, found.track = runs, region.text or None, region.track_id or None
            if len(region.concepts) > 1:
                found.attrs = {REGION: number}
            yield found

    def _label(self, concept: _Concept) -> str:
        return (concept.id if self._by_id else "") or concept.name or concept.id or _PLAIN


def _parts(answer: Any, place: str) -> Iterator[dict[str, Any]]:
    """Yield the regions and concepts that an answer is made of."""
    if isinstance(answer, list):
        for one in answer:
            yield from _parts(one, place)
    elif not isinstance(answer, dict):
        text = f"should be regions, concepts or a frame, and is {repr(answer)[:60]}"
        raise AnswerError(f"{place}: {text}")
    elif "regions" in answer or "image" in answer:
        yield from _parts(answer.get("regions") or [], place)
        yield from _parts(answer.get("concepts") or [], place)
    elif "concepts" in answer and not answer.keys() & {"box", "point", "mask", "text", "track_id", "id"}:
        yield from _parts(answer["concepts"] or [], place)
    else:
        yield answer


def _read(value: Any, kind: type[Any], place: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise AnswerError(f"{place}: {error}") from error


def _mask(mask: _Media, width: int, height: int, place: str) -> rle.Runs:
    """Return a mask, which is a picture of the whole frame; what is bright is inside."""
    images, np = needed("PIL.Image", "masks"), needed("numpy", "masks")
    try:
        data = base64.b64decode(mask.base64.translate(_ALPHABET), validate=True)
        image = images.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if image.size != (width, height):
            size = f"{image.width} x {image.height}"
            raise AnswerError(f"{place}: its mask has {size} pixels; the frame has {width} x {height}")
        return rle.encode(np.asarray(image.convert("L")) > _THRESHOLD)
    except (binascii.Error, OSError, SyntaxError, ValueError) as error:
        raise AnswerError(f"{place}: its mask is no picture in base64 ({error})") from error
