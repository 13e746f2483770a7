"""This side of the process that decodes: started when needed, read as fast as frames are used, replaced.

A process that ends while it decodes is started once more behind the last frame that it gave.  If the next one
ends at the same packet, that packet is left out, and the interval is told as damage.
"""

from __future__ import annotations

import asyncio
import mmap
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from penstock.annotate.afterwards import afterwards
from penstock.annotate.media.messages import (
    LENGTHS,
    PACKET,
    Finished,
    Job,
    Message,
    Picture,
    Place,
    Refused,
    read_message,
    write,
)

AHEAD = 4  # messages that are taken before they are asked for
CRASHES = 20
BUFFER = 4 * 1024 * 1024  # bytes in the socket: a frame or two
CHILD = (sys.executable, "-m", "penstock.annotate.media.child")
NEXT = b"\1"  # asks for the next message of a live source
POLL_S = 0.01
ENDING = 100  # polls that a process which has closed its link gets to end
LARGEST = 2 * 1024**3  # bytes of a picture


class Crashed(msgspec.Struct, frozen=True, kw_only=True):
    """The process ended, or was ended as it said nothing.

    Args:
        why: In words.
        packet: What it was decoding; -1: nothing yet.
        given_up: Nothing further comes of this file.
        left_out: The packet is left out from now on.
        after: The last frame that came before.
    """

    why: str
    packet: int
    given_up: bool
    left_out: bool
    after: Place | None


class Said(NamedTuple):
    """A message, and the base64 text of the picture that it brings."""

    message: Message | Crashed
    picture: bytearray


class Decoder:
    """Decodes files one after another in a process of its own.

    Args:
        command: What is run; the numbers of the socket and of the shared file are put behind it.
        crashes: How often a process may end over one file, before that is given up.
        files: Numbers of open files that it is to have as well.
    """

    def __init__(
        self, command: Sequence[str] = CHILD, *, crashes: int = CRASHES, files: Sequence[int] = ()
    ) -> None:
        self._command = command
        self._crashes = crashes
        self._files = files
        self._child: _Child | None = None

    async def decode(self, job: Job) -> AsyncGenerator[Said, None]:
        """Yield what is said of a file: pictures in order, damage, at its end ``Finished`` or ``Refused``.

        Leaving it ends the process at once, in the middle of whatever it does.  Of a live source each is
        asked for when the next is, so that it is the newest then.
        """
        crashed_at: int | None = None
        for count in range(self._crashes + 1):
            child = await self._ready()
            child.ask(job)
            whole = False
            try:
                async for said in child.answers(job.limits.stall_s, asked=job.live is not None):
                    if isinstance(said.message, Picture):
                        job = _behind(job, said.message.place)
                    whole = isinstance(said.message, (Finished, Refused))
                    yield said
            finally:
                if not whole:
                    await self.aclose()
            if whole:
                return
            # A crash that comes again at the same packet is the packet's doing.
            again = child.packet >= 0 and child.packet == crashed_at
            given_up = count == self._crashes or (child.packet < 0 and count > 0)
            if again:
                job = msgspec.structs.replace(job, avoid=(*job.avoid, child.packet))
            crashed_at = None if again else child.packet
            crash = Crashed(
                why=child.why, packet=child.packet, given_up=given_up, left_out=again, after=job.after
            )
            yield Said(crash, bytearray())
            if given_up:
                return

    async def aclose(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            await child.end()

    async def _ready(self) -> _Child:
        if self._child is None:
            self._child = _Child(self._command, self._files)
            await self._child.connect()
        return self._child


def _behind(job: Job, place: Place) -> Job:
    """Return what is left of a job behind a frame."""
    seen = 0.0 if job.live is None else time.time()
    return msgspec.structs.replace(job, after=place, taken=job.taken + 1, seen=seen)


class _Child(asyncio.BufferedProtocol):
    """One process, and what it says."""

    def __init__(self, command: Sequence[str], files: Sequence[int]) -> None:
        self._said: deque[Said] = deque()
        self._last = PACKET.pack(-1)
        self._more = asyncio.Event()
        self._lost = False
        self._stalled = False
        self._transport: asyncio.Transport | None = None
        self._head = bytearray(LENGTHS.size)
        self._fields: bytearray | None = None
        self._picture: bytearray | None = None
        self._into = memoryview(self._head)
        self._filled = 0
        self._shared = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._shared.write(PACKET.pack(-1))
        self._shared.flush()
        self._packet = mmap.mmap(self._shared.fileno(), PACKET.size)
        self._link, theirs = socket.socketpair()
        with suppress(OSError):
            self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        handed = (theirs.fileno(), self._shared.fileno())
        with theirs:
            # Not asyncio's: nothing is to be read from it but its link, and it is ended, never waited for.
            self._process = subprocess.Popen(
                [*command, *map(str, handed)],
                pass_fds=(*handed, *files),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for us, who then end it
            )

    @property
    def packet(self) -> int:
        """Which packet it was decoding last."""
        return int(PACKET.unpack_from(self._last)[0])

    @property
    def why(self) -> str:
        """How it ended, in words."""
        if self._stalled:
            return "it said nothing for too long, and was ended"
        code = self._process.returncode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    async def connect(self) -> None:
        """Begin to read what it says."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_unix_connection(lambda: self, sock=self._link)
        self._transport = transport

    def ask(self, job: Job) -> None:
        """Give it a job; it has none."""
        head, _ = write(job)
        assert self._transport is not None
        self._transport.write(head)

    async def answers(self, stall_s: float, *, asked: bool) -> AsyncGenerator[Said, None]:
        """Yield what it says of its job, until that is done or the process has ended.

        Args:
            stall_s: How long it may be silent, in seconds.
            asked: Whether it waits to be asked for each message.
        """
        while True:
            if asked and self._transport is not None and not self._lost:
                self._transport.write(NEXT)
            if not await self._hears(stall_s):
                return
            said = self._said.popleft()
            if len(self._said) == AHEAD - 1 and self._transport is not None and not self._lost:
                self._transport.resume_reading()
            yield said
            if isinstance(said.message, (Finished, Refused)):
                return

    async def _hears(self, stall_s: float) -> bool:
        """Wait for the next message; returns whether there is one."""
        if self._said:
            return True
        # Not wait_for: until Python 3.12 it may lose a cancel that comes with what it waits for.
        timer = asyncio.get_running_loop().call_later(stall_s, self._stall)
        try:
            while not self._said and not self._lost and not self._stalled:
                self._more.clear()
                await self._more.wait()
        finally:
            timer.cancel()
        return bool(self._said)

    def _stall(self) -> None:
        self._stalled = True
        self._more.set()

    async def end(self) -> None:
        """End it, at once."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._link.close()
        try:
            # Where its link is closed it is ending by itself; how, is known in a moment.
            for _ in range(ENDING if self._lost else 0):
                if self._process.poll() is not None:
                    break
                await asyncio.sleep(POLL_S)
        finally:
            self._process.kill()
            if self._lost:
                self._process.wait()  # how it ended is told
            else:
                afterwards(self._process.wait, "waiting for the end of a process that decodes")
            self._last = self._packet[:]
            self._packet.close()
            self._shared.close()

    # -- asyncio.BufferedProtocol --------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """See ``asyncio.BufferedProtocol``."""
        return self._into[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """See ``asyncio.BufferedProtocol``."""
        self._filled += nbytes
        while self._filled == len(self._into):
            self._step()

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.BufferedProtocol``."""
        self._lost = True
        self._more.set()

    def _step(self) -> None:
        """What was to be read is there: read what follows it."""
        if self._fields is None:
            fields, picture = LENGTHS.unpack(self._head)
            if picture > LARGEST:
                self._process.kill()
                picture = 0
            self._fields, self._picture = bytearray(fields), bytearray(picture)
            self._read_into(self._fields)
        elif self._picture and self._into.obj is self._fields:
            self._read_into(self._picture)
        else:
            self._take(Said(read_message(self._fields), self._picture or bytearray()))
            self._fields = None
            self._read_into(self._head)

    def _read_into(self, target: bytearray) -> None:
        self._into, self._filled = memoryview(target), 0

    def _take(self, said: Said) -> None:
        self._said.append(said)
        if len(self._said) >= AHEAD and self._transport is not None:
            self._transport.pause_reading()
        self._more.set()
