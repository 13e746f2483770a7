"""Numbers that are not finite, wherever they hide in a value of any shape.

pydantic refuses them in fields with a type; free-form data such as a request's ``metadata`` needs this walk.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from pydantic import BaseModel

__all__ = ["Path", "non_finite"]

Path: TypeAlias = tuple[int | str, ...]

# A place as (the place above, steps from there): a path is only spelled out where something is wrong, for
# spelling out every path of a deep value would take time quadratic in its depth.
_Place: TypeAlias = tuple[Any, Path] | None

_PLAIN = frozenset({str, int, bool, type(None), bytes})


def _spelled_out(place: _Place) -> Path:
    steps: list[int | str] = []
    while place is not None:
        steps.extend(reversed(place[1]))
        place = place[0]
    return tuple(reversed(steps))


def _is_finite(value: object) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite()
    return not isinstance(value, float) or math.isfinite(value)


def _needs_a_look(value: object) -> bool:
    kind = type(value)
    return not math.isfinite(value) if kind is float else kind not in _PLAIN  # type: ignore[arg-type]


def _parts(value: object) -> Iterable[tuple[object, object]]:
    """The members of a container, each with its key or index; nothing for any other value."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return enumerate(value)
    if isinstance(value, BaseModel):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return vars(value).items()
    return ()


def _below(place: _Place, value: object) -> Iterator[tuple[_Place, object]]:
    for key, part in _parts(value):
        if _needs_a_look(key):
            yield (place, (str(key), "[key]")), key
        if _needs_a_look(part):
            yield (place, (key if isinstance(key, (int, str)) else str(key),)), part


def non_finite(root: object) -> Iterator[tuple[Path, object]]:
    """Every number in ``root`` that is not finite, with its path, in the order of the document.

    A key that is not finite has its own text and ``"[key]"`` as its last steps.  The walk keeps its own stack
    and opens a container once, so neither depth nor a cycle can hurt it.
    """
    # Holding what was opened keeps its id from being given to another container meanwhile.
    opened: dict[int, object] = {}
    stack: list[tuple[_Place, object]] = [(None, root)]
    while stack:
        place, value = stack.pop()
        if not _is_finite(value):
            yield _spelled_out(place), value
        if id(value) in opened:
            continue
        below = list(_below(place, value))
        if below:
            opened[id(value)] = value
            stack.extend(reversed(below))
