"""What a format is: what it can say, how it is written, and how what was written is checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.dataset import Dataset, Shot, is_still
from penstock.annotate.records import Region

# What a log may say, and how a report tells how often it could not be said.
LOSSES: Mapping[str, str] = MappingProxyType(
    {
        "shape": "shapes reduced to their boxes",
        "rotated": "rotated boxes written as other shapes",
        "lines": "polylines reduced to their boxes, or left out beside another shape",
        "holes": "holes cut: the pieces stand for themselves",
        "parts": "shapes in several parts, each written for itself",
        "keypoints": "regions whose keypoints are left out",
        "score": "scores left out",
        "track": "names of tracks left out",
        "text": "texts left out",
        "attributes": "regions whose attributes are left out",
        "origin": "regions that no longer tell who made them",
        "tags": "labels of whole frames left out",
        "thin": "regions without an area left out",
        "stills": "frames of still images left out",
    }
)


class Fault(NamedTuple):
    """Something that is wrong with a written file."""

    path: str
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.place}: {self.what}" if self.place else f"{self.path}: {self.what}"


class Written(NamedTuple):
    """What was written: the files, how many frames and regions, and what got lost, how often."""

    files: tuple[str, ...]
    frames: int
    regions: int
    losses: Mapping[str, int]


class Format(ABC):
    """A format annotations can be written in.

    Attributes:
        name: What it is called when it is asked for.
        says: Which of ``LOSSES`` it can say.
        thin: It can say regions whose boxes have no area.
        video: It is about videos; frames of still images are left out.
    """

    name: ClassVar[str]
    says: ClassVar[frozenset[str]]
    thin: ClassVar[bool] = False
    video: ClassVar[bool] = False

    @abstractmethod
    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        """Write the files; yield each when it is complete.

        Args:
            data: What is to be written.
            folder: Where to; it is there, and empty or to be overwritten.
            losses: Where what is lost in ways of this format's own is counted, by a sentence's end.
        """

    @abstractmethod
    def faults(self, folder: Path) -> Iterator[Fault]:
        """Yield what is wrong with what stands in a folder, strictly."""

    def write(self, data: Dataset, folder: Path) -> Written:
        """Write all of a log, in the same order and bytes every time.

        Raises:
            OSError: It cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        losses: Counter[str] = Counter()
        files = tuple(path.relative_to(folder).as_posix() for path in self.produce(data, folder, losses))
        frames = regions = 0
        for shot in data.shots():
            if self.video and is_still(shot.source):
                losses[LOSSES["stills"]] += 1
                continue
            found = [region for region in shot.frame.regions if self._holds(shot, region)]
            frames, regions = frames + 1, regions + len(found)
            losses[LOSSES["thin"]] += len(shot.frame.regions) - len(found)
            said = chain(("tags" for _ in shot.frame.labels), *map(_said, found))
            losses.update(LOSSES[what] for what in said if self._loses(what))
        return Written(
            files, frames, regions, {what: count for what, count in sorted(losses.items()) if count}
        )

    def picture(self, shot: Shot) -> str:
        """Return where in the folder readers look for a picture; not all look."""
        return f"images/{shot.file_name}"

    def check(self, folder: Path, most: int = 100) -> list[Fault]:
        """Return what is wrong with what stands in a folder, up to a number of faults.

        Raises:
            ConfigError: What reads it is not installed.
        """
        found: list[Fault] = []
        try:
            found.extend(islice(self.faults(folder), most))
        except ConfigError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # A list where an object should be, and the like: there are more of these than can be named.
            found.append(Fault(folder.name, "", f"something in it is not of the kind it should be: {error}"))
        return found

    def _holds(self, shot: Shot, region: Region) -> bool:
        return self.thin or shot.holds(region) or ("lines" in self.says and shot.holds_lines(region))

    def _loses(self, what: str) -> bool:
        """Whether this format cannot say something; where a shape is its box, no more is told of it."""
        return what not in self.says and (what not in ("holes", "parts") or "shape" in self.says)

    def shots(self, data: Dataset) -> Iterator[Shot]:
        """Yield the frames this format is about."""
        return (shot for shot in data.shots() if not (self.video and is_still(shot.source)))


def _said(region: Region) -> Iterator[str]:
    """Yield what a region says that some formats cannot, once for each time."""
    if region.polys or region.rle:
        yield "shape"
    elif region.obb:
        yield "rotated"
    if region.lines:
        yield "lines"
    if region.polys:
        yield from ("holes" for part in region.polys for _ in part[1:])
        if len(region.polys) > 1:
            yield "parts"
    facts = {
        "keypoints": region.kp,
        "score": region.score is not None,
        "track": region.track is not None,
        "text": region.text is not None,
        "attributes": region.attrs,
        "origin": region.src != "model",
    }
    yield from (name for name, there in facts.items() if there)
