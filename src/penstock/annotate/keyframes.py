"""Key frames of tracks: boxes that the line between two others gives back, within a tolerance, are left out.

Tools that have key frames interpolate between them by the number of the frame, each number of a shape for
itself.  What is measured here is what they show then, from numbers as they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import msgspec

from penstock.annotate.errors import ConfigError
from penstock.annotate.overlaps import iou
from penstock.annotate.records import Box

# The numbers a shape is written as, such as four sides; or those and the angle it is turned by.
Values: TypeAlias = tuple[float, ...]

_REACH = 2000  # shapes; a key frame at least so often, as what is looked at again and again grows with it
_NOISE = 1e-6  # of the arithmetic, which may differ where it is read


class Reduction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How far a box may be off that is left to interpolation.

    Args:
        px: By so many pixels at most, each side.
        iou: The least IoU with where it really is.

    Raises:
        ValueError: It says nothing, or something impossible.
    """

    px: float | None = None
    iou: float | None = None

    def __post_init__(self) -> None:
        if self.px is None and self.iou is None:
            raise ValueError("say how far boxes may be off: px=1, iou=0.95, or both")
        if self.px is not None and not 0 < self.px < float("inf"):
            raise ValueError(f"px is {self.px}; it must be above 0")
        if self.iou is not None and not 0 < self.iou < 1:
            raise ValueError(f"iou is {self.iou}; it must be between 0 and 1")

    def __str__(self) -> str:
        told = {"px": self.px, "iou": self.iou}
        return ",".join(f"{name}={value:g}" for name, value in told.items() if value is not None)

    def off(self, exact: Box, shown: Box) -> float:
        """Return how far a box is off, in parts of what it may be: 1 is just within."""
        off = 0.0
        if self.px is not None:
            off = max(abs(a - b) for a, b in zip(exact, shown, strict=True)) / self.px
        if self.iou is not None:
            off = max(off, (1 - iou(exact, shown)) / (1 - self.iou))
        return off

    def allows(self, exact: Box, shown: Box) -> bool:
        """Whether a box that was read where interpolation gives it may stand for another."""
        return self.off(exact, shown) <= 1


def parse_reduction(text: str) -> Reduction:
    """Return what a text such as ``px=1`` or ``iou=0.95`` says.

    Raises:
        ConfigError: It says nothing of the kind.
    """
    parts = [part.partition("=") for part in text.split(",")]
    try:
        return Reduction(**{name.strip(): float(value) for name, _, value in parts})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{text!r} is no tolerance such as px=1 or iou=0.95: {error}") from error


def between(first: tuple[int, Values], last: tuple[int, Values], frame: int) -> Values:
    """Return what is shown at a frame between two key frames."""
    share = (frame - first[0]) / (last[0] - first[0])
    return tuple(a + share * (b - a) for a, b in zip(first[1], last[1], strict=True))


def keys_of(
    path: Sequence[tuple[int, Values]], off: Callable[[int, Values], float], kept: Sequence[int] = ()
) -> list[int]:
    """Return which shapes of a track are key frames: the others lie where these have them, nearly.

    Of a stretch whose worst shape is too far off, that one is kept, and both halves are looked at
    (Ramer, Douglas and Peucker).

    Args:
        path: Frames, rising, and what is written of each; at least one.
        off: How far off the shape of that number is, if these numbers are shown; above 1 is too far.
        kept: Numbers of shapes that are kept in any case; the first and the last always are.
    """
    found = sorted({*range(0, len(path), _REACH), *kept, len(path) - 1})
    open_ = [(a, b) for a, b in pairwise(found) if b > a + 1]
    while open_:
        first, last = open_.pop()
        worst, where = max(
            (off(at, between(path[first], path[last], path[at][0])), -at) for at in range(first + 1, last)
        )
        if worst > 1 - _NOISE:
            found.append(-where)
            open_ += [(a, b) for a, b in ((first, -where), (-where, last)) if b > a + 1]
    return sorted(found)
