"""How often streams may be opened: a runner that is broken may open thousands a second."""

from __future__ import annotations

BURST = 200.0  # as many streams as a replica may open at once
PER_S = 20.0


class OpenRate:
    """Tells when a stream is to be taken; those that were of use cost nothing.

    Args:
        burst: So many at once.
        per_s: And so many more each second.
    """

    def __init__(self, burst: float = BURST, per_s: float = PER_S) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at = 0.0

    def take(self, now: float) -> float:
        """Count a stream that opens; returns after how many seconds it is to be taken.

        Args:
            now: Seconds that only go forward.
        """
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        self._left -= 1
        return max(0.0, -self._left / self._per_s)

    def give_back(self) -> None:
        """A stream was of use, or it was this side that ended it."""
        self._left = min(self._burst, self._left + 1)

    def idle_at(self, now: float) -> bool:
        """Whether nothing of it is left to remember."""
        return self._left + (now - self._at) * self._per_s >= self._burst
