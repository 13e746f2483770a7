"""Stop strings: text ends before the one that is complete first, however the text was cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Holds back text that may become a stop string, until it has or cannot.

    ``hit`` is true once a stop string was found; nothing comes out after that.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """Take more text; give what can be shown."""
        if not self._stops:
            return text
        held = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := held.find(stop)) >= 0]
        self.hit = self.hit or bool(found)
        cut = min(found)[1] if found else len(held) - self._may_become(held)
        self._held = "" if self.hit else held[cut:]
        return held[:cut]

    def flush(self) -> str:
        """Give what is held back: the text is at its end."""
        held, self._held = self._held, ""
        return held

    def _may_become(self, text: str) -> int:
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
