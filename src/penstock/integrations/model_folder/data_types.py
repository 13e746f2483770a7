"""What ``clarifai.runners.utils.data_types`` gives a model, where that package is not installed.

Same names and attributes, nothing of protobuf; numpy and Pillow are imported only where a model asks for
what they make.
"""

from __future__ import annotations

import base64
import io
import json
import re
import uuid
from collections.abc import ItemsView, KeysView, Sequence, ValuesView
from importlib import import_module
from typing import Any, get_origin

from typing_extensions import Self


class MessageData:
    """What the types of this module have in common."""

    def __repr__(self) -> str:
        said = (f"{name.lstrip('_')}={_shown(value)}" for name, value in vars(self).items() if value)
        return f"{type(self).__name__}({', '.join(said)})"


class JSON:
    """Any JSON value, as ``value``."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, JSON) else other))

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self.value)

    def __repr__(self) -> str:
        return f"JSON({self.value!r})"

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(self.value)

    @classmethod
    def from_json(cls, json_str: str) -> Self:
        """Return the value that a text gives."""
        return cls(json.loads(json_str))


class Text(MessageData):
    """Text, or the URL of one."""

    def __init__(self, text: str, url: str | None = None) -> None:
        self.text = text
        self.url = url

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Text):
            return (self.text, self.url) == (other.text, other.url)
        return self.text == other

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self.text or self.url)


class Media(MessageData):
    """Bytes, or a URL; the first argument is another library's message, which does not exist here."""

    def __init__(self, proto: object = None, url: str | None = None, bytes: bytes | None = None) -> None:
        if proto is not None:
            kind = type(self).__name__
            raise TypeError(f"{kind}() takes url= or bytes= by name; messages need the package clarifai")
        self.url = url or ""
        self.bytes = bytes or b""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return one that only has a URL."""
        return cls(url=url)

    def to_base64_str(self) -> str:
        """Return the bytes as base64.

        Raises:
            ValueError: There are none.
        """
        return base64.b64encode(self._there()).decode("ascii")

    def _there(self) -> bytes:
        if not self.bytes:
            raise ValueError(f"{type(self).__name__} has no bytes")
        return self.bytes


class Image(Media):
    """An image file."""

    @classmethod
    def from_pil(cls, pil_image: Any, img_format: str = "PNG") -> Self:
        """Return Pillow's image as a file."""
        with io.BytesIO() as file:
            pil_image.save(file, format=img_format)
            return cls(bytes=file.getvalue())

    @classmethod
    def from_numpy(cls, numpy_image: Any, img_format: str = "PNG") -> Self:
        """Return an array of pixels as a file."""
        return cls.from_pil(import_module("PIL.Image").fromarray(numpy_image), img_format)

    def to_pil(self) -> Any:
        """Return it as Pillow's image.

        Raises:
            ValueError: It has no bytes.
        """
        return import_module("PIL.Image").open(io.BytesIO(self._there()))

    def to_numpy(self) -> Any:
        """Return its pixels.

        Raises:
            ValueError: It has no bytes.
        """
        return import_module("numpy").asarray(self.to_pil())


class Audio(Media):
    """An audio file."""


class Video(Media):
    """A video file."""


class Concept(MessageData):
    """A label, and how sure the model is of it."""

    def __init__(self, name: str, value: float = 1.0, id: str | None = None) -> None:
        self.name = name
        self.value = value
        self.id = id or re.sub(r"[^a-zA-Z0-9\s]", "", name).replace(" ", "-")


class Region(MessageData):
    """A part of an image: a box ``[x1, y1, x2, y2]``, a point ``(x, y, z)`` or a mask, and what is there."""

    def __init__(
        self,
        proto_region: object = None,
        box: Sequence[float] | None = None,
        concepts: list[Concept] | None = None,
        mask: Any = None,
        point: Sequence[float] | None = None,
        track_id: str | None = None,
        text: str | None = None,
        id: str | None = None,
    ) -> None:
        if proto_region is not None:
            raise TypeError("Region() takes its arguments by name; messages need the package clarifai")
        self.box = [0.0, 0.0, 0.0, 0.0] if box is None else list(box)
        self.concepts = [] if concepts is None else concepts
        self.mask = Image() if mask is None else _as_image(mask)
        self.point = (0.0, 0.0, 0.0) if point is None else tuple(point)
        self.track_id = track_id or ""
        self.text = text or ""
        self.id = uuid.uuid4().hex if id is None else id


class Frame(MessageData):
    """A frame of a video: ``time`` in seconds, ``index`` in frames."""

    def __init__(
        self,
        proto_frame: object = None,
        image: Image | None = None,
        regions: list[Region] | None = None,
        time: float | None = None,
        index: int | None = None,
    ) -> None:
        if proto_frame is not None:
            raise TypeError("Frame() takes its arguments by name; messages need the package clarifai")
        self.image = Image() if image is None else image
        self.regions = [] if regions is None else regions
        self.time = time or 0.0
        self.index = index or 0


class NamedFieldsMeta(type):
    """Makes ``NamedFields(x=str)`` a type, where ``NamedFields(x="a")`` is a value."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        if fields and all(map(_is_type, fields.values())):
            return type(cls.__name__, (cls,), {"__annotations__": fields})
        return super().__call__(*args, **fields)


class NamedFields(metaclass=NamedFieldsMeta):
    """A record: its fields are attributes, and can be had by ``[]`` as well."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def items(self) -> ItemsView[str, Any]:
        """Return names and values."""
        return vars(self).items()

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return vars(self).keys()

    def values(self) -> ValuesView[Any]:
        """Return the values."""
        return vars(self).values()

    def __contains__(self, name: object) -> bool:
        return name in vars(self)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedFields) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.items())
        return f"{type(self).__name__}({said})"


class Param(MessageData):
    """A parameter's default, with what a form that asks for it shows; the method gets the plain value."""

    def __init__(
        self,
        default: Any,
        description: str | None = None,
        min_value: float | None = None,
        max_value: float | None = None,
        choices: Sequence[Any] | None = None,
        is_param: bool = True,
    ) -> None:
        self.default = default
        self.description = description
        self.min_value = min_value
        self.max_value = max_value
        self.choices = choices
        self.is_param = is_param


def _as_image(mask: Any) -> Image:
    if isinstance(mask, Image):
        return mask
    return Image.from_pil(mask) if hasattr(mask, "save") else Image.from_numpy(mask)


def _is_type(value: object) -> bool:
    return isinstance(value, type) or value is Any or get_origin(value) is not None


def _shown(value: object) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else repr(value)
