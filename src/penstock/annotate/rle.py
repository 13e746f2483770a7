"""Masks as runs, in the form of COCO: column by column, first the zeros.

A mask of ``h`` rows and ``w`` columns is read down its columns; ``counts`` are the lengths of its runs, the
first one of zeros (which may be none).  As text each count is the difference to the one two before (from the
fourth on), in groups of five bits, lowest first, each group one character from ``0`` on; bit 32 says that
another follows, and the sign is that of the last group.

Well-known readers believe what they are given: runs that do not fill the image give memory that nobody wrote.
Here nothing is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.annotate.records import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

_FIRST, _LAST = 48, 111
_MORE, _SIGN, _BITS = 32, 16, 5
# Seven groups hold more than the pixels of any image that is read.
_MAX_GROUPS = 7


class Runs(msgspec.Struct, frozen=True):
    """A mask as runs that are known to fill it: rows, columns, and the lengths of the runs."""

    height: int
    width: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(self.height, self.width, self.counts)

    @property
    def area(self) -> int:
        """How many pixels are in the mask."""
        return sum(self.counts[1::2])

    @property
    def text(self) -> str:
        """The runs as text."""
        return pack(self.counts)

    def as_json(self) -> dict[str, Any]:
        """Return the mask as COCO writes it."""
        return {"size": [self.height, self.width], "counts": self.text}

    def box(self) -> Box | None:
        """Return the smallest box around the mask; None if it is empty."""
        left, top, right, bottom = self.width, self.height, 0, 0
        for start, end in self._filled():
            first, last = start // self.height, (end - 1) // self.height
            over = last > first  # a run that goes on in the next column touches both ends of it
            left, right = min(left, first), max(right, last + 1)
            top = min(top, 0 if over else start % self.height)
            bottom = max(bottom, self.height if over else (end - 1) % self.height + 1)
        return (float(left), float(top), float(right), float(bottom)) if right else None

    def _filled(self) -> Iterator[tuple[int, int]]:
        at = 0
        for number, count in enumerate(self.counts):
            if number % 2 and count:
                yield at, at + count
            at += count


def read(value: Any) -> Runs:
    """Return the mask that a ``{"size": [h, w], "counts": text or list}`` says.

    Raises:
        ValueError: It is not of that form, or its runs do not fill the image; the message says what is wrong.
    """
    if not isinstance(value, dict) or "size" not in value or "counts" not in value:
        raise ValueError("a mask of runs is an object with `size` and `counts`")
    size, counts = value["size"], value["counts"]
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(map(_is_count, size)):
        raise ValueError("`size` of a mask of runs should be two whole numbers, rows and columns")
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    found = unpack(counts) if isinstance(counts, str) else counts
    if not isinstance(found, (list, tuple)):
        raise ValueError("`counts` of a mask of runs should be text or a list of whole numbers")
    return Runs(size[0], size[1], tuple(found))


def pack(counts: Sequence[int]) -> str:
    """Return runs as text."""
    return "".join(
        chr(code)
        for number, count in enumerate(counts)
        for code in _groups(count - counts[number - 2] if number > 2 else count)
    )


def unpack(text: str) -> list[int]:
    """Return the runs that a text says.

    Raises:
        ValueError: A character is none of the alphabet, the text ends inside a number, or a run is negative.
    """
    counts: list[int] = []
    for number in _numbers(text):
        count = number + counts[-2] if len(counts) > 2 else number
        if count < 0:
            raise ValueError(f"run {len(counts)} of a mask is {count} pixels long")
        counts.append(count)
    return counts


def encode(mask: Mask) -> Runs:
    """Return a mask, an array of rows and columns that is true inside, as runs."""
    import numpy as np

    if mask.ndim != 2:
        raise ValueError(f"a mask has rows and columns; this one has {mask.ndim} dimensions")
    height, width = mask.shape
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    if not flat.size:
        return Runs(height, width, ())
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    return Runs(height, width, (0, *counts) if flat[0] else tuple(counts))


def decode(runs: Runs) -> Mask:
    """Return runs as an array of rows and columns, true inside."""
    import numpy as np

    values = np.arange(len(runs.counts)) % 2 == 1
    flat = np.repeat(values, runs.counts)
    return np.ascontiguousarray(flat.reshape((runs.height, runs.width), order="F"))


def _check(height: int, width: int, counts: Iterable[int]) -> None:
    if not _is_count(height) or not _is_count(width):
        raise ValueError("a mask has a whole number of rows and columns")
    total = 0
    for number, count in enumerate(counts):
        if not _is_count(count):
            raise ValueError(f"run {number} of a mask is {count!r}; it should be a whole number of pixels")
        total += count
    if total != height * width:
        raise ValueError(f"the runs of a mask hold {total} pixels; {height} x {width} are {height * width}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _groups(number: int) -> Iterator[int]:
    while True:
        group = number & 31
        number >>= _BITS
        if number == (-1 if group & _SIGN else 0):
            yield group + _FIRST
            return
        yield (group | _MORE) + _FIRST


def _numbers(text: str) -> Iterator[int]:
    number = shift = 0
    for place, character in enumerate(text):
        group = ord(character) - _FIRST
        if not 0 <= group <= _LAST - _FIRST:
            raise ValueError(f"character {place} of a mask's runs, {character!r}, is none of their alphabet")
        number |= (group & 31) << shift
        shift += _BITS
        if not group & _MORE:
            yield number - (1 << shift) if group & _SIGN else number
            number = shift = 0
        elif shift == _BITS * _MAX_GROUPS:
            raise ValueError(f"the number that ends at character {place} of a mask's runs is too long")
    if shift:
        raise ValueError("a mask's runs end inside a number")
