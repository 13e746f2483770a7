"""Where work stands that does not stop: its stack, for the log."""

from __future__ import annotations

import sys
import traceback
from types import FrameType

_AWAITED = ("cr_await", "ag_await", "gi_yieldfrom")
_FRAMES = ("cr_frame", "ag_frame", "gi_frame")
_DEEPEST = 100


def stack_of(work: object) -> str:
    """Return the stack of a coroutine or generator that waits, outermost call first; of anything else, what
    its ``stack()`` says."""
    told = getattr(work, "stack", None)
    if callable(told):
        return str(told())
    entries: list[traceback.FrameSummary] = []
    while work is not None and len(entries) < _DEEPEST:
        frame = _first(work, _FRAMES)
        if isinstance(frame, FrameType):
            entries += traceback.extract_stack(frame, limit=1)
        work = _first(work, _AWAITED)
    return "".join(traceback.format_list(entries)) or "an unknown place"


def stack_of_thread(ident: int | None) -> str:
    """Return the stack of a thread, outermost call first."""
    frame = None if ident is None else sys._current_frames().get(ident)
    return "an unknown place" if frame is None else "".join(traceback.format_stack(frame))


def _first(work: object, names: tuple[str, ...]) -> object:
    found = (getattr(work, name, None) for name in names)
    return next((value for value in found if value is not None), None)
