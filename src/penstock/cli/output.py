"""What a call prints on standard output."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from penstock.protocol.messages import Frame


class TextOutput:
    """Prints items as they come: their text where they have one, else JSON, one to a line."""

    def __init__(self) -> None:
        self._within_line = False

    def item(self, item: Any) -> None:
        """Print one item."""
        text = item.get("chunk") if isinstance(item, dict) else item
        if isinstance(text, str):
            self._text(text)
        else:
            self.end_line()
            print(_json(item), flush=True)

    def end_line(self) -> None:
        """End a line of text that was begun."""
        if self._within_line:
            print(flush=True)
            self._within_line = False

    def _text(self, text: str) -> None:
        print(text, end="", flush=True)
        if text:
            self._within_line = not text.endswith("\n")


def print_answer(answer: Any, *, compact: bool) -> None:
    """Print the answer of a call that did not stream, as JSON."""
    print(_json(answer) if compact else json.dumps(answer, indent=2, ensure_ascii=False))


def print_frame(frame: Frame) -> None:
    """Print a frame as one line of JSON."""
    print(msgspec.json.encode(frame).decode(), flush=True)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
