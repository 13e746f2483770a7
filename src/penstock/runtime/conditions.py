"""``when``: ``X``, ``not X``, ``X == Y``, ``X != Y`` of references and JSON literals (WIRE.md section 4)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from penstock.runtime.references import Reference, Scope

_NOT = re.compile(r"not\b\s*")
_OPERATOR = re.compile(r"(==|!=)\s*")
_REFERENCE = re.compile(r"\$\{([^{}]*)\}\s*")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Condition:
    """Whether a step runs.

    Attributes:
        left: A reference or a JSON value; ``right`` likewise, None with the first two operators.
        operator: ``is`` and ``not`` ask whether it is true as JSON: not false, null, 0 or empty.
    """

    left: Any
    operator: Literal["is", "not", "==", "!="] = "is"
    right: Any = None

    @classmethod
    def parse(cls, value: object) -> Condition:
        """Read a condition; a value that is no text stands for itself.

        Raises:
            ValueError: It is not one; the message says what one looks like.
        """
        if not isinstance(value, str):
            return cls(value)
        text = value.strip()
        if (mark := _NOT.match(text)) is not None:
            operand, end = _operand(text, mark.end())
            return cls(operand, "not") if end == len(text) else _refuse(text, end)
        left, end = _operand(text, 0)
        if end == len(text):
            return cls(left)
        if (operator := _OPERATOR.match(text, end)) is None:
            return _refuse(text, end)
        right, end = _operand(text, operator.end())
        if end != len(text):
            return _refuse(text, end)
        return cls(left, "==" if operator[1] == "==" else "!=", right)

    def references(self) -> Iterator[Reference]:
        """Yield every reference."""
        yield from (side for side in (self.left, self.right) if isinstance(side, Reference))

    def holds(self, scope: Scope) -> bool:
        """Return whether it is true.

        Raises:
            CallError: A path is missing.
        """
        left = _resolve(self.left, scope)
        if self.operator in ("is", "not"):
            return bool(left) is (self.operator == "is")
        return same(left, _resolve(self.right, scope)) is (self.operator == "==")


def same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are the same; unlike in Python, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _resolve(side: Any, scope: Scope) -> Any:
    return side.resolve(scope) if isinstance(side, Reference) else side


def _operand(text: str, start: int) -> tuple[Any, int]:
    """Return the operand that begins at ``start``, and where what follows it begins."""
    if (mark := _REFERENCE.match(text, start)) is not None:
        return Reference.parse(mark[1]), mark.end()
    try:
        literal, end = _decode(text, start)
    except (ValueError, RecursionError):
        word = text[start:][:40] or "nothing"
        raise ValueError(
            f'{word} is neither a reference nor JSON; write ${{input.name}}, "text", 1, true or null'
        ) from None
    space = _SPACE.match(text, end)
    return literal, space.end() if space else end


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).raw_decode


def _refuse(text: str, end: int) -> Condition:
    raise ValueError(
        f"{text[end:][:40]!r} is one thing too many; a condition is X, not X, X == Y or X != Y, no more"
    )
