"""One run: files are decoded, commands asked about their frames, and what they say is written, in order.

So many frames are under way at once; what comes of them is taken in the order of the frames, whichever is
answered first.  A frame counts once its line is in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from fractions import Fraction
from typing import NamedTuple

import msgspec

from penstock.annotate.asking import Asked, Asker, Shown
from penstock.annotate.batching import Batch, Batches, size_of
from penstock.annotate.errors import MediaError
from penstock.annotate.extras import needed
from penstock.annotate.ledger import Ledger
from penstock.annotate.media.decoding import Crashed, Decoder, Said
from penstock.annotate.media.messages import (
    Finished,
    Gone,
    Hole,
    Hurt,
    Job,
    Opened,
    Passed,
    Picture,
    Place,
    Refused,
)
from penstock.annotate.media.sources import Media
from penstock.annotate.records import Frame
from penstock.annotate.refine import Refined, Refiner, Spot
from penstock.annotate.settings import Settings
from penstock.annotate.tracking import Tracker
from penstock.calls.tasks import TaskOwner

SEEK_FROM = 3000  # frames; fewer are decoded and passed over, which is as quick


class Progress(msgspec.Struct, kw_only=True):
    """How far a run is.

    Attributes:
        files: How many there are.
        file: Which of them it is at, from 1.
        name: Its name.
        frames: How many frames are written.
        earlier: How many of them were, when the run began.
        regions: How many regions are written.
        failed: Frames that a command failed on.
        dropped: Regions that were dropped.
        seconds: Where in the file it is.
        skipped: Where in it this run began.
        total: How long the file is, in seconds; None: unknown.
        lost: Frames of a live source that came faster than they were looked at, and were dropped.
        began: When, by the clock of ``time.monotonic``.
    """

    files: int = 0
    file: int = 0
    name: str = ""
    frames: int = 0
    earlier: int = 0
    regions: int = 0
    failed: int = 0
    dropped: int = 0
    seconds: float = 0.0
    skipped: float = 0.0
    total: float | None = None
    lost: int = 0
    began: float = 0.0

    @property
    def rate(self) -> float:
        """Frames written per second."""
        passed = time.monotonic() - self.began
        return (self.frames - self.earlier) / passed if passed > 0 else 0.0


class _Due(NamedTuple):
    """What was decoded, in its place in the order: a frame that is being asked about, or a fact."""

    number: int  # which file
    said: Said
    asked: tuple[Batch, int] | None


class Run:
    """Annotates files.

    Args:
        media: The files.
        settings: What is asked for.
        asker: Asks the commands.
        ledger: Where it is written.
        window: How many frames are under way at once; where several are asked about together, how many such
            batches.
        threads: How many threads decode.
        decoder: Decodes; closed when the run ends.
        seek_from: See ``Job.seek_from``.
    """

    def __init__(
        self,
        media: Sequence[Media],
        settings: Settings,
        asker: Asker,
        ledger: Ledger,
        *,
        window: int = 4,
        threads: int = 1,
        decoder: Decoder | None = None,
        seek_from: int = SEEK_FROM,
    ) -> None:
        if window < 1:
            raise ValueError(f"window is {window}; it must be at least 1")
        self._media = media
        self._settings = settings
        self._ledger = ledger
        self._refiner = Refiner(settings.refining, len(settings.models))
        self._tracker = None if settings.tracking is None else Tracker(settings.tracking)
        self._again = 0  # frames that the tracker gives although they are in the log
        self._size = size_of(settings.models)
        self._room = asyncio.Semaphore(window * self._size)
        self._whole: tuple[int, Place | None] = (0, None)  # of the file it goes on with: see ``_replay``
        self._due: asyncio.Queue[_Due | None] = asyncio.Queue()
        self._threads = threads
        self._seek_from = seek_from
        live = [one.live for one in media if one.live is not None]
        self._decoder = decoder or Decoder(files=[feed.file for feed in live if feed.file >= 0])
        self._gone: dict[int, tuple[Gone, ...]] = {}  # frames, and what is missing before them
        self._tasks = TaskOwner()
        self._batches = Batches(asker, self._size, self._tasks)
        self._fault: BaseException | None = None
        self.progress = Progress(files=len(media))

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Yield each frame when it is in the log; those that were there before are not yielded.

        Leaving it cancels what is under way; the log can be continued.

        Raises:
            AnnotateError: It cannot go on.
        """
        self._check_extras()
        self.progress.began = time.monotonic()
        try:
            self._replay()
            if self._ledger.finished:
                return
            self._tasks.start(self._produce(), awaited=True)
            async with aclosing(self._written()) as frames:
                async for frame in frames:
                    yield frame
            self._ledger.finish()
        except Exception as error:
            self._ledger.failed(error)
            raise
        finally:
            await self._tasks.aclose()
            await self._decoder.aclose()
            self._ledger.close()

    # -- decoding and asking -------------------------------------------------------------------------

    async def _produce(self) -> None:
        try:
            for number in range(self._ledger.at, len(self._media)):
                await self._decode(number)
        except Exception as error:  # noqa: BLE001 - the top of a task; raised again where frames are awaited
            self._fault = error
        self._batches.flush()
        self._due.put_nowait(None)

    async def _decode(self, number: int) -> None:
        async with aclosing(self._decoder.decode(self._job(number))) as answers:
            while True:
                # First room, then a frame: a live source gives the newest that it has by then.
                await self._room.acquire()
                said = await anext(answers, None)
                asked = None
                if said is not None and isinstance(said.message, Picture):
                    shown = Shown(said.message, said.picture)
                    asked = self._batches.add(shown, self._media[number].name)
                else:  # frames alone need room: a batch that waits for more must not wait for itself
                    self._room.release()
                if said is None:
                    break
                self._due.put_nowait(_Due(number, said._replace(picture=bytearray()), asked))
        self._batches.flush()

    def _job(self, number: int) -> Job:
        media, settings, ledger = self._media[number], self._settings, self._ledger
        behind, after = self._whole if number == ledger.at else (0, ledger.after(number))
        return Job(
            path=str(media.path),
            kind=media.kind,
            sampling=settings.sampling,
            after=after,
            taken=ledger.taken(number) - behind,
            form=settings.form,
            quality=settings.quality,
            limits=settings.limits,
            avoid=ledger.avoid(number),
            seek_from=(1 << 62) if ledger.is_hurt(number) else self._seek_from,
            threads=self._threads,
            live=media.live,
            seen=0.0 if media.live is None else ledger.written,
        )

    # -- writing -------------------------------------------------------------------------------------

    async def _written(self) -> AsyncGenerator[Frame, None]:
        behind = self._whole[0]
        while (due := await self._due.get()) is not None:
            message = due.said.message
            if isinstance(message, Picture):
                assert due.asked is not None
                batch, at = due.asked
                asked = await batch.answer(at)
                self._room.release()
                if behind:  # in the log already
                    behind -= 1
                    continue
                if asked.fatal is not None:
                    raise asked.fatal
                if message.gone:
                    self._gone[message.place.frame] = message.gone
                made = self._frame(due.number, message, asked)
                for frame in self._tracked(made):
                    yield self._write(due.number, frame)
            elif _is_last(message):
                for frame in self._flushed():
                    yield self._write(due.number, frame)
                self._ended(due.number, message)
            else:
                self._heard(due.number, message)
        if self._fault is not None:
            raise self._fault

    def _frame(self, number: int, picture: Picture, asked: Asked) -> Frame:
        media, place = self._media[number], picture.place
        frame = Frame(
            src=media.digest,
            name=media.name,
            frame=place.frame,
            pts=place.pts,
            tb=place.tb,
            t=place.t,
            w=picture.w,
            h=picture.h,
            rot=picture.rot,
            flags=picture.flags,
        )
        if asked.answer is None:
            self._ledger.note_failure(f"{media.name}, frame {place.frame}: {asked.message}")
            return msgspec.structs.replace(frame, flags=(*frame.flags, "failed"), error=asked.code)
        spot = Spot(
            src=media.digest,
            copy=media.copy,
            frame=place.frame,
            seconds=frame.seconds,
            w=picture.w,
            h=picture.h,
        )
        return _with(frame, self._refiner.refine(asked.answer, spot))

    def _tracked(self, frame: Frame) -> Iterator[Frame]:
        return iter((frame,)) if self._tracker is None else self._new(self._tracker.feed(frame))

    def _flushed(self) -> Iterator[Frame]:
        return iter(()) if self._tracker is None else self._new(self._tracker.flush())

    def _new(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if self._again:
                self._again -= 1
            else:
                yield frame

    def _write(self, number: int, frame: Frame) -> Frame:
        for gone in self._gone.pop(frame.frame, ()):
            self._ledger.lose(number, gone)
        self._ledger.write(number, frame)
        self._show(number, frame)
        return frame

    def _show(self, number: int, frame: Frame) -> None:
        progress, ledger = self.progress, self._ledger
        progress.file, progress.name = number + 1, frame.name
        progress.frames, progress.regions = ledger.frames, ledger.regions
        progress.failed, progress.dropped = ledger.failures, ledger.dropped
        progress.seconds, progress.lost = float(frame.seconds), ledger.lost

    def _heard(self, number: int, message: object) -> None:
        if isinstance(message, Opened):
            self._begin(number, message)
            self._ledger.opened(number, message)
        elif isinstance(message, (Hole, Hurt)):
            self._ledger.hurt(number, message if isinstance(message, Hole) else None)
        elif isinstance(message, Crashed):
            self._ledger.crashed(number, message)
        elif isinstance(message, Passed):
            self.progress.seconds = float(Fraction(message.t))

    def _begin(self, number: int, facts: Opened) -> None:
        progress, after = self.progress, self._ledger.after(number)
        progress.file, progress.name = number + 1, self._media[number].name
        progress.skipped = progress.seconds = 0.0 if after is None else float(Fraction(after.t))
        progress.total = None if facts.seconds is None else float(Fraction(facts.seconds))

    def _ended(self, number: int, message: object) -> None:
        if isinstance(message, Finished):
            self._ledger.ended(number, message)
        elif isinstance(message, Refused):
            self._refuse(number, message.message)
        elif isinstance(message, Crashed):
            self._refuse(number, f"decoding it ended the process again and again ({message.why})")

    def _refuse(self, number: int, why: str) -> None:
        """A file gives nothing more: one of several is noted, if failures are to be skipped."""
        if self._settings.on_error == "fail" or len(self._media) == 1:
            raise MediaError(f"{self._media[number].name}: {why}")
        self._ledger.unreadable(number, why)

    # -- beginning -----------------------------------------------------------------------------------

    def _replay(self) -> None:
        """Read the log, and find where the batch began in which it ends: that one is asked about again as a
        whole, as what a command says of a frame may depend on the others in its batch."""
        count = given = 0
        last: deque[Frame] = deque(maxlen=self._size)
        for frame in self._ledger.replay():
            count += 1
            if last and last[-1].name != frame.name:
                last.clear()
            last.append(frame)
            if self._tracker is not None:
                given += sum(1 for _ in self._tracker.feed(frame))
        self._again = count - given if self._tracker is not None else 0
        self.progress.frames = self.progress.earlier = count
        self.progress.regions = self._ledger.regions
        at = self._ledger.at
        behind = 0 if self._media[at].live else self._ledger.taken(at) % self._size
        begin = _place(last[-behind - 1]) if len(last) > behind else None
        self._whole = (behind, begin if behind else self._ledger.after(at))

    def _check_extras(self) -> None:
        if any(media.kind == "video" for media in self._media):
            needed("av", "video")
        if any(media.kind != "video" for media in self._media):
            needed("PIL", "images")


def _place(frame: Frame) -> Place:
    return Place(frame=frame.frame, pts=frame.pts, tb=frame.tb, t=frame.t)


def _with(frame: Frame, refined: Refined) -> Frame:
    return msgspec.structs.replace(
        frame,
        regions=refined.regions,
        labels=refined.tags,
        drops=refined.drops or msgspec.UNSET,
        iou=refined.iou if refined.iou < 1 else msgspec.UNSET,
    )


def _is_last(message: object) -> bool:
    return isinstance(message, (Finished, Refused)) or (isinstance(message, Crashed) and message.given_up)
