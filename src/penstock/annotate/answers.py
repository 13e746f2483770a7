"""What commands answer, read as regions: by a format that is declared, never guessed."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Mapping, Sequence
from math import degrees
from typing import Any, Literal, NoReturn

import msgspec

from penstock.annotate import rle
from penstock.annotate.errors import AnswerError, BatchError, ConfigError
from penstock.annotate.extras import needed
from penstock.annotate.records import Box, Keypoint, Lines, Polys, Tag

Corners = Literal["xyxy", "xywh", "cxcywh"]
Rotated = tuple[float, float, float, float, float]


class AnswerFormat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where in an answer its regions are, and how they are written.  Names are those of fields; a dotted path
    leads inside.  What has no name is not read.

    As it stands this is penstock's own form: ``{"regions": [{"label", "score", "box", ...}]}`` in pixels.

    Args:
        items: Where the regions are; empty: the answer itself is the list of them.
        layout: Whether they are a list of objects, or an object of lists, one for each field.
        label: A name, or the number of a class in ``names``.
        constant: The label of all regions, where the command gives none.
        names: Of the classes, by their numbers.
        box: Four numbers, read as ``boxes`` says.
        boxes: Two corners; a corner, width and height; or the centre, width and height.
        units: Pixels, or fractions of width and height; of boxes, polygons and keypoints.
        obb: Centre, width, height, angle clockwise.
        angle: Of rotated boxes.
        polygon: Read as ``polygons`` says.
        polygons: One ring of points; one ring of plain numbers, x and y in turn; several such (parts, as COCO
            has them); rings of points, of which all but the first are holes; or parts, each of such rings.
        polyline: Read as ``polylines`` says.
        polylines: One line of points; one line of plain numbers, x and y in turn; several of the first, or of
            the second.
        mask: Read as ``masks`` says.
        masks: Runs as COCO has them; a PNG in base64; or rows of numbers.
        threshold: Numbers of a mask above it are inside; of a PNG from 0 to 1.
        keypoints: Read as ``points`` says.
        points: x and y; x, y and visibility; x, y and a score; or plain numbers, x, y and visibility in turn.
        tags: Where what is said of the whole frame is: a list of objects with ``label`` and ``score``.
        each: Where an answer to several frames has those to each, as a list; empty: it is that list.
    """

    items: str = "regions"
    layout: Literal["rows", "columns"] = "rows"
    label: str = "label"
    constant: str = ""
    names: tuple[str, ...] = ()
    score: str = "score"
    box: str = "box"
    boxes: Corners = "xyxy"
    units: Literal["px", "norm"] = "px"
    obb: str = "obb"
    angle: Literal["degrees", "radians"] = "degrees"
    polygon: str = "polys"
    polygons: Literal["ring", "flat", "flats", "rings", "parts"] = "parts"
    polyline: str = "lines"
    polylines: Literal["line", "flat", "lines", "flats"] = "lines"
    mask: str = "rle"
    masks: Literal["rle", "png", "array"] = "rle"
    threshold: float = 0.5
    keypoints: str = "kp"
    points: Literal["xy", "xyv", "xys", "flat"] = "xyv"
    text: str = "text"
    track: str = "track"
    attrs: str = "attrs"
    tags: str = "labels"
    each: str = ""


class Found(msgspec.Struct, kw_only=True):
    """A region as a command gives it, in pixels; not yet looked at any further."""

    label: str
    score: float | None = None
    box: Box | None = None
    obb: Rotated | None = None
    polys: Polys | None = None
    lines: Lines | None = None
    mask: rle.Runs | None = None
    kp: tuple[Keypoint, ...] | None = None
    text: str | None = None
    track: str | None = None
    attrs: Mapping[str, Any] = {}
    model: int = 0  # which of an ensemble's
    known: str = ""  # what the model calls it, where it is called something else now
    iou: float = 1.0  # of its polygon's mask with that of what it was made of


class Answer(msgspec.Struct):
    """What was found in a frame."""

    regions: list[Found]
    tags: tuple[Tag, ...] = ()


def parse_format(text: str) -> AnswerFormat:
    """Return the format that a text such as ``items=faces,boxes=xywh,constant=face`` declares.

    Raises:
        ConfigError: It declares none.
    """
    fields: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition("=")
        if not sign:
            raise ConfigError(f"{part!r} in the format of answers is not of the form name=value")
        fields[name.strip()] = value.split("|") if name.strip() == "names" else value
    try:
        return msgspec.convert(fields, AnswerFormat, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the format of answers {text!r}: {error}") from error


def answers_in(answer: Any, each: str, count: int, place: str) -> list[Any]:
    """Return the answers that the answer to several frames holds.

    Args:
        answer: As it came.
        each: Where in it they are.
        count: How many frames there were.
        place: Which, for errors.

    Raises:
        BatchError: There is no list as long.
    """
    found = _inside(answer, each)
    where = f"{place}, field {each!r}" if each else place
    if not isinstance(found, list):
        raise BatchError(f"{where}: should be a list of {count} answers, and is {_shown(found)}")
    if len(found) != count:
        raise BatchError(f"{where}: has {len(found)} answers, to {count} frames")
    return found


class Adapter:
    """Reads the answers of a command.

    Args:
        form: How they are written.
        model: Its number in an ensemble.
    """

    def __init__(self, form: AnswerFormat, model: int = 0) -> None:
        self._form = form
        self._model = model
        self._fields = {name: getattr(form, name) for name in _FIELDS if getattr(form, name)}

    def read(self, answer: Any, width: int, height: int, place: str) -> Answer:
        """Return what an answer says.

        Args:
            answer: As it came.
            width: Of the upright image; so is ``height``.
            place: Which frame it is of, for errors.

        Raises:
            AnswerError: It is not of the declared form.
        """
        reading = _Reading(self._form, width, height, place)
        rows = reading.rows(answer)
        regions = []
        for number, row in enumerate(rows):
            reading.at = number
            regions.append(self._region(reading, row))
        return Answer(regions, reading.tags(answer))

    def _region(self, reading: _Reading, row: Mapping[str, Any]) -> Found:
        found = Found(label=reading.label(row), model=self._model)
        for name, field in self._fields.items():
            value = row.get(field) if "." not in field else _inside(row, field)
            if value is not None:
                reading.field = field
                attribute = _ATTRIBUTES.get(name, name)
                setattr(found, attribute, getattr(reading, f"read_{name}")(value))
        return found


_FIELDS = ("box", "obb", "polygon", "polyline", "mask", "keypoints", "score", "text", "track", "attrs")
_ATTRIBUTES = {"polygon": "polys", "polyline": "lines", "keypoints": "kp"}


class _Reading:
    """One answer being read; it knows where it is, so that an error can say so."""

    def __init__(self, form: AnswerFormat, width: int, height: int, place: str) -> None:
        self.form = form
        self.width, self.height = width, height
        self.place = place
        self.at: int | None = None
        self.field = form.items
        self.across, self.down = (width, height) if form.units == "norm" else (1, 1)

    def rows(self, answer: Any) -> Iterator[Mapping[str, Any]]:
        items = _inside(answer, self.form.items)
        if self.form.layout == "columns":
            yield from self._columns(items)
            return
        if not isinstance(items, list):
            self._wrong(f"should be a list of regions, and is {_shown(items)}")
        for self.at, row in enumerate(items):
            if not isinstance(row, dict):
                self._wrong(f"should be an object, and is {_shown(row)}")
            yield row

    def _columns(self, items: Any) -> Iterator[Mapping[str, Any]]:
        if not isinstance(items, dict):
            self._wrong(f"should be an object of lists, and is {_shown(items)}")
        form = self.form
        names = (form.label, *(getattr(form, name) for name in _FIELDS))
        columns = {name: items[name] for name in names if items.get(name) is not None}
        for self.field, column in columns.items():
            if not isinstance(column, list):
                self._wrong(f"should be a list, one for each region, and is {_shown(column)}")
        sizes = {name: len(column) for name, column in columns.items()}
        if len(set(sizes.values())) > 1:
            self._wrong(f"the lists are of different lengths: {sizes}")
        if not columns and form.items:
            self._wrong("has none of the lists that are declared")
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))

    def tags(self, answer: Any) -> tuple[Tag, ...]:
        value = _inside(answer, self.form.tags) if self.form.tags and isinstance(answer, dict) else None
        if value is None:
            return ()
        self.at, self.field = None, self.form.tags
        try:
            return msgspec.convert(value, tuple[Tag, ...])
        except msgspec.ValidationError as error:
            return self._wrong(str(error))

    def label(self, row: Mapping[str, Any]) -> str:
        value = _inside(row, self.form.label)
        self.field = self.form.label
        if value is None and self.form.constant:
            return self.form.constant
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            if 0 <= value < len(self.form.names):
                return self.form.names[value]
            return self._wrong(f"is class {value}, and {len(self.form.names)} names of classes are declared")
        return self._wrong(f"should be a name, or the number of a class, and is {_shown(value)}")

    # -- fields --------------------------------------------------------------------------------------

    def read_score(self, value: Any) -> float:
        return self._numbers((value,), 1)[0]

    def read_box(self, value: Any) -> Box:
        a, b, c, d = self._numbers(value, 4)
        a, b, c, d = a * self.across, b * self.down, c * self.across, d * self.down
        if self.form.boxes == "xywh":
            return (a, b, a + c, b + d)
        if self.form.boxes == "cxcywh":
            return (a - c / 2, b - d / 2, a + c / 2, b + d / 2)
        return (a, b, c, d)

    def read_obb(self, value: Any) -> Rotated:
        x, y, width, height, angle = self._numbers(value, 5)
        turned = degrees(angle) if self.form.angle == "radians" else angle
        return (x * self.across, y * self.down, width * self.across, height * self.down, turned)

    def read_polygon(self, value: Any) -> Polys:
        how = self.form.polygons
        if how == "ring":
            return ((self._ring(value),),)
        if how == "flat":
            return ((self._ring(self._pairs(value)),),)
        if how == "flats":
            return tuple((self._ring(self._pairs(one)),) for one in self._list(value))
        if how == "rings":
            return (tuple(map(self._ring, self._list(value))),)
        return tuple(tuple(map(self._ring, self._list(part))) for part in self._list(value))

    def read_polyline(self, value: Any) -> Lines:
        how = self.form.polylines
        several = self._list(value) if how in ("lines", "flats") else [value]
        lines = tuple(self._ring(self._pairs(one) if how.startswith("flat") else one) for one in several)
        if any(len(line) < 2 for line in lines):
            self._wrong("a line should have two points or more")
        return lines

    def read_mask(self, value: Any) -> rle.Runs:
        try:
            runs = rle.read(value) if self.form.masks == "rle" else rle.encode(self._mask(value))
        except ValueError as error:
            self._wrong(str(error))
        if (runs.height, runs.width) != (self.height, self.width):
            self._wrong(
                f"has {runs.height} rows and {runs.width} columns; "
                f"the frame has {self.height} and {self.width}"
            )
        return runs

    def read_keypoints(self, value: Any) -> tuple[Keypoint, ...]:
        points = self._list(value)
        if self.form.points == "flat":
            points = [points[at : at + 3] for at in range(0, len(points), 3)]
        return tuple(map(self._keypoint, points))

    def read_text(self, value: Any) -> str:
        return value if isinstance(value, str) else self._wrong(f"should be text, and is {_shown(value)}")

    def read_track(self, value: Any) -> str:
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
        return self._wrong(f"should be a name or a number, and is {_shown(value)}")

    def read_attrs(self, value: Any) -> Mapping[str, Any]:
        return (
            value if isinstance(value, dict) else self._wrong(f"should be an object, and is {_shown(value)}")
        )

    # -- inside --------------------------------------------------------------------------------------

    def _keypoint(self, value: Any) -> Keypoint:
        if self.form.points == "xy":
            x, y = self._numbers(value, 2)
            seen = 2
        else:
            x, y, third = self._numbers(value, 3)
            if self.form.points == "xys":
                seen = 2 if third > self.form.threshold else 0
            elif third in (0, 1, 2):
                seen = int(third)
            else:
                self._wrong(f"a keypoint's visibility is 0, 1 or 2, not {third:g}")
        return (x * self.across, y * self.down, seen)

    def _ring(self, value: Any) -> tuple[tuple[float, float], ...]:
        points = (self._numbers(point, 2) for point in self._list(value))
        return tuple((x * self.across, y * self.down) for x, y in points)

    def _pairs(self, value: Any) -> list[Any]:
        numbers = self._list(value)
        if len(numbers) % 2:
            self._wrong(f"has {len(numbers)} numbers, which are not pairs of x and y")
        return [numbers[at : at + 2] for at in range(0, len(numbers), 2)]

    def _list(self, value: Any) -> list[Any]:
        return value if isinstance(value, list) else self._wrong(f"should be a list, and is {_shown(value)}")

    def _numbers(self, value: Any, count: int) -> Sequence[float]:
        if not isinstance(value, (list, tuple)) or len(value) != count:
            self._wrong(f"should be {count} numbers, and is {_shown(value)}")
        for one in value:
            if type(one) is not float and type(one) is not int:
                self._wrong(f"should be {'a number' if count == 1 else 'numbers'}, and holds {_shown(one)}")
        return value

    def _mask(self, value: Any) -> Any:
        np = needed("numpy", "masks")
        if self.form.masks == "png":
            return np.asarray(self._image(value)) > self.form.threshold * 255
        try:
            return np.asarray(value, dtype=float) > self.form.threshold
        except (TypeError, ValueError):
            return self._wrong(f"should be rows of numbers, all as long, and is {_shown(value)}")

    def _image(self, value: Any) -> Any:
        images = needed("PIL.Image", "masks as PNG")
        if not isinstance(value, str):
            self._wrong(f"should be a PNG in base64, and is {_shown(value)}")
        try:
            image = images.open(io.BytesIO(base64.b64decode(value, validate=True)), formats=("PNG",))
            if image.size != (self.width, self.height):
                self._wrong(f"has {image.height} rows and {image.width} columns")
            return image.convert("L")
        except (binascii.Error, OSError, SyntaxError) as error:
            return self._wrong(f"is no PNG in base64 ({error})")

    def _wrong(self, what: str) -> NoReturn:
        item = "" if self.at is None else f", item {self.at}"
        field = f", field {self.field!r}" if self.field else ""
        raise AnswerError(f"{self.place}{item}{field}: {what}")


def _inside(value: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return "not there" if value is None else text if len(text) <= 60 else f"{text[:57]}..."
