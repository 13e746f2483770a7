"""Which regions of different frames are one object.

Boxes are followed by IoU, against where a constant velocity would have taken them.  The ids are given with
hindsight: an object that is confirmed has its id from the first frame it was seen in, so frames are held back
until nothing can change in them any more.  All of it follows from the regions alone; a run that goes on
replays those in its log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import msgspec

from penstock.annotate.overlaps import iou
from penstock.annotate.records import Box, Frame, Region, region_id

PLACES = 4  # decimals of a pixel that are kept of a box


class Tracking(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How objects are followed.

    Args:
        iou: Least IoU of a region and where its object is expected.
        hits: In how many frames in a row something is seen before it is an object.
        lost_s: For how many seconds an object may go unseen.
        fill_s: An object that goes unseen for at most so many seconds is written where it must have been
            meanwhile, on a straight line, with ``interpolated`` as its ``src``.
    """

    iou: float = 0.3
    hits: int = 3
    lost_s: float = 1.0
    fill_s: float = 0.0


class _Object:
    """Something that is followed: where it was seen last, how fast it moves, its regions without an id."""

    __slots__ = ("at", "box", "hits", "label", "name", "pending", "speed", "unseen")

    def __init__(self, label: str, box: Box, at: Fraction) -> None:
        self.label = label
        self.box = box
        self.at = at
        self.speed: Box = (0.0, 0.0, 0.0, 0.0)  # pixels a second, of each side
        self.hits = 1
        self.name: str | None = None
        self.pending: list[tuple[_Held, int]] = []
        self.unseen: list[_Held] = []  # frames since it was seen last, which it may still be written to

    def expected(self, at: Fraction) -> Box:
        """Where it will be."""
        passed = float(at - self.at)
        x1, y1, x2, y2 = (side + speed * passed for side, speed in zip(self.box, self.speed, strict=True))
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else self.box

    def seen(self, box: Box, at: Fraction) -> None:
        """It is there now."""
        passed = float(at - self.at)
        if passed > 0:
            # Half of what is new: a box that trembles is not believed at once.
            weight = 1.0 if self.hits == 1 else 0.5
            now = tuple((new - old) / passed for new, old in zip(box, self.box, strict=True))
            a, b, c, d = (weight * new + (1 - weight) * old for new, old in zip(now, self.speed, strict=True))
            self.speed = (a, b, c, d)
        self.box, self.at = box, at
        self.hits += 1


class _Held:
    """A frame that is held back, the ids its regions have by now, and how many objects may still get one."""

    __slots__ = ("filled", "frame", "open", "tracks")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.tracks: list[str | None] = [region.track for region in frame.regions]
        self.filled: list[Region] = []
        self.open = 0


class Tracker:
    """Gives the regions of one file after another their tracks.

    Args:
        settings: How objects are followed.
    """

    def __init__(self, settings: Tracking) -> None:
        self._settings = settings
        self._objects: list[_Object] = []
        self._held: deque[_Held] = deque()
        self._count = 0
        self._file: tuple[str, str] | None = None

    def feed(self, frame: Frame) -> Iterator[Frame]:
        """Take a frame; yield those that are final now, in order."""
        if self._file != (frame.src, frame.name):
            yield from self.flush()
            self._file, self._count = (frame.src, frame.name), 0
        held = _Held(frame)
        self._held.append(held)
        now = frame.seconds
        self._forget(now)
        pairs, left = self._matched(frame.regions, now)
        for one, at in pairs:
            _fill(one, frame.regions[at].box, now)
            one.seen(frame.regions[at].box, now)
            self._name(one, held, at)
        met = {id(one) for one, _ in pairs}
        self._miss([one for one in self._objects if id(one) not in met], held)
        for at in left:
            one = _Object(frame.regions[at].label, frame.regions[at].box, now)
            self._objects.append(one)
            self._name(one, held, at)
        yield from self._final()

    def flush(self) -> Iterator[Frame]:
        """Yield what is held back: nothing more comes of this file."""
        self._drop(self._objects)
        yield from self._final()

    # -- inside --------------------------------------------------------------------------------------

    def _matched(
        self, regions: tuple[Region, ...], now: Fraction
    ) -> tuple[list[tuple[_Object, int]], list[int]]:
        """Return which object each region is, the surest pairs first, and the regions that are none."""
        places = [(one, one.expected(now)) for one in self._objects]
        pairs = sorted(
            (-shared, number, at)
            for number, (one, place) in enumerate(places)
            for at, region in enumerate(regions)
            if one.label == region.label
            and region.src != "interpolated"
            # Where it was counts as well: things stop, and what moves by frames does not move by time.
            and (shared := max(iou(place, region.box), iou(one.box, region.box))) >= self._settings.iou
        )
        taken: dict[int, int] = {}
        free = {at for at, region in enumerate(regions) if region.src != "interpolated"}
        for _, number, at in pairs:
            if number not in taken and at in free:
                taken[number] = at
                free.discard(at)
        return [(places[number][0], at) for number, at in sorted(taken.items())], sorted(free)

    def _name(self, one: _Object, held: _Held, at: int) -> None:
        """Note that a region is of an object; give it, and those before it, its id if it has one by now."""
        one.pending.append((held, at))
        held.open += 1
        if one.name is None and one.hits >= self._settings.hits:
            self._count += 1
            one.name = f"t{self._count}"
        if one.name is not None:
            self._settle(one)

    def _settle(self, one: _Object) -> None:
        for held, at in one.pending:
            held.tracks[at] = one.name
            held.open -= 1
        one.pending.clear()

    def _miss(self, unseen: list[_Object], held: _Held) -> None:
        """Objects are not in a frame: those that are none yet will never be, the others may come back."""
        self._drop([one for one in unseen if one.name is None])
        for one in unseen:
            if one.name is not None and held.frame.seconds - one.at <= self._settings.fill_s:
                one.unseen.append(held)
                held.open += 1

    def _forget(self, now: Fraction) -> None:
        for one in self._objects:
            if now - one.at > self._settings.fill_s:
                _give_up(one)
        self._drop([one for one in self._objects if now - one.at > self._settings.lost_s])

    def _drop(self, gone: Iterable[_Object]) -> None:
        dropped = list(gone)
        for one in dropped:
            self._settle(one)
            _give_up(one)
        names = {id(one) for one in dropped}
        self._objects = [one for one in self._objects if id(one) not in names]

    def _final(self) -> Iterator[Frame]:
        while self._held and not self._held[0].open:
            held = self._held.popleft()
            yield _with_tracks(held)


def _give_up(one: _Object) -> None:
    for held in one.unseen:
        held.open -= 1
    one.unseen.clear()


def _fill(one: _Object, box: Box, now: Fraction) -> None:
    """An object is seen again: write it to the frames between, on the straight line to its new place."""
    for held in one.unseen:
        share = float((held.frame.seconds - one.at) / (now - one.at))
        x1, y1, x2, y2 = (
            round(old + share * (new - old), PLACES) for old, new in zip(one.box, box, strict=True)
        )
        frame = held.frame
        name = region_id(frame.src, frame.frame, (one.label, one.name, x1, y1, x2, y2), frame.name)
        held.filled.append(
            Region(id=name, label=one.label, box=(x1, y1, x2, y2), track=one.name, src="interpolated")
        )
    _give_up(one)


def _with_tracks(held: _Held) -> Frame:
    if not any(held.tracks) and not held.filled:
        return held.frame
    regions = (
        msgspec.structs.replace(region, track=track)
        for region, track in zip(held.frame.regions, held.tracks, strict=True)
    )
    return msgspec.structs.replace(held.frame, regions=(*regions, *held.filled))
