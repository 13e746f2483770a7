"""Text and token ids as SGLang streams them, cut into what is new.

An event of its native stream repeats everything so far; a server started with
``--incremental-streaming-output`` sends the new part only.  Which one it is shows in the counts: ids that are
as many as the tokens generated so far are all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

# What a tokenizer shows for a character whose bytes are not all there yet; the next token may replace it.
_UNFINISHED = "\ufffd"


class Changed(ValueError):
    """The server took back what it had said, or counts what it has not sent."""


class Ids:
    """Token ids as JSON, of which only the end is read: all of them, for each token, would take too long.

    Args:
        raw: A list of whole numbers; empty or ``null`` is none.
    """

    __slots__ = ("_length", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw[1:-1].strip() if raw[:1] == b"[" else b""
        self._length = self._raw.count(b",") + 1 if self._raw else 0

    def __len__(self) -> int:
        return self._length

    def last(self, count: int) -> list[int]:
        """Return the last ``count`` of them.

        Raises:
            Changed: They are no whole numbers.
        """
        if count <= 0:
            return []
        tail = self._raw.rsplit(b",", count)[-count:]
        try:
            return _numbers.decode(b"[%b]" % b",".join(tail))
        except msgspec.DecodeError:
            raise Changed("its token ids are no numbers") from None


_numbers = msgspec.json.Decoder(list[int])


class Growing:
    """The answer so far, and how much of it was shown.

    Held back is what may still change: a character that is not whole, and the beginning of a stop string,
    which SGLang cuts off once the whole of it is there.

    Args:
        stops: The stop strings of the request.
    """

    __slots__ = ("_ids", "_shown", "_stops", "_text", "_whole")

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._text = ""
        self._shown = 0
        self._ids = 0
        self._whole = True

    def feed(self, text: str, ids: Ids, count: int) -> tuple[str, list[int]]:
        """Take the text and ids of an event, and its count of tokens; return what is new and will stay.

        Raises:
            Changed: It does not continue what came before.
        """
        fresh = self._take(text, ids, count)
        return self._show(len(self._text) - self._open()), fresh

    def end(self, text: str, ids: Ids, count: int, matched: object = None) -> tuple[str, list[int]]:
        """Take the last event, and return all that is left.

        Args:
            matched: The stop string that was found, if one was.

        Raises:
            Changed: It does not continue what came before.
        """
        fresh = self._take(text, ids, count)
        # All of the text comes cut at the stop string; a part of it cannot take back the parts before.
        cut = 0 if self._whole or not isinstance(matched, str) else _overlap(self._text, matched)
        return self._show(len(self._text) - cut), fresh

    def _take(self, text: str, ids: Ids, count: int) -> list[int]:
        self._whole = self._whole and not 0 < len(ids) < count
        if not self._whole:
            self._text += text
            self._ids += len(ids)
            return ids.last(len(ids))
        kept = self._text[: self._shown]
        if not text.startswith(kept):
            raise Changed("the text does not continue what it said before")
        if 0 < len(ids) < self._ids:
            raise Changed("it sends fewer tokens than before")
        self._text = text
        fresh = ids.last(len(ids) - self._ids)
        self._ids += len(fresh)
        return fresh

    def _show(self, upto: int) -> str:
        shown = self._text[self._shown : upto]
        self._shown += len(shown)
        return shown

    def _open(self) -> int:
        """How many characters at the end may still change."""
        text = self._text
        unfinished = len(text) - len(text.rstrip(_UNFINISHED)) if text.endswith(_UNFINISHED) else 0
        begun = max((_overlap(text, stop) for stop in self._stops), default=0)
        return max(unfinished, begun)


def _overlap(text: str, stop: str) -> int:
    """How much of the end of ``text`` begins ``stop``."""
    for size in range(min(len(stop), len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
