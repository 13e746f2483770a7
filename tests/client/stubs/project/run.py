"""A project whose commands take and give types of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel
from typing_extensions import NotRequired, TypedDict

from penstock import Runtime

rt = Runtime("manifest.yml")


class Colour(str, Enum):
    RED = "red"
    GREEN = "green"


class Point(BaseModel):
    """A place in a picture.

    Counted from the top left.
    """

    x: int
    y: int = 0


Mark = TypedDict("Mark", {"class": str, "max-age": NotRequired[int]})


class Region(BaseModel):
    """A part of a picture, \"as seen\"."""

    corners: list[Point]
    colour: Colour | None = None
    parts: list[Region] = []
    mark: Mark | None = None


class Piece(TypedDict):
    chunk: str
    finished: bool


@rt.streaming_command("predict")
async def predict(prompt: str, max_tokens: int = 256) -> AsyncIterator[Piece]:
    """Answer a prompt piece by piece."""
    for word in prompt.split()[:max_tokens]:
        yield {"chunk": word, "finished": False}


@rt.command("add")
def add(a: int, b: int = 1) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@rt.command("find-all")
def find(
    regions: list[Region],
    near: tuple[float, float] | None = None,
    how: Literal["fast", "exact", 'with "care"', "as it was always done, however long it takes"] = "fast",
    data: bytes = b"",
    anything: Any = None,
) -> list[Region]:
    """Find regions.

    Args:
        regions: Where to look.
    """
    return regions


@rt.command("class")
def hold() -> str:
    return "held"


@rt.streaming_command("upper")
async def upper(words: AsyncIterator[str]) -> AsyncIterator[str]:
    """Write words in capitals."""
    async for word in words:
        yield word.upper()
