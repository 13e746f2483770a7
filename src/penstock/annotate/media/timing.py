"""When frames are shown: exact seconds, whatever a container gives; in the decoding process only."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from penstock.annotate.media.messages import Place

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

RATE = Fraction(25)  # where nothing at all is said
MICROSECONDS = 1_000_000


class Timing:
    """Tells the seconds of each frame from the first one.

    Args:
        stream: Whose frames these are.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._base = exact(stream.time_base) if stream.time_base else Fraction(1, 1)
        self.base_text = str(self._base)
        rate = stream.average_rate or stream.guessed_rate
        self.gap = 1 / exact(rate) if rate else 1 / RATE
        self._origin: int | None = None
        self._last: Fraction | None = None
        self._latest = Fraction(0)

    @classmethod
    def from_place(cls, stream: VideoStream, place: Place) -> Timing:
        """Return the timing of a stream of which a frame is known that has a time stamp."""
        timing = cls(stream)
        assert place.pts is not None
        timing._origin = place.pts - int(Fraction(place.t) / timing._base)
        return timing

    def of(self, frame: VideoFrame) -> tuple[Fraction, bool]:
        """Return the seconds of a frame, and whether they are guessed as it has no time stamp."""
        if frame.pts is None:
            seconds = Fraction(0) if self._last is None else self._last + self.gap
        else:
            if self._origin is None:
                self._origin = (
                    frame.pts if self._last is None else frame.pts - self._ticks(self._last + self.gap)
                )
            seconds = (frame.pts - self._origin) * self._base
        self._last, self._latest = seconds, max(self._latest, seconds)
        return seconds, frame.pts is None

    def reaches(self, pts: int) -> Fraction:
        """Note that frames go on up to a time stamp; returns its seconds."""
        seconds = (pts - (self._origin or 0)) * self._base
        self._latest = max(self._latest, seconds)
        return seconds

    @property
    def end(self) -> Fraction:
        """Seconds from the first frame to the end of the last one so far."""
        return self._latest + self.gap

    def _ticks(self, seconds: Fraction) -> int:
        return int(seconds / self._base)


def exact(value: Any) -> Fraction:
    """Return a fraction of FFmpeg's, of whatever type this PyAV has for it."""
    return Fraction(value.numerator, value.denominator)


def declared_seconds(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Return how long a file says that its video is; None where it does not."""
    if stream.duration and stream.time_base:
        return stream.duration * exact(stream.time_base)
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, MICROSECONDS)
    return None
