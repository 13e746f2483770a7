"""NDJSON and SSE: frames to bytes, and bytes, however they are cut, back to frames.

The decoders take any bytes in linear time, hold at most one frame, and raise nothing but ``too_large``.
What comes before a frame that is too large is handed out first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.errors import CallError, ErrorCode

NDJSON_TYPE: Final = "application/x-ndjson"
SSE_TYPE: Final = "text/event-stream"
JSON_TYPE: Final = "application/json"

MAX_FRAME: Final = 16 * 1024 * 1024  # bytes; the message size limit of WIRE.md section 3
SSE_KEEPALIVE: Final = b": keepalive\n\n"  # a comment: no event, so no reader of events ever sees it

_BOM = b"\xef\xbb\xbf"
# What a line may hold beside a frame: a byte order mark, and the longest field prefix with data after it.
_LINE_OVERHEAD = len(_BOM) + len(b"data: ")


def ndjson(lines: Sequence[bytes]) -> bytes:
    """Return frames as NDJSON: one line each."""
    return b"\n".join((*lines, b""))


def sse(first_seq: int, lines: Sequence[bytes]) -> bytes:
    """Return frames as server-sent events, whose ids are the frames' numbers."""
    return b"".join([b"id: %d\ndata: %b\n\n" % numbered for numbered in enumerate(lines, first_seq)])


def ndjson_keepalive(now: float) -> bytes:
    """Return the NDJSON line that says a silent stream is alive; it has no number and is in no log.

    Args:
        now: Unix seconds.
    """
    return msgspec.json.encode({"type": "keepalive", "timestamp": round(now, 3)}) + b"\n"


class NdjsonDecoder:
    """Cuts bytes into lines; blank ones are left out.

    Args:
        max_line: Bytes a line may have, without its line feed.
    """

    __slots__ = ("_fault", "_max", "_tail")

    def __init__(self, max_line: int = MAX_FRAME) -> None:
        self._max = max_line
        self._tail = bytearray()
        self._fault: CallError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines they complete.

        Raises:
            CallError: ``too_large``, now and ever after.
        """
        if self._fault is not None:
            raise self._fault
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._tail:
            self._tail += lines[0]
            lines[0] = bytes(self._tail)
            self._tail.clear()
        self._tail += rest
        if len(self._tail) > self._max or max(map(len, lines), default=0) > self._max:
            lines = self._lines_before_fault(lines)
        return [line for line in lines if line and not line.isspace()]

    def close(self) -> bool:
        """Say whether the bytes ended within a line.

        Raises:
            CallError: ``too_large``.
        """
        if self._fault is not None:
            raise self._fault
        return bool(self._tail.strip())

    def _lines_before_fault(self, lines: list[bytes]) -> list[bytes]:
        self._tail.clear()
        self._fault = _too_large("a line", self._max)
        good = next((index for index, line in enumerate(lines) if len(line) > self._max), len(lines))
        if not good:
            raise self._fault
        return lines[:good]


class SseEvent(NamedTuple):
    """One server-sent event; ``id`` is the last one seen, as the standard has it."""

    data: bytes
    id: str = ""
    event: str = "message"


class SseDecoder:
    """Cuts bytes into events by the rules of the WHATWG HTML standard, section 9.2.6 ("Interpreting an
    event stream").  ``retry`` is ignored: when to connect again is the client's own decision.

    Args:
        max_data: Bytes the data of one event may have.
    """

    __slots__ = ("_after_cr", "_at_start", "_data", "_event", "_fault", "_id", "_max", "_tail")

    def __init__(self, max_data: int = MAX_FRAME) -> None:
        self._max = max_data
        self._tail = bytearray()
        self._data = bytearray()  # of the event being read, a line feed behind each line
        self._event = b""
        self._id = ""
        self._at_start = True
        self._after_cr = False
        self._fault: CallError | None = None

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes; return the events they complete.

        Raises:
            CallError: ``too_large``, now and ever after.
        """
        self._raise_fault()
        events: list[SseEvent] = []
        for line in self._split(data):
            self._take(line, events)
        if len(self._tail) > self._max + _LINE_OVERHEAD:
            self._fail()
        if not events:
            self._raise_fault()
        return events

    def close(self) -> bool:
        """Say whether the bytes ended within an event.

        Raises:
            CallError: ``too_large``.
        """
        self._raise_fault()
        return bool(self._tail or self._data)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _split(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes; a line ends with CR, LF or both."""
        if not data:
            return []
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = data[-1:] == b"\r"
        lines = data.splitlines()
        rest = lines.pop() if data[-1:] not in (b"", b"\r", b"\n") else b""
        if lines and self._tail:
            self._tail += lines[0]
            lines[0] = bytes(self._tail)
            self._tail.clear()
        self._tail += rest
        return lines

    def _take(self, line: bytes, events: list[SseEvent]) -> None:
        if self._fault is not None:
            return
        if len(line) > self._max + _LINE_OVERHEAD:
            self._fail()
            return
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
        else:
            name, _, value = line.partition(b":")
            self._field(name, value[1:] if value[:1] == b" " else value)

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            if len(self._data) + len(value) > self._max:
                self._fail()
            else:
                self._data += value
                self._data += b"\n"
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"event":
            self._event = value

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            kind = self._event.decode("utf-8", "replace") or "message"
            events.append(SseEvent(bytes(self._data[:-1]), self._id, kind))
            self._data.clear()
        self._event = b""

    def _fail(self) -> None:
        self._tail.clear()
        self._data.clear()
        self._fault = _too_large("an event", self._max)


def _too_large(what: str, limit: int) -> CallError:
    return CallError(f"{what} of the stream is longer than {limit} bytes", ErrorCode.TOO_LARGE)
