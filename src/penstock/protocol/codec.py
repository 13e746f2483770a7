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


class _Lines:
    """Lines of which the last may still be incomplete, and what went wrong with them.

    Args:
        limit: Bytes a line may have, without its end.
    """

    __slots__ = ("_limit", "fault", "tail")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.tail = bytearray()  # one buffer that grows, so that many small pieces cost no more than one
        self.fault: CallError | None = None

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.fault is not None:
            raise self.fault

    def join(self, lines: list[bytes], rest: bytes, fault: CallError) -> list[bytes]:
        """Return ``lines``, the first completed by what came before; keep ``rest``.  Of lines that are too
        long the first is a ``fault``, and ends it all."""
        if lines and self.tail:
            self.tail += lines[0]
            lines[0] = bytes(self.tail)
            self.tail.clear()
        self.tail += rest
        if len(self.tail) <= self._limit and max(map(len, lines), default=0) <= self._limit:
            return lines
        self.fault = fault
        self.tail.clear()
        return lines[: next((i for i, line in enumerate(lines) if len(line) > self._limit), len(lines))]


class NdjsonDecoder:
    """Cuts bytes into lines; blank ones are left out.

    Args:
        max_line: Bytes a line may have, without its line feed.
    """

    __slots__ = ("_lines", "_too_large")

    def __init__(self, max_line: int = MAX_FRAME) -> None:
        self._lines = _Lines(max_line)
        self._too_large = _too_large("a line", max_line)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines they complete.

        Raises:
            CallError: ``too_large``, now and ever after.
        """
        self._lines.check()
        lines = data.split(b"\n")
        lines = self._lines.join(lines, lines.pop(), self._too_large)
        if not lines:
            self._lines.check()
        return [line for line in lines if line and not line.isspace()]

    def close(self) -> bool:
        """Say whether the bytes ended within a line.

        Raises:
            CallError: ``too_large``.
        """
        self._lines.check()
        return bool(self._lines.tail.strip())


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

    __slots__ = ("_after_cr", "_at_start", "_data", "_event", "_id", "_lines", "_max", "_too_large")

    def __init__(self, max_data: int = MAX_FRAME) -> None:
        self._max = max_data
        self._lines = _Lines(max_data + _LINE_OVERHEAD)
        self._too_large = _too_large("an event", max_data)
        self._data: bytes | bytearray | None = None  # of the event being read; of several lines a bytearray
        self._event = b""
        self._id = ""
        self._at_start = True
        self._after_cr = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes; return the events they complete.

        Raises:
            CallError: ``too_large``, now and ever after.
        """
        self._lines.check()
        events: list[SseEvent] = []
        try:
            for line in self._split(data):
                if line:
                    self._take(line)
                elif self._data is not None:
                    events.append(self._event_read())
                else:
                    self._event = b""
        except CallError as error:
            self._lines.fault = error
        if not events:
            self._lines.check()
        return events

    def close(self) -> bool:
        """Say whether the bytes ended within an event.

        Raises:
            CallError: ``too_large``.
        """
        self._lines.check()
        return bool(self._lines.tail) or self._data is not None

    def _split(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes; a line ends with CR, LF or both."""
        if not data:
            return []
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = data[-1:] == b"\r"
        lines = data.splitlines()
        rest = lines.pop() if data[-1:] not in (b"", b"\r", b"\n") else b""
        lines = self._lines.join(lines, rest, self._too_large)
        if lines and self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._add(value)
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"event":
            self._event = value

    def _add(self, value: bytes) -> None:
        """Append a line of data."""
        if self._data is None:
            self._data = value
        else:
            if type(self._data) is bytes:
                self._data = bytearray(self._data)
            self._data += b"\n"
            self._data += value
        if len(self._data) > self._max:
            self._data = None
            raise self._too_large

    def _event_read(self) -> SseEvent:
        data, kind = bytes(self._data or b""), self._event
        self._data, self._event = None, b""
        return SseEvent(data, self._id, kind.decode("utf-8", "replace") or "message")


def _too_large(what: str, limit: int) -> CallError:
    return CallError(f"{what} of the stream is longer than {limit} bytes", ErrorCode.TOO_LARGE)
