"""How fast something that is held is given back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_REMEMBERED = 64


class DrainRate:
    """Measures how much is given back each second, while any is held; of the last 64 times.

    Args:
        monotonic: Seconds that only go forward.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._holders = 0
        self._since = 0.0
        self._busy_s = 0.0
        self._given: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=_REMEMBERED)

    def taken(self) -> None:
        """Note that somebody holds some now."""
        if not self._holders:
            self._since = self._monotonic()
        self._holders += 1

    def given_back(self, amount: int) -> None:
        """Note that somebody has given all of theirs back."""
        self._given.append((self._clock(), amount))
        self._holders -= 1
        if not self._holders:
            self._busy_s = self._given[-1][0]

    def per_second(self) -> float | None:
        """Return the rate; None as long as nothing was given back."""
        began, _ = self._given[0]
        amount = sum(amount for _, amount in self._given) - self._given[0][1]
        spent_s = self._clock() - began
        return amount / spent_s if amount and spent_s > 0 else None

    def _clock(self) -> float:
        """Return the seconds during which any was held."""
        return self._busy_s + (self._monotonic() - self._since if self._holders else 0.0)
