"""Live sources, in the decoding process: frames are decoded as they come, the newest wait to be asked for.

A thread reads and decodes; nothing that happens on the other side makes it wait.  What it says waits in a
box, from which one message is sent for each that is asked for.  Where the box has more frames than it may,
the oldest is dropped before it costs more than its decoding; which were dropped is told with the next one.
"""

from __future__ import annotations

import io
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from threading import Condition, Thread
from typing import TYPE_CHECKING, NamedTuple

import av.error
import msgspec

from penstock.annotate.media.messages import Feed, Finished, Gone, Job, Message, Passed
from penstock.annotate.media.speaker import Speaker, Unreadable
from penstock.annotate.media.timing import Timing
from penstock.annotate.media.video import Reading, opened
from penstock.annotate.records import seconds_text

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

OPEN_S, SILENT_S = 10.0, 30.0  # what an address may take to answer, and may be silent
NEXT_S = 0.5  # between two signs of life while no frame comes
POLL_S = 0.02  # between two looks at a file that grows
BACK = Fraction(1)  # seconds; a clock that goes back by more was set

# Few frames are waited for to guess at their rate, which is a hint only.
_SOON = {"fpsprobesize": "3"}
_REACHED = {
    # The network that FFmpeg may use, by what it opens an address as; anything else that it may be told of
    # there, such as files, it cannot open.
    "rtsp": ("rtsp", "tcp,tls", {"rtsp_transport": "tcp", "allowed_media_types": "video"}),
    "v4l2": ("video4linux2,v4l2", "none", {}),
}


class Kept(NamedTuple):
    """A frame that was chosen, as it was decoded."""

    frame: VideoFrame
    number: int
    seconds: Fraction
    guessed: bool


class Box(Speaker):
    """What the thread that decodes says, until it is asked for.

    Args:
        speaker: Notes which packet is being decoded.
        backlog: How many frames may wait.
    """

    def __init__(self, speaker: Speaker, backlog: int) -> None:
        self._speaker = speaker
        self._backlog = backlog
        self._entries: deque[Message | Kept | BaseException] = deque()
        self._changed = Condition()
        self._frames = 0
        self._gone: Gone | None = None
        self._at = Passed(frame=0, t="0")

    def say(self, message: Message | BaseException, picture: bytes = b"") -> None:
        """Take a message."""
        with self._changed:
            self._entries.append(message)
            self._changed.notify()

    def keep(self, kept: Kept) -> None:
        """Take a frame, and drop the oldest if there are too many."""
        with self._changed:
            self._entries.append(kept)
            self._frames += 1
            if self._frames > self._backlog:
                self._drop()
            self._changed.notify()

    def passed(self, frame: int, t: Callable[[], str]) -> None:
        """Note how far it is."""
        self._at = Passed(frame=frame, t=t())

    def at(self, packet: int) -> None:
        """Note which packet is decoded next."""
        self._speaker.at(packet)

    def take(self, timeout_s: float) -> tuple[Message | Kept | BaseException, Gone | None]:
        """Return what comes next, and, with a frame, which were dropped before it; a sign of life if nothing
        comes in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._entries), timeout_s):
                return self._at, None
            entry = self._entries.popleft()
            if not isinstance(entry, Kept):
                return entry, None
            self._frames -= 1
            gone, self._gone = self._gone, None
            return entry, gone

    def _drop(self) -> None:
        oldest = next(entry for entry in self._entries if isinstance(entry, Kept))
        self._entries.remove(oldest)
        self._frames -= 1
        t = seconds_text(oldest.seconds)
        if self._gone is None:
            self._gone = Gone(count=1, first=oldest.number, last=oldest.number, since=t, until=t)
        else:
            self._gone = msgspec.structs.replace(
                self._gone, count=self._gone.count + 1, last=oldest.number, until=t
            )


def read_live(job: Job, speaker: Speaker, link: socket.socket) -> None:
    """Say what comes from a live source: one message for each byte of the link.

    Raises:
        Unreadable: There is no video in it, or it broke off.
    """
    assert job.live is not None
    box = Box(speaker, job.live.backlog)
    reading = LiveReading(job, job.live, box)
    Thread(target=reading.run, daemon=True).start()
    _answer(job, reading, box, speaker, link)


def _answer(job: Job, reading: LiveReading, box: Box, speaker: Speaker, link: socket.socket) -> None:
    limit, given = job.sampling.limit, job.taken
    while link.recv(1):
        if limit is not None and given >= limit:
            speaker.say(Finished(frames=None, seconds=None))
            return
        entry, gone = box.take(NEXT_S)
        if isinstance(entry, BaseException):
            raise entry
        if isinstance(entry, Kept):
            given += 1
            reading.tell(entry, gone, speaker)
        else:
            speaker.say(entry)
            if isinstance(entry, Finished):
                return


class LiveReading(Reading):
    """One connection to a live source.

    Args:
        job: What is wanted of it.
        feed: Where it comes from.
        box: Where what is found is put.
    """

    def __init__(self, job: Job, feed: Feed, box: Box) -> None:
        limits = msgspec.structs.replace(job.limits, seconds=float("inf"))
        # Only what is looked at counts against the limit, and there is nothing behind which to go on.
        sampling = msgspec.structs.replace(job.sampling, limit=None)
        super().__init__(
            msgspec.structs.replace(job, limits=limits, sampling=sampling, after=None, avoid=()), box
        )
        self._feed = feed
        self._box = box
        self._file: _Stream | None = None
        self._away = _away(job)
        self._shift = Fraction(0) if self._away is None else Fraction(self._away.until)
        self._next = 0 if self._away is None else self._away.first

    def run(self) -> None:
        """Read until it ends; the top of a thread."""
        try:
            self.begins()
        except BaseException as error:  # noqa: BLE001 - raised again where messages are asked for
            self._box.say(error)

    def tell(self, kept: Kept, gone: Gone | None, speaker: Speaker) -> None:
        """Say a frame that was kept, and what is missing before it.

        Raises:
            Unreadable: It is larger than allowed.
        """
        picture, data = self._picture(*kept)
        away, self._away = self._away, None
        missing = tuple(one for one in (away, gone) if one is not None)
        speaker.say(msgspec.structs.replace(picture, gone=missing), data)

    def _say(self, frame: VideoFrame, number: int, seconds: Fraction, guessed: bool) -> None:
        self._box.keep(Kept(frame, number, seconds, guessed))

    def _timed(self, stream: VideoStream) -> Timing:
        return _Clock(stream, self._shift)

    @contextmanager
    def _source(self) -> Iterator[InputContainer]:
        feed = self._feed
        if feed.file < 0:
            formats, protocols, options = _REACHED[feed.form]
            timeout = (OPEN_S, SILENT_S)
            container = opened(feed.address, formats, protocols, feed.form, timeout, {**_SOON, **options})
        else:
            self._file = _Stream(feed)
            container = opened(self._file, options=_SOON)
        with container:
            yield container

    def _end(self, container: InputContainer, stream: VideoStream) -> None:
        broke = self._broke or (self._file and self._file.broke)
        if broke and not self._over:
            silent = isinstance(broke, av.error.ExitError)
            why = f"nothing came for {SILENT_S:.0f} s" if silent else f"{type(broke).__name__}: {broke}"
            raise Unreadable(f"the stream broke off ({why}); the same again goes on with what comes then")
        super()._end(container, stream)


class _Clock(Timing):
    """Times that go on where those before ended, and do not go back, whatever a camera does to its clock."""

    def __init__(self, stream: VideoStream, shift: Fraction) -> None:
        super().__init__(stream)
        self._shift = shift

    def of(self, frame: VideoFrame) -> tuple[Fraction, bool]:
        latest = self._latest
        seconds, guessed = super().of(frame)
        if seconds + BACK < latest and self._origin is not None:
            self._origin -= self._ticks(latest + self.gap - seconds)
            seconds, guessed = super().of(frame)
        return seconds + self._shift, guessed

    @property
    def end(self) -> Fraction:
        return super().end + self._shift


class _Stream(io.RawIOBase):
    """Bytes as they come: from a pipe, a connection, or a file that grows.

    Args:
        feed: Says which.
    """

    def __init__(self, feed: Feed) -> None:
        self._file = feed.file
        self._grows = feed.grows
        self._idle_s = feed.idle_s
        self._begun = False
        self.broke: OSError | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at least a byte; none at the end."""
        try:
            return self._read(size)
        except OSError as error:
            self.broke = error
            return b""

    def _read(self, size: int) -> bytes:
        if not self._begun and not self._grows:
            # A named pipe that nobody has opened yet to write seems to be at its end.
            poll = select.poll()
            poll.register(self._file, select.POLLIN | select.POLLHUP)
            poll.poll()
            self._begun = True
        until = time.monotonic() + self._idle_s
        while not (data := os.read(self._file, size)) and self._grows:
            if time.monotonic() > until:
                self._grows = False  # that was its end, however often it is asked again
            time.sleep(POLL_S)
        return data


def _away(job: Job) -> Gone | None:
    """Return the interval between what was seen before and what comes now; None if nothing was."""
    if job.after is None:
        return None
    passed_ms = max(0, int(1000 * (time.time() - job.seen))) if job.seen else 0
    number = job.after.frame + 1
    until = seconds_text(Fraction(job.after.t) + Fraction(passed_ms, 1000))
    return Gone(count=0, first=number, last=number, since=job.after.t, until=until, why="away")
