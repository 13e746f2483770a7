"""A log as a data set: every frame by its file name, and what a format must know of the whole beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain, count
from pathlib import PurePosixPath
from typing import NamedTuple

from penstock.annotate.keyframes import Reduction
from penstock.annotate.records import Frame, Lines, Region, Source
from penstock.annotate.shapes.lines import clip_lines

# Boxes thinner than this, in pixels, are none: formats that round to hundredths would give them no area.
THIN = 0.02


class Shot(NamedTuple):
    """A frame, its number among all that are written (from 1), and what its picture is called.

    Attributes:
        file_name: Its picture, with folders.
        stem: The same without what stands for its kind; of no two frames the same.
        flat: A name without folders and kind, for formats that go by those; of no two frames the same.
    """

    frame: Frame
    number: int
    file_name: str
    stem: str
    flat: str
    source: Source

    @property
    def flat_name(self) -> str:
        """The picture by its flat name."""
        return self.flat + PurePosixPath(self.file_name).suffix

    @property
    def regions(self) -> list[Region]:
        """The regions whose boxes have an area in the picture."""
        return [region for region in self.frame.regions if self.holds(region)]

    @property
    def drawable(self) -> list[Region]:
        """The regions that can be drawn: boxes that have an area in the picture, and polylines in it."""
        return [region for region in self.frame.regions if self.holds(region) or self.holds_lines(region)]

    def lines(self, region: Region) -> Lines:
        """Return what of a region's polylines is in the picture."""
        return clip_lines(region.lines or (), self.frame.w, self.frame.h)

    def holds_lines(self, region: Region) -> bool:
        """Whether some of a region's polylines are in the picture."""
        return bool(region.lines) and bool(self.lines(region))

    def holds(self, region: Region) -> bool:
        """Whether a region's box has an area in the picture."""
        x1, y1, x2, y2 = region.box
        return min(x2, self.frame.w) - max(x1, 0.0) > THIN and min(y2, self.frame.h) - max(y1, 0.0) > THIN

    def clipped(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Return what of a box lies in the picture."""
        x1, y1, x2, y2 = box
        width, height = self.frame.w, self.frame.h
        left, top = min(max(x1, 0.0), width), min(max(y1, 0.0), height)
        return (left, top, min(max(x2, left), width), min(max(y2, top), height))


class Survey(NamedTuple):
    """What is to be known of a whole log.

    Attributes:
        labels: Of regions and frames, in alphabetical order.
        keypoints: How many keypoints regions of a label have at most, for those that have any.
        attributes: The names of attributes, in alphabetical order.
        sizes: Width and height of the first frame of each file.
        last: The last frame of each track of each file: ``(file, track)``.
        used: Which kinds of shapes there are: ``box``, ``rotated``, ``shape``, ``lines``, ``keypoints`` and
            ``tags``.
    """

    labels: tuple[str, ...]
    keypoints: Mapping[str, int]
    attributes: tuple[str, ...]
    sizes: Mapping[str, tuple[int, int]]
    last: Mapping[tuple[str, str], int]
    used: frozenset[str]


class Dataset:
    """The frames of a log, which can be read again and again, and what is known of their files.

    Args:
        frames: Returns the frames from the first on, each time it is called.
        sources: The files, from the manifest; of a file that is not among them it is taken that it is a video
            if its frames have times other than zero, and an image if not.
        model: Name and version of what made the annotations.
        reduction: What formats that have key frames may leave to interpolation; None: nothing.
    """

    def __init__(
        self,
        frames: Callable[[], Iterable[Frame]],
        sources: Iterable[Source] = (),
        model: str = "",
        reduction: Reduction | None = None,
    ) -> None:
        self._frames = frames
        self._given = {source.name: source for source in sources}
        self.model = model
        self.reduction = reduction

    def shots(self) -> Iterator[Shot]:
        """Yield every frame, in the order of the log."""
        for number, frame in enumerate(self._frames(), 1):
            source = self.sources[frame.name]
            stem, flat = self.stems[frame.name], self._flat[frame.name]
            if is_still(source):
                yield Shot(frame, number, _safe(frame.name), stem, flat, source)
            else:
                place = f"_{frame.frame:06d}"
                yield Shot(frame, number, f"{stem}{place}.png", f"{stem}{place}", f"{flat}{place}", source)

    def where(self, keep: Callable[[Frame], bool]) -> Dataset:
        """Return the data set of some of the frames, their pictures called as they are here."""
        some = Dataset(lambda: filter(keep, self._frames()), (), self.model, self.reduction)
        some.__dict__["sources"] = self.sources  # by which everything is named
        return some

    @cached_property
    def sources(self) -> Mapping[str, Source]:
        """The files by name, in the order of the log."""
        found: dict[str, Source] = {}
        for frame in self._frames():
            known = found.get(frame.name)
            if known is None:
                kept = self._given.get(frame.name)
                found[frame.name] = kept or Source(name=frame.name, digest=frame.src, kind="image", bytes=0)
            elif known.kind == "image" and frame.name not in self._given:
                found[frame.name] = Source(name=frame.name, digest=frame.src, kind="video", bytes=0)
        return found

    @cached_property
    def survey(self) -> Survey:
        """What is to be known of the whole."""
        return _survey(self._frames())

    @cached_property
    def stems(self) -> Mapping[str, str]:
        """What files are called in the names of pictures; of videos also the names of folders."""
        return self._named(_safe)

    @cached_property
    def _flat(self) -> Mapping[str, str]:
        return self._named(lambda name: _safe(name).replace("/", "__"))

    def _named(self, path: Callable[[str], str]) -> Mapping[str, str]:
        """Return the files by paths without what stands for their kind, no two pictures the same."""
        found: dict[str, str] = {}
        taken: set[str] = set()
        # A picture may be called what a frame of a video is: the video gets another name.
        for name, source in sorted(self.sources.items(), key=lambda item: not is_still(item[1])):
            whole = path(name)
            tries = chain(
                (_short(whole), whole.replace(".", "_")), (f"{whole}-{number}" for number in count(2))
            )
            several = not is_still(source)
            found[name] = next(one for one in tries if not _is_taken(one, taken, several))
            taken.add(found[name])
        return found


def is_still(source: Source) -> bool:
    """Whether a file is one picture; files that may have several pages often have one."""
    return source.kind == "image" or (source.kind == "pages" and source.frames == 1)


def _short(path: str) -> str:
    head, _, kind = path.rpartition(".")
    return head if head and "/" not in kind else path


def _is_taken(stem: str, taken: set[str], several: bool) -> bool:
    return stem in taken or (several and any(one.startswith(f"{stem}_") for one in taken))


def _safe(name: str) -> str:
    """Return a name as a path that stays inside the folder it is put in."""

    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    kept = "/".join("up" if part == ".." else part.replace(":", "_") for part in parts)
    return "".join(one if one.isprintable() else "_" for one in kept) or "unnamed"


def _survey(frames: Iterable[Frame]) -> Survey:
    labels: set[str] = set()
    keypoints: dict[str, int] = {}
    attributes: set[str] = set()
    sizes: dict[str, tuple[int, int]] = {}
    last: dict[tuple[str, str], int] = {}
    used: set[str] = set()
    for frame in frames:
        sizes.setdefault(frame.name, (frame.w, frame.h))
        labels.update(tag.label for tag in frame.labels)
        used.update("tags" for _ in frame.labels)
        for region in frame.regions:
            labels.add(region.label)
            attributes.update(region.attrs)
            if region.kp:
                keypoints[region.label] = max(keypoints.get(region.label, 0), len(region.kp))
                used.add("keypoints")
            used.add("shape" if region.polys or region.rle else "rotated" if region.obb else "box")
            used.update("lines" for _ in region.lines or ())
            if region.track is not None:
                last[frame.name, region.track] = frame.frame
    return Survey(
        tuple(sorted(labels)),
        dict(sorted(keypoints.items())),
        tuple(sorted(attributes)),
        sizes,
        last,
        frozenset(used),
    )
