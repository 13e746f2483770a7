"""Types as JSON Schemas have them, and no language yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Basic = Literal["text", "bytes", "integer", "number", "boolean", "null", "anything"]


class Plain(NamedTuple):
    """A value that has no parts."""

    kind: Basic


class Choice(NamedTuple):
    """One of these values."""

    values: tuple[str | int | bool | None, ...]


class ListOf(NamedTuple):
    """A list, all of a kind."""

    item: Type


class TupleOf(NamedTuple):
    """A list with as many items, each of its own kind."""

    items: tuple[Type, ...]


class MapOf(NamedTuple):
    """An object with any keys."""

    value: Type


class OneOf(NamedTuple):
    """A value of one of these types, of which there are at least two."""

    options: tuple[Type, ...]


class Named(NamedTuple):
    """A ``Shape``, by its name."""

    name: str


Type: TypeAlias = Plain | Choice | ListOf | TupleOf | MapOf | OneOf | Named
ANYTHING = Plain("anything")


class Field(NamedTuple):
    """A key of a shape."""

    name: str
    type: Type
    required: bool
    about: str = ""


class Shape(NamedTuple):
    """An object with known keys."""

    name: str
    fields: tuple[Field, ...]
    about: str = ""


class Method(NamedTuple):
    """A command, or a workflow.

    Attributes:
        target: Its own name; ``name`` is what the stubs call it.
        takes: Its input; None where it takes none.
        optional: It may be called without.
        gives: Its items, where it streams; else its answer.
    """

    name: str
    target: str
    about: str
    takes: Type | None
    optional: bool
    gives: Type
    streams: bool
    is_workflow: bool = False


@dataclass(frozen=True)
class Stubs:
    """All there is to write."""

    title: str
    name: str
    shapes: tuple[Shape, ...]
    methods: tuple[Method, ...]
