"""The data types of Clarifai's models as JSON (docs/clarifai.md): pydantic models of what a caller sends and
is sent.

The names inside are those of the Python types.  Bytes are base64.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

CONFIG = ConfigDict(extra="forbid", val_json_bytes="base64", ser_json_bytes="base64", allow_inf_nan=False)
Size = Annotated[int, Field(ge=0, lt=2**31)]
_PLAIN_NUMBERS = "biufc"  # numpy's kinds whose bytes are values, and not pointers or structures


class Form(BaseModel):
    """A JSON object without unknown names."""

    model_config = CONFIG


class Text(Form):
    """A text with where it comes from; plain text is a string instead."""

    text: str = ""
    url: str | None = None


class Media(Form):
    """An image, audio or video: its file, or where that is; a URL is handed on, and not fetched."""

    base64: bytes = b""
    url: str = ""

    @model_validator(mode="after")
    def _is_something(self) -> Self:
        if not self.base64 and not self.url:
            raise ValueError("give base64, or a url")
        return self


class Concept(Form):
    """A label, and how sure the model is of it."""

    name: str
    value: float = 1.0
    id: str | None = None


class Region(Form):
    """A part of an image, and what is there."""

    id: str | None = None
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    point: tuple[float, float, float] | None = None
    mask: Media | None = None
    concepts: list[Concept] = []
    text: str | None = None
    track_id: str | None = None


class Frame(Form):
    """A frame of a video; ``time`` is in seconds."""

    image: Media | None = None
    regions: list[Region] = []
    time: Annotated[float, Field(ge=0, lt=2**32 / 1000)] = 0.0
    index: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Array(Form):
    """An array of numpy: its bytes, in the order of C."""

    buffer: bytes
    shape: list[Size]
    dtype: str

    def build(self) -> Any:
        """Return the array.

        Raises:
            ValueError: These bytes are no such array.
        """
        np = import_module("numpy")
        try:
            dtype = np.dtype(self.dtype)
        except TypeError as error:
            raise ValueError(f"{self.dtype!r} is no dtype of numpy") from error
        if dtype.kind not in _PLAIN_NUMBERS:
            raise ValueError(f"{self.dtype!r} is no dtype of numbers")
        needed = math.prod(self.shape) * dtype.itemsize
        if needed != len(self.buffer):
            raise ValueError(
                f"{self.shape} of {self.dtype} takes {needed} bytes, and there are {len(self.buffer)}"
            )
        return np.frombuffer(self.buffer, dtype).reshape(self.shape).copy()
