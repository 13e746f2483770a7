"""Damage as intervals: from the last good frame before it to the first behind it."""

from __future__ import annotations

from fractions import Fraction

from penstock.annotate.media.child import Speaker
from penstock.annotate.media.messages import Hole, Hurt
from penstock.annotate.records import seconds_text

NEAR = 30  # frames; damage closer together than this is one interval
SLACK = Fraction(1)  # seconds that a file may end before it says it does


class Holes:
    """Joins bad packets to intervals.

    Args:
        speaker: Told each when it is over.
    """

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._packets = 0
        self._begin: Fraction | None = None  # the last frame before the interval that is open
        self._behind: tuple[int, Fraction] | None = None  # the first frame behind its last bad packet
        self._last: Fraction | None = None
        self.any = False

    def bad(self) -> None:
        """A packet could not be decoded."""
        if not self._packets:
            self._begin = self._last
        self._packets += 1
        self._behind = None
        if not self.any:
            self.any = True
            self._speaker.say(Hurt())

    def frame(self, number: int, seconds: Fraction) -> None:
        """A frame was decoded."""
        self._last = seconds
        if not self._packets:
            return
        if self._behind is None:
            self._behind = (number, seconds)
        elif number - self._behind[0] >= NEAR:
            self.close(number)

    def close(self, frames: int) -> None:
        """Tell of the interval that is open, if one is."""
        if not self._packets:
            return
        number, seconds = self._behind or (frames, None)
        self._say(number, self._begin, seconds, self._packets)
        self._packets, self._behind = 0, None

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
