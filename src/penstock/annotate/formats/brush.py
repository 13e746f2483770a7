"""Label Studio's brush: the bytes of a picture of four channels, as runs of bits.

First 32 bits that say how many bytes there are, five bits with the width of a word less one, and four times
four bits with the widths of counts, each less one.  Then blocks: one bit that says whether it is a run, two
bits with which of the widths its count has, the count less one, and the word of a run, or all words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from penstock.annotate import rle

if TYPE_CHECKING:
    from penstock.annotate.shapes.kinds import Mask

_WORD = 8
_WIDTHS = (3, 4, 8, 16)
_CHANNELS = 4
_FULL = 255


def pack_mask(mask: Mask) -> bytes:
    """Return a mask as a brush."""
    pieces = [f"{mask.size * _CHANNELS:032b}", f"{_WORD - 1:05b}", *(f"{width - 1:04b}" for width in _WIDTHS)]
    # Down the columns of what is turned is along the rows.
    for number, count in enumerate(rle.encode(mask.T).counts):
        pieces += _runs(count * _CHANNELS, _FULL * (number % 2))
    bits = "".join(pieces)
    bits += "0" * (-len(bits) % _WORD)
    return int(bits, 2).to_bytes(len(bits) // _WORD, "big")


def unpack_mask(packed: bytes, height: int, width: int) -> Mask:
    """Return a brush as a mask: the pixels whose last channel is not 0.

    Raises:
        ValueError: It is none, or not of an image of this size.
    """
    import numpy as np

    bits = "".join(f"{byte:08b}" for byte in packed)
    values = np.frombuffer(b"".join(_words(bits, height * width * _CHANNELS)), dtype=np.uint8)
    return values.reshape(height, width, _CHANNELS)[..., -1] > 0


def _runs(count: int, value: int) -> Iterator[str]:
    while count:
        most = 1 << _WIDTHS[-1]
        run = min(count, most)
        which = next(place for place, width in enumerate(_WIDTHS) if run <= 1 << width)
        yield f"1{which:02b}{run - 1:0{_WIDTHS[which]}b}{value:08b}"
        count -= run


def _words(bits: str, wanted: int) -> Iterator[bytes]:
    at = 0

    def take(width: int) -> int:
        nonlocal at
        at += width
        if at > len(bits):
            raise ValueError("a brush ends before its picture does")
        return int(bits[at - width : at], 2)

    if take(32) != wanted:
        raise ValueError("a brush is not of its image's size")
    if take(5) != _WORD - 1:
        raise ValueError("the words of a brush should be bytes")
    widths = [take(4) + 1 for _ in _WIDTHS]
    left = wanted
    while left:
        run = take(1)
        count = take(widths[take(2)]) + 1
        if count > left:
            raise ValueError("a brush goes on after its picture ends")
        left -= count
        yield bytes([take(_WORD)]) * count if run else bytes(take(_WORD) for _ in range(count))
