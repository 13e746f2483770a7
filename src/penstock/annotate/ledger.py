"""Log and manifest of one run, kept so that it can go on wherever it was ended.

The manifest is written before any line that follows what it tells: what is known of a file, and that it is
damaged.  All else that a run needs to go on is in the log.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from penstock.annotate.errors import ResumeError, StorageError
from penstock.annotate.log import LOG, Log
from penstock.annotate.manifests import MANIFEST, check_same, load, save
from penstock.annotate.media.decoding import Crashed
from penstock.annotate.media.messages import Finished, Gone, Hole, Opened, Place
from penstock.annotate.media.sources import Media
from penstock.annotate.records import Damage, Frame, Lost, Manifest, Source
from penstock.annotate.storage import kept

_logger = logging.getLogger("penstock.annotate")


class Ledger:
    """Where a run writes.

    Args:
        folder: Holds the log and the manifest; made if it is not there.
        begun: The manifest of a run that begins now.
        restart: Whether what is there is deleted, instead of continued.

    Raises:
        ResumeError: What is there was made of something else, is damaged, or is being written.
        StorageError: Nothing can be written there.
    """

    def __init__(self, folder: Path, begun: Manifest, *, restart: bool = False) -> None:
        with kept(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / MANIFEST
        self._log = Log(folder / LOG)
        try:
            self._manifest = self._begin(begun, restart)
        except BaseException:
            self._log.close()
            raise
        self._numbers = {source.name: number for number, source in enumerate(begun.sources)}
        self._last: dict[int, Place] = {}
        self._counts: Counter[int] = Counter()
        self._drops: Counter[str] = Counter()
        self._iou = 1.0
        self.failures = 0
        self._facts: dict[int, Opened] = {}

    # -- what is there -------------------------------------------------------------------------------

    def replay(self) -> Iterator[Frame]:
        """Read what is in the log; it is read to its end before anything else is done.

        Raises:
            ResumeError: It is damaged.
        """
        for record in self._log.replay():
            number = self._numbers.get(record.name)
            if number is None or number < max(self._last, default=0):
                raise ResumeError(
                    f"{self._log.path} has a line of {record.name!r} where none can be; "
                    "begin anew with --restart"
                )
            if isinstance(record, Lost):
                self._last[number] = Place(frame=record.last, pts=None, tb="1", t=record.until)
                continue
            self._note(number, record)
            yield record
        # What a finished run had, it has; else the damage in the file where it goes on is found once more.
        if not self.finished:
            kept = [one for one in self._manifest.damage if self._is_kept(one)]
            self._change(state="running", problem="", digest="", damage=tuple(kept))

    @property
    def finished(self) -> bool:
        """Whether all is written."""
        return self._log.end is not None and self._manifest.state == "done"

    @property
    def at(self) -> int:
        """With which file it goes on."""
        return max(self._last, default=0)

    def after(self, number: int) -> Place | None:
        """Return the frame of a file behind which it goes on."""
        return self._last.get(number)

    def taken(self, number: int) -> int:
        """Return how many frames of a file are written."""
        return self._counts[number]

    def avoid(self, number: int) -> tuple[int, ...]:
        """Return the packets of a file that are left out."""
        name = self._manifest.sources[number].name
        found = (one.packet for one in self._manifest.damage if one.name == name and one.why == "crash")
        return tuple(packet for packet in found if packet is not None)

    def is_hurt(self, number: int) -> bool:
        """Whether a file is damaged, as far as it was read."""
        return self._manifest.sources[number].hurt

    @property
    def frames(self) -> int:
        """How many lines of frames there are."""
        return self._log.frames

    @property
    def regions(self) -> int:
        """How many regions these have."""
        return self._log.regions

    @property
    def lost(self) -> int:
        """How many frames of a live source no command was asked about."""
        return self._log.lost

    @property
    def written(self) -> float:
        """When an earlier run wrote the log last, in seconds since the epoch."""
        return self._log.written

    @property
    def dropped(self) -> int:
        """How many regions were dropped."""
        return sum(self._drops.values())

    @property
    def manifest(self) -> Manifest:
        """As it is now."""
        return self._manifest

    # -- what comes ----------------------------------------------------------------------------------

    def write(self, number: int, frame: Frame) -> None:
        """Write a frame of a file."""
        self._log.append(frame)
        self._note(number, frame)

    def lose(self, number: int, gone: Gone) -> None:
        """Write which frames of a live source no command is asked about."""
        source = self._manifest.sources[number]
        self._log.append(
            Lost(
                lost=gone.count,
                src=source.digest,
                name=source.name,
                first=gone.first,
                last=gone.last,
                since=gone.since,
                until=gone.until,
                why=gone.why,
            )
        )

    def note_failure(self, message: str) -> None:
        """A command failed on a frame that is written nevertheless."""
        _logger.warning("%s", message)

    def opened(self, number: int, facts: Opened) -> None:
        """Note what a file says of itself."""
        self._facts[number] = facts

    def hurt(self, number: int, hole: Hole | None) -> None:
        """Note that a file is damaged, and, once that is over, where."""
        source = self._manifest.sources[number]
        if not source.hurt:
            self._source(number, hurt=True)
        if hole is not None:
            damage = Damage(
                name=source.name,
                frame=hole.frame,
                begin=hole.begin,
                end=hole.end,
                packets=hole.packets,
                why=hole.why,
            )
            self._change(damage=(*self._manifest.damage, damage))

    def crashed(self, number: int, crash: Crashed) -> None:
        """Note that a process which decoded a file ended; if it was a packet's doing, which."""
        name = self._manifest.sources[number].name
        _logger.warning("%s: the process that decodes it %s; it is started again", name, crash.why)
        if not crash.left_out:
            return
        damage = Damage(
            name=name,
            frame=0 if crash.after is None else crash.after.frame + 1,
            begin=None if crash.after is None else crash.after.t,
            packets=1,
            why="crash",
            packet=crash.packet,
        )
        self._source(number, hurt=True)
        self._change(damage=(*self._manifest.damage, damage))

    def ended(self, number: int, end: Finished) -> None:
        """Note that a file was read to its end, or as far as was asked."""
        facts = self._facts.get(number, Opened())
        self._source(
            number,
            frames=end.frames,
            seconds=end.seconds or facts.seconds,
            rate=facts.rate,
            sar=facts.sar,
        )

    def unreadable(self, number: int, why: str) -> None:
        """Note that a file cannot be read, or no further."""
        _logger.warning("%s: %s", self._manifest.sources[number].name, why)
        self._source(number, problem=why)

    def finish(self) -> None:
        """All is written."""
        end = self._log.finish()
        # In the order of the files, whatever was found again when the run went on.
        damage = sorted(self._manifest.damage, key=lambda one: (self._numbers[one.name], one.frame, one.why))
        self._change(state="done", digest=end.digest, damage=tuple(damage))

    def failed(self, error: Exception) -> None:
        """Note what ended the run; it can be continued."""
        try:
            self._change(state="failed", problem=str(error) or type(error).__name__)
        except StorageError as another:  # the disk is full: what ended the run is told nevertheless
            _logger.warning("%s", another)

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    # -- inside --------------------------------------------------------------------------------------

    def _begin(self, begun: Manifest, restart: bool) -> Manifest:
        before = None if restart else load(self._path)
        if before is not None:
            check_same(before, begun, self._path)
            return before
        if not restart and self._log.path.stat().st_size:
            raise ResumeError(f"{self._log.path} has no manifest beside it; begin anew with --restart")
        self._log.clear()
        save(begun, self._path)
        return begun

    def _note(self, number: int, frame: Frame) -> None:
        self._last[number] = Place(frame=frame.frame, pts=frame.pts, tb=frame.tb, t=frame.t)
        self._counts[number] += 1
        if frame.drops is not msgspec.UNSET:
            self._drops.update(frame.drops)
        if frame.iou is not msgspec.UNSET:
            self._iou = min(self._iou, frame.iou)
        self.failures += "failed" in frame.flags

    def _is_kept(self, damage: Damage) -> bool:
        return self._numbers[damage.name] < self.at or damage.packet is not None

    def _source(self, number: int, **facts: object) -> None:
        sources = list(self._manifest.sources)
        sources[number] = msgspec.structs.replace(sources[number], **facts)
        self._change(sources=tuple(sources))

    def _change(self, **fields: object) -> None:
        counts = {"frames": self._log.frames, "regions": self._log.regions, "failed": self.failures}
        if self._log.lost:
            counts["lost"] = self._log.lost
        self._manifest = msgspec.structs.replace(
            self._manifest,
            counts=counts,
            drops=dict(sorted(self._drops.items())),
            iou=self._iou,
            **fields,
        )
        save(self._manifest, self._path)


def sources_of(media: Sequence[Media]) -> tuple[Source, ...]:
    """Return files as a manifest has them when nothing is known of them yet."""
    return tuple(Source(name=one.name, digest=one.digest, kind=one.kind, bytes=one.bytes) for one in media)
