"""Ids that are never the same twice: 32 hex digits."""

from __future__ import annotations

import os

_BYTES, _DIGITS = 16, 32
_AT_ONCE = 256
_ready: list[str] = []


def new_id() -> str:
    """Return 32 random hex digits, as strong as the system's own.

    One system call serves many ids: a call of its own for each would be a tenth of the cost of a quick call.
    """
    while True:
        try:
            return _ready.pop()
        except IndexError:  # at the first time, or another thread was faster
            digits = os.urandom(_BYTES * _AT_ONCE).hex()
            _ready.extend([digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ready.clear)
