"""How deep JSON is nested, found without building it: it costs nothing to send, and little to refuse."""

from __future__ import annotations

import re
from array import array
from itertools import accumulate

from penstock.errors import CallError, ErrorCode

MAX_DEPTH = 64  # of arrays and objects within each other (WIRE.md section 3, Limits)

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # up and, as a signed byte, down
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_BLOCK = 64 * 1024  # so that the count stops soon
_STRING = re.compile(rb'"[^"]*"')


def check_depth(text: bytes | str) -> None:
    """Refuse JSON that is nested deeper than ``MAX_DEPTH``; text that is no JSON may pass.

    Raises:
        CallError: ``too_large``.
    """
    if _opened(text) > MAX_DEPTH and _is_deep(_bytes(text)):
        raise CallError(f"the JSON is nested deeper than {MAX_DEPTH}", ErrorCode.TOO_LARGE)


def _opened(text: bytes | str) -> int:
    if isinstance(text, str):
        return text.count("[") + text.count("{")
    return text.count(b"[") + text.count(b"{")


def _bytes(text: bytes | str) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def _is_deep(text: bytes) -> bool:
    """Count along the brackets that are outside of strings, in C: a loop over the characters would hold the
    event loop for seconds."""
    if b"\\" in text:  # what is escaped ends no string
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = text.translate(_STEPS, _OTHERS)
    brackets = _STRING.sub(b"", brackets.replace(b'""', b""))
    depth = 0
    for begin in range(0, len(brackets), _BLOCK):
        depths = list(accumulate(array("b", brackets[begin : begin + _BLOCK]), initial=depth))
        if max(depths) > MAX_DEPTH:
            return True
        depth = depths[-1]
    return False
