"""Damage as intervals: from the last good frame before it to the first behind it."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from penstock.annotate.media.messages import Hole, Hurt
from penstock.annotate.media.speaker import Speaker
from penstock.annotate.records import seconds_text

NEAR = 30  # frames; damage closer together than this is one interval
SLACK = Fraction(1)  # seconds that a file may end before it says it does


class _Leap(NamedTuple):
    """From one frame to the next: the number of the second, and the seconds of both."""

    number: int
    begin: Fraction | None
    end: Fraction | None

    @property
    def size(self) -> Fraction:
        return Fraction(0) if self.begin is None or self.end is None else self.end - self.begin


class Holes:
    """Joins bad packets to intervals.

    A decoder gives frames later than it takes packets; where some are missing is where time makes a leap.

    Args:
        speaker: Told each interval when it is over.
    """

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._packets = 0
        self._since = 0  # frames since the last bad packet
        self._last: Fraction | None = None
        self._leap: _Leap | None = None
        self.any = False

    def bad(self) -> None:
        """A packet could not be decoded."""
        self._packets += 1
        self._since = 0
        self.corrupt()

    def corrupt(self) -> None:
        """Something is wrong, if only with the pixels of a frame."""
        if not self.any:
            self.any = True
            self._speaker.say(Hurt())

    def frame(self, number: int, seconds: Fraction) -> None:
        """A frame was decoded."""
        before, self._last = self._last, seconds
        if not self._packets:
            return
        leap = _Leap(number, before, seconds)
        if self._leap is None or leap.size > self._leap.size:
            self._leap = leap
        self._since += 1
        if self._since > NEAR:
            self.close(number + 1)

    def close(self, frames: int) -> None:
        """Tell of the interval that is open, if one is.

        Args:
            frames: How many frames there were by now.
        """
        if not self._packets:
            return
        leap = self._leap or _Leap(frames, self._last, None)
        self._say(leap.number, leap.begin, leap.end, self._packets)
        self._packets, self._leap = 0, None

    def end(self, frames: int, end: Fraction, gap: Fraction, declared: Fraction | None) -> None:
        """The file is over.

        Args:
            frames: How many there were.
            end: Where the last of them ends, in seconds.
            gap: Between two frames, in seconds.
            declared: How long the file says it is.
        """
        self.close(frames)
        if declared is not None and end + max(SLACK, 2 * gap) < declared:
            self.any = True
            begin = None if self._last is None else seconds_text(self._last)
            self._speaker.say(
                Hole(frame=frames, begin=begin, end=seconds_text(declared), packets=0, why="truncated")
            )

    def _say(self, number: int, begin: Fraction | None, end: Fraction | None, packets: int) -> None:
        self._speaker.say(
            Hole(
                frame=number,
                begin=None if begin is None else seconds_text(begin),
                end=None if end is None else seconds_text(end),
                packets=packets,
                why="packets",
            )
        )
