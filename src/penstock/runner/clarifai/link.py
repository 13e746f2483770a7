"""The connection to a server: dialled again and again, and shared by all streams of a runner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import grpc
import grpc.aio

from penstock.calls.clock import Clock
from penstock.calls.tasks import TaskOwner
from penstock.runner.clarifai.address import Address
from penstock.runner.clarifai.identity import Credentials
from penstock.runner.clarifai.wire import Stream, StreamLost
from penstock.runner.pausing import pause
from penstock.runtime.supervisor import Backoff

CONNECT_S = 10.0
STEADY_S = 10.0  # a connection that lasted so long was a good one
BACKOFF_S = 0.5  # most before the second attempt; doubled from one to the next
BACKOFF_MOST_S = 30.0

_READY, _FAILED = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
_log = logging.getLogger("penstock.runner")


class Connection:
    """One connection, and who uses it.

    One that is lost to the server may still carry the end of what is under way on it: it is closed when the
    last stream on it has ended.
    """

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials, tasks: TaskOwner) -> None:
        self._channel = channel
        self._credentials = credentials
        self._tasks = tasks
        self._streams = 0
        self._retired = False

    @contextmanager
    def stream(self, *, control: bool = False, primary: bool = False) -> Iterator[Stream]:
        """Open a stream on it, which is ended on leaving if it has not ended.

        Raises:
            StreamLost: It was closed meanwhile.
        """
        stream = Stream(self._channel, self._credentials.metadata(control=control, primary=primary))
        self._streams += 1
        try:
            yield stream
        finally:
            stream.cancel()
            self._streams -= 1
            self._close_if_idle()

    def retire(self) -> None:
        """Say that nobody opens streams on it any more."""
        self._retired = True
        self._close_if_idle()

    async def connect(self) -> str:
        """Connect; returns why that was not possible, empty if it was."""
        with anyio.move_on_after(CONNECT_S):
            state = self._channel.get_state(try_to_connect=True)
            while state not in (_READY, _FAILED):
                await self._channel.wait_for_state_change(state)
                state = self._channel.get_state(try_to_connect=True)
            return "" if state is _READY else await self._why()
        return f"nothing came back for {CONNECT_S:g} s"

    async def until_lost(self) -> None:
        """Return when the connection is no longer good for new streams."""
        await self._channel.wait_for_state_change(_READY)

    async def aclose(self) -> None:
        """Close it, whoever uses it."""
        self._retired = True
        await self._channel.close()

    async def _why(self) -> str:
        """Return what gRPC knows of a failure: it says so only to who asks for a stream."""
        try:
            with self.stream() as stream:
                await stream.receive()
        except StreamLost as lost:
            return lost.why
        return "it hung up"

    def _close_if_idle(self) -> None:
        if self._retired and not self._streams:
            self._tasks.start(self._channel.close(), name="close channel")


class Link:
    """Keeps a connection to one server.

    Args:
        address: Where it is.
        credentials: What is shown there.
        clock: Tells the time.
        chance: A number from 0 to 1, for the waits between attempts.
    """

    def __init__(
        self, address: Address, credentials: Credentials, clock: Clock, chance: Callable[[], float]
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._clock = clock
        self._tasks = TaskOwner()
        self._backoff = Backoff(BACKOFF_S, BACKOFF_MOST_S, chance, fixed=0.0)
        self._there = asyncio.Event()
        self._over = asyncio.Event()
        self._connection: Connection | None = None
        self._said: str | None = None  # what was logged last

    @property
    def connected(self) -> bool:
        """Whether the server is there, as far as is known."""
        return self._connection is not None

    async def connection(self) -> Connection:
        """Return the connection, once there is one."""
        while self._connection is None:
            await self._there.wait()
        return self._connection

    def heard(self) -> None:
        """Say that the server has said something: the next loss is a new one."""
        self._backoff.reset()
        self._said = None

    def say(self, why: str) -> None:
        """Log what is new; a server that is down for hours would fill the log."""
        if why != self._said:
            self._said = why
            _log.warning("%s: %s; trying again", self._address, why)

    async def run(self) -> None:
        """Connect, again and again, until ``aclose``."""
        while not self._over.is_set():
            try:
                await self._dial()
            except Exception:  # noqa: BLE001 - the top of a link: whatever breaks, it is dialled again
                _log.exception("the connection to %s failed", self._address)
            if not self._over.is_set():
                await pause(self._backoff.next_s(), self._over, self._clock, self._tasks)

    async def aclose(self) -> None:
        """Hang up."""
        self._over.set()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()
        await self._tasks.aclose()

    async def _dial(self) -> None:
        connection = Connection(self._address.channel(), self._credentials, self._tasks)
        try:
            await self._keep(connection)
        except BaseException:
            await connection.aclose()
            raise
        connection.retire()

    async def _keep(self, connection: Connection) -> None:
        """Connect, and return when that failed, or when the connection is lost."""
        if why := await connection.connect():
            self.say(f"no server answers ({why})")
            return
        began = self._clock.monotonic()
        _log.info("connected to %s", self._address)
        self._connection = connection
        self._there.set()
        try:
            await connection.until_lost()
        finally:
            self._connection = None
            self._there.clear()
        if self._clock.monotonic() - began >= STEADY_S:
            self.heard()
        if not self._over.is_set():
            self.say("the connection is lost")
