"""Takes out of a text what a call was given and what it has said: an exception may quote either, and a log
has no business with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from penstock.calls.inputs import InputStream
from penstock.calls.live import Live

MASK = "…"
RUN = 8  # characters in a row that are taken for a quotation
SHORTEST = 4  # a whole value that is shorter stands in too many words
LOOKED_AT = 32 * 1024  # characters at each end of a long value; a quotation is cut from its ends
VALUES = 10_000  # texts and other values that are looked at
FRAMES, FRAME_BYTES = 256, 64 * 1024  # of what was said, the last


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` without the parts of it that are parts of ``secrets``.

    Args:
        text: Such as an exception with its traceback.
        secrets: Whole values, of which a text may have parts only.
    """
    hidden = bytearray(len(text))
    runs: dict[str, list[int]] = {}
    for at in range(len(text) - RUN + 1):
        runs.setdefault(text[at : at + RUN], []).append(at)
    for secret in secrets:
        if len(secret) < RUN:
            _hide_whole(text, secret, hidden)
            continue
        for piece in _ends(secret):
            for run in {piece[at : at + RUN] for at in range(len(piece) - RUN + 1)} & runs.keys():
                for at in runs[run]:
                    hidden[at : at + RUN] = b"\1" * RUN
    return _without(text, hidden)


def _hide_whole(text: str, secret: str, hidden: bytearray) -> None:
    if len(secret) < SHORTEST:
        return
    at = text.find(secret)
    while at >= 0:
        hidden[at : at + len(secret)] = b"\1" * len(secret)
        at = text.find(secret, at + 1)


def _ends(secret: str) -> tuple[str, ...]:
    return (secret,) if len(secret) <= 2 * LOOKED_AT else (secret[:LOOKED_AT], secret[-LOOKED_AT:])


def _without(text: str, hidden: bytearray) -> str:
    parts, at = [], 0
    while (begin := hidden.find(1, at)) >= 0:
        end = hidden.find(0, begin)
        parts += [text[at:begin], MASK]
        at = len(text) if end < 0 else end
    return "".join((*parts, text[at:])) if parts else text


def secrets_of(live: Live, given: Iterable[object]) -> Iterator[str]:
    """Yield the texts that a call was given, and the last of those that it has said."""
    yield from _texts(list(given))
    said = list(_texts([_said_in(line) for line in _last_frames(live)]))
    yield from said
    yield "".join(said)  # pieces of one text


def _last_frames(live: Live) -> list[bytes]:
    log = live.log
    return log.read(max(log.first_seq - 1, log.next_seq - 1 - FRAMES, -1), FRAME_BYTES)


def _said_in(line: bytes) -> object:
    """Return the values of an item; its own names are no secret."""
    try:
        data = msgspec.json.decode(line, type=_Said).data
    except (msgspec.MsgspecError, RecursionError):
        return None
    return list(data.values()) if isinstance(data, dict) else data


class _Said(msgspec.Struct):
    data: Any = None


def _texts(value: object) -> Iterator[str]:
    """Yield each text in a value, in order; of very many, the first."""
    waiting = [value]
    for _ in range(VALUES):
        if not waiting:
            return
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, (bytes, bytearray)):
            yield bytes(each).decode("latin-1")
        else:
            waiting += reversed(_parts(each))


def _parts(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, InputStream):
        return list(value.recent)
    fields = getattr(value, "__dict__", None)  # of a model or a record
    return list(fields.values()) if isinstance(fields, dict) and not isinstance(value, type) else []
