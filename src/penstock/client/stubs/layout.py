"""Text that is broken into lines where it is too long for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

WIDTH = 88
_STEP = "    "


class Group(NamedTuple):
    """Parts between brackets: in one line if that fits, else each in one of its own.

    Attributes:
        ender: Whether a comma follows the last part where each has its line.
        between: In one line the parts stand without the brackets, with this between them.
    """

    head: str
    parts: Sequence[Text]
    tail: str
    ender: bool = True
    between: str = ""


Text: TypeAlias = "str | Group"


def flat(text: Text) -> str:
    """Return it in one line."""
    if isinstance(text, str):
        return text
    if text.between:
        return text.between.join(map(flat, text.parts))
    return text.head + ", ".join(map(flat, text.parts)) + text.tail


def lay(before: str, text: Text, after: str = "", *, indent: str = "") -> str:
    """Return ``before``, ``text`` and ``after``, in as many lines as it takes."""
    line = indent + before + flat(text) + after
    if isinstance(text, str) or len(line) <= WIDTH:
        return line
    inner = indent + _STEP
    ends = [","] * len(text.parts)
    if not text.ender:
        ends[-1] = ""
    parts = [lay("", part, end, indent=inner) for part, end in zip(text.parts, ends, strict=True)]
    return "\n".join((indent + before + text.head, *parts, indent + text.tail + after))
