"""Which frames of a file are looked at.

What is chosen depends on the file alone: a run that goes on in the middle chooses what a whole one does.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor

import msgspec

THUMB = 32  # pixels; the side of the grey picture by which scenes are told apart
SCENE = 12.0  # grey levels, of 255

_SLACK = Fraction(2)  # seconds; frames of some containers do not come in the order of their times


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which frames are chosen.  At most one of the first five can be set; by default it is every frame.

    Args:
        every: Each so manyth frame, from the first.
        fps: So many per second, by time: of each interval the first frame in it.  Text, such as ``2`` or
            ``30000/1001``.
        keyframes: Those that are stored whole.
        scenes: The first of each scene: those whose grey picture differs from that of the frame before by
            more than this, on the average, of 255.
        frames: These, by number.
        begin: Seconds from the first frame on which the first may be chosen; text, exact.
        end: Seconds before which the last may be chosen; text, exact.
        limit: So many of each file at most.

    Raises:
        ValueError: It is contradictory, or a number is out of range.
    """

    every: int | None = None
    fps: str | None = None
    keyframes: bool = False
    scenes: float | None = None
    frames: tuple[int, ...] | None = None
    begin: str | None = None
    end: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        ways = {"every": self.every, "fps": self.fps, "scenes": self.scenes, "frames": self.frames}
        chosen = [name for name, value in ways.items() if value is not None]
        chosen += ["keyframes"] if self.keyframes else []
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} cannot be combined; choose one")
        if self.every is not None and self.every < 1:
            raise ValueError(f"every is {self.every}; it must be at least 1")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}; it must be at least 1")
        for name in ("fps", "begin", "end"):
            _check_number(name, getattr(self, name), positive=name == "fps")


class Sampler:
    """Chooses the frames of one file, which are shown to it in decode order.

    Args:
        sampling: What is asked for.

    Attributes:
        count: How many frames were chosen.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._every = sampling.every or 1
        self._step = None if sampling.fps is None else 1 / Fraction(sampling.fps)
        self._keyframes = sampling.keyframes
        self._scenes = sampling.scenes
        self._frames = None if sampling.frames is None else frozenset(sampling.frames)
        self._last = None if sampling.frames is None else max(sampling.frames, default=-1)
        self._begin = Fraction(sampling.begin or 0)
        self._end = None if sampling.end is None else Fraction(sampling.end)
        self._ranged = sampling.begin is not None
        self._due = self._begin
        self._before: bytes | None = None
        self._limit = sampling.limit
        self.count = 0

    def wants(self, frame: int, seconds: Fraction, keyframe: bool, grey: Callable[[], bytes]) -> bool:
        """Whether a frame is chosen; each is asked about once, in order.

        Args:
            frame: Its number.
            seconds: Its time from the first frame.
            keyframe: Whether it is stored whole.
            grey: Returns its grey picture, ``THUMB`` by ``THUMB``; called only where scenes are asked for.
        """
        chosen = self._chooses(frame, seconds, keyframe, grey)
        if chosen:
            self.count += 1
        return chosen and (self._limit is None or self.count <= self._limit)

    def is_over(self, frame: int, seconds: Fraction) -> bool:
        """Whether no frame behind this one can be chosen."""
        if self._limit is not None and self.count >= self._limit:
            return True
        if self._last is not None and frame >= self._last:
            return True
        return self._end is not None and seconds >= self._end + _SLACK

    def _chooses(self, frame: int, seconds: Fraction, keyframe: bool, grey: Callable[[], bytes]) -> bool:
        cut = self._is_cut(grey()) if self._scenes is not None else True
        if (self._ranged and seconds < self._begin) or (self._end is not None and seconds >= self._end):
            return False
        if self._frames is not None:
            return frame in self._frames
        if self._keyframes:
            return keyframe
        if self._step is not None:
            return self._is_due(seconds, self._step)
        return cut and frame % self._every == 0

    def _is_due(self, seconds: Fraction, step: Fraction) -> bool:
        if seconds < self._due:
            return False
        self._due = self._begin + (floor((seconds - self._begin) / step) + 1) * step
        return True

    def _is_cut(self, picture: bytes) -> bool:
        before, self._before = self._before, picture
        if before is None:
            return True
        total = sum(abs(a - b) for a, b in zip(before, picture, strict=True))
        return total > (self._scenes or 0.0) * len(picture)


def _check_number(name: str, value: str | None, *, positive: bool) -> None:
    if value is None:
        return
    try:
        number = Fraction(value)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{name} is {value!r}; write a number, such as 2 or 30000/1001") from error
    if number < 0 or (positive and not number):
        raise ValueError(f"{name} is {value}; it must be {'more than' if positive else 'at least'} 0")
