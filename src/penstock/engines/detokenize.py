"""Tokens to text as they come: never half a character, and the spaces the whole text would have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"
# A character of UTF-8 has four bytes at most: what is no character after this many tokens will never be one.
_LONGEST_CHARACTER = 4
# A token may look different behind another one, so a few are decoded again; this many bound what that costs.
_WINDOW = 16


class Detokenizer:
    """Gives the text of tokens piece by piece; all pieces together are what ``decode`` makes of all tokens.

    Where the tokens are no valid UTF-8, a decoder may take back characters it gave before (the byte fallback
    of SentencePiece does); what was given stays given then.

    Args:
        decode: Makes text of token ids, with a replacement character for each part that is no character.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._shown = 0
        self._broken_for = 0
        self._last_whole = 0

    def feed(self, token: int) -> str:
        """Take one more token; give what can be shown."""
        self._window.append(token)
        text = self._decode(self._window)
        if not text.endswith(_BROKEN):
            piece = self._show(text)
            self._whole()
            return piece
        self._broken_for += 1
        # Its last replacement character may still become a real one.
        return self._show(text[:-1]) if self._broken_for >= _LONGEST_CHARACTER else ""

    def flush(self) -> str:
        """Give what is held back: the tokens are at their end."""
        return self._show(self._decode(self._window)) if self._broken_for else ""

    def _show(self, text: str) -> str:
        piece = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return piece

    def _whole(self) -> None:
        """Every character is complete: let tokens go that what follows cannot depend on."""
        self._broken_for = 0
        begin, self._last_whole = self._last_whole, len(self._window)
        if self._last_whole < _WINDOW:
            return
        kept = self._window[begin:]
        text = self._decode(kept)
        if not text:
            # Without text before it, the next token would be taken for the first one and lose its space.
            return
        self._window, self._shown, self._last_whole = kept, len(text), len(kept)
