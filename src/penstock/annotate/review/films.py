"""Videos as people left them: trails of key frames, and what is shown in a frame between these."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from penstock.annotate.formats.dataset import Dataset, is_still
from penstock.annotate.keyframes import Values, between
from penstock.annotate.records import Frame
from penstock.annotate.review.given import Drawn, Given
from penstock.annotate.shapes.kinds import around
from penstock.annotate.shapes.lines import around_lines


class Key(NamedTuple):
    """A shape of a trail.

    Attributes:
        frame: Where it stands, counted from 0.
        drawn: What it is; None: from here on it is away.
        stays: Whether it is shown until the next one.
        values: The numbers of a box, which say where it is; tools interpolate each of them.
    """

    frame: int
    drawn: Drawn | None
    stays: bool = True
    values: Values = ()


class Trail(NamedTuple):
    """A thing in a video.

    Attributes:
        keys: Its key frames, rising.
        draw: Puts a box where numbers say, in a picture of a width and a height.
        shortest: Whether the last of the numbers is an angle that turns the shorter way.
    """

    keys: Sequence[Key]
    draw: Callable[[Values, Drawn, tuple[int, int]], Drawn]
    shortest: bool = False

    def shown(self, frame: int, size: tuple[int, int]) -> Drawn | None:
        """Return what is shown of it in a frame, and who says so."""
        at = bisect_right(self.keys, frame, key=lambda key: key.frame) - 1
        if at < 0:
            return None
        key, following = self.keys[at], self.keys[at + 1] if at + 1 < len(self.keys) else None
        drawn = key.drawn
        if drawn is None or not (key.frame == frame or key.stays):
            return None
        values = key.values
        if key.frame != frame:
            # What is said of the key frame by its id is not said of this one.
            drawn = drawn._replace(region=None, src="interpolated")
            if values and following is not None and following.drawn is not None and following.values:
                values = self._between(key, following, frame)
        return self.draw(values, drawn, size) if values else drawn

    def _between(self, key: Key, following: Key, frame: int) -> Values:
        *rest, angle = following.values
        if self.shortest:
            angle += 360 * round((key.values[-1] - angle) / 360)
        return between((key.frame, key.values), (following.frame, (*rest, angle)), frame)


class Film(NamedTuple):
    """A video, by its file's name or, where that says nothing, by the ids of the regions in it.

    Attributes:
        name: What the tool calls it.
        size: Width and height; zeros: it is not told.
        trails: What is in it.
        first: The first frame that was to be looked at, and ``last`` the last; None: the video's.
        lines: Whether the tool has polylines.
    """

    name: str
    size: tuple[int, int]
    trails: Sequence[Trail]
    first: int = 0
    last: int | None = None
    lines: bool = False

    @property
    def ids(self) -> frozenset[str]:
        """The ids of regions that are told of."""
        drawn = (key.drawn for trail in self.trails for key in trail.keys)
        return frozenset(one.region for one in drawn if one is not None and one.region is not None)

    def holds(self, frame: int) -> bool:
        """Whether a frame was to be looked at."""
        return frame >= self.first and (self.last is None or frame <= self.last)

    def given(self, frame: Frame) -> Given:
        """Return what is in a frame."""
        ids = {region.id for region in frame.regions}
        size = (frame.w, frame.h)
        drawn = [one for trail in self.trails if (one := trail.shown(frame.frame, size)) is not None]
        # A key frame that was made of another one has the id of that.
        mine = (one if one.region in ids else one._replace(region=None) for one in drawn)
        name = f"{self.name}, frame {frame.frame}"
        return Given(name, frame.name, frame.frame, self.size, tuple(joined(list(mine))), None, self.lines)


def films_by_name(films: Sequence[Film], data: Dataset) -> tuple[dict[str, Film], list[str]]:
    """Return videos by the files of a log that they are of, and the names of those that are of none.

    The ids of regions tell best; then the name; and one video is that of a log of one.
    """
    names = [name for name, source in data.sources.items() if not is_still(source)]
    ids: dict[str, set[str]] = {name: set() for name in names}
    for shot in data.shots() if films else ():
        ids.get(shot.frame.name, set()).update(region.id for region in shot.frame.regions)
    found: dict[str, Film] = {}
    unknown: list[str] = []
    for film in films:
        name = _name(film, ids)
        if name is None or name in found:
            unknown.append(film.name)
        else:
            found[name] = film
    return found, unknown


def _name(film: Film, ids: Mapping[str, set[str]]) -> str | None:
    shared = {name: len(known & film.ids) for name, known in ids.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    if best is not None and shared[best]:
        return best
    short = film.name.rsplit("/", 1)[-1]
    called = [name for name in ids if name == film.name] or [
        name for name in ids if name.rsplit("/", 1)[-1] == short
    ]
    return called[0] if len(called) == 1 else best if len(ids) == 1 else None


def joined(drawn: Sequence[Drawn]) -> list[Drawn]:
    """Return regions with all that tools tell of them one by one: their parts, and their keypoints."""
    found: dict[object, list[Drawn]] = {}
    for number, one in enumerate(drawn):
        found.setdefault(one.track or one.region or number, []).append(one)
    return [_joined(some) if len(some) > 1 else some[0] for some in found.values()]


def _joined(some: list[Drawn]) -> Drawn:
    shapes = [one for one in some if one.kp is None]
    points = next((one.kp for one in some if one.kp is not None), None)
    whole = shapes[0] if shapes else some[0]
    polys = tuple(part for one in shapes for part in one.polys or ())
    if polys and len(shapes) > 1:
        whole = whole._replace(polys=polys, box=around(polys))
    lines = tuple(line for one in shapes for line in one.lines or ())
    if lines and not polys and all(one.lines for one in shapes):
        whole = whole._replace(box=around_lines(lines))
    elif lines:  # a box or a shape that lines belong to tells where it is
        whole = next(one for one in shapes if not one.lines)._replace(polys=whole.polys or polys or None)
    return whole._replace(kp=points, lines=lines or None)
