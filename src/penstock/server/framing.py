"""Where a request ends in the bytes of a connection.

The parser is never fed past that place while an answer is due: what is behind it waits unread, so that a
client can be watched however many requests it has sent ahead, and so that one request is taken at a time.
"""

from __future__ import annotations

from typing import Final

_END: Final = b"\r\n\r\n"  # of a head, and of a chunked body: RFC 9112 sections 2.1 and 7.1
_OVERLAP: Final = len(_END) - 1


class Boundary:
    """Cuts bytes so that each part ends at the latest where the message may end."""

    __slots__ = ("_left", "_tail")

    def __init__(self) -> None:
        self._left: int | None = None
        self._tail = b""

    def head(self) -> None:
        """Expect a head, or what stands like one: it ends with an empty line."""
        self._left, self._tail = None, b""

    chunked = head

    def sized(self, size: int) -> None:
        """Expect a body of ``size`` bytes."""
        self._left = size

    def cut(self, data: bytes | bytearray, begin: int) -> int:
        """Return where the part of ``data`` that begins at ``begin`` ends; it counts as taken."""
        if self._left is not None:
            end = min(len(data), begin + self._left)
            self._left -= end - begin
            return end
        return self._empty_line(data, begin)

    def _empty_line(self, data: bytes | bytearray, begin: int) -> int:
        before, self._tail = self._tail, b""
        if before:  # it may have begun in the part before
            found = (before + data[begin : begin + _OVERLAP]).find(_END)
            if found >= 0:
                return begin + found + len(_END) - len(before)
        found = data.find(_END, begin)
        if found >= 0:
            return found + len(_END)
        self._tail = (before + data[max(begin, len(data) - _OVERLAP) :])[-_OVERLAP:]
        return len(data)
