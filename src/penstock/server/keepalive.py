"""Keeps silent streams alive: proxies close a connection on which nothing moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.calls.clock import Clock, Timer
from penstock.protocol.dispatch import FrameReader

_LOOKS = 3  # per period, so that a stream is silent for at most one period


class Pulse:
    """How often in a row a stream was found silent; whoever writes to it sets ``quiet`` to 0."""

    __slots__ = ("quiet", "reader")

    def __init__(self, reader: FrameReader) -> None:
        self.reader = reader
        self.quiet = 0


class KeepAlive:
    """Nudges the readers of streams that were silent for nearly a period.

    One timer looks at all streams, so that a token costs them no more than an assignment.

    Args:
        clock: Tells the time.
        period_s: Seconds a stream may be silent at most.
    """

    def __init__(self, clock: Clock, period_s: float) -> None:
        self._clock = clock
        self._interval_s = period_s / _LOOKS
        self._pulses: set[Pulse] = set()
        self._timer: Timer | None = None

    @contextmanager
    def watching(self, reader: FrameReader) -> Iterator[Pulse]:
        """Look after ``reader`` while the block lasts."""
        pulse = Pulse(reader)
        self._pulses.add(pulse)
        if self._timer is None:
            self._timer = self._clock.call_later(self._interval_s, self._look)
        try:
            yield pulse
        finally:
            self._pulses.discard(pulse)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._clock.call_later(self._interval_s, self._look) if self._pulses else None
        for pulse in tuple(self._pulses):
            pulse.quiet += 1
            if pulse.quiet >= _LOOKS:
                pulse.reader.nudge()
