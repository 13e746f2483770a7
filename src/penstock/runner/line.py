"""A runner's line to one gateway: dialled again and again, with one session for as long as that lasts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import anyio
import msgspec

from penstock.calls.clock import Clock, Timer
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ProtocolError
from penstock.kv.held import HeldPrefixes
from penstock.protocol.messages import CancelReason
from penstock.protocol.runners import RunnerHello, Welcome
from penstock.protocol.session import Close, Message, Ping, Pong
from penstock.runner.dialling import Target, WireConnection, dial
from penstock.runner.pausing import pause
from penstock.runner.prefix_report import PrefixReport
from penstock.runtime.app import App
from penstock.runtime.session_link import SessionLink
from penstock.runtime.supervisor import Backoff
from penstock.runtime.working_side import WorkingSide

BACKOFF_S = 0.5  # most before the second attempt; doubled from one to the next
BACKOFF_MOST_S = 30.0
RESUMING_MOST_S = 5.0  # ... while the gateway still waits for this session
SILENT_BEATS = 3  # without a word; a gateway asks at every heartbeat
LEAVE_S = 5.0  # how long a gateway may take to acknowledge that this runner leaves, or its last words
FAULTS = 3  # parcels that make no sense, for which a session is given up
REMOVED = 4001  # close code: this runner is not wanted any more
ROOM = 64 * 1024  # bytes of a message that are not the item in it

_log = logging.getLogger("penstock.runner")


class Line:
    """Serves one gateway.

    Args:
        app: Runs its calls; it is started.
        target: Where it is.
        hello: Who this is, and what it offers.
        clock: Tells the time.
        chance: A number from 0 to 1, for the waits between attempts.
        held: What the gateway is told that caches here hold.
    """

    def __init__(
        self,
        app: App,
        target: Target,
        hello: RunnerHello,
        clock: Clock,
        chance: Callable[[], float],
        held: HeldPrefixes,
    ) -> None:
        self._app = app
        self._target = target
        self._hello = hello
        self._clock = clock
        self._tasks = TaskOwner()
        self._backoff = Backoff(BACKOFF_S, BACKOFF_MOST_S, chance, fixed=0.0)
        self._held = held
        self._report = PrefixReport(held, self._send)
        self._link = SessionLink(self._tasks)
        self._calls: WorkingSide | None = None
        self._session = ""
        self._resume_s = 0.0
        self._faults = 0
        self._silence = 0
        self._expiry: Timer | None = None
        self._watch: Timer | None = None
        self._leaving = False
        self._let_go = asyncio.Event()  # the gateway has said that no more calls come
        self._over = asyncio.Event()
        self._connection: WireConnection | None = None
        self._said: str | None = None  # what was logged last

    @property
    def connected(self) -> bool:
        """Whether the gateway is there, as far as is known."""
        return self._connection is not None

    @property
    def calls(self) -> int:
        """Calls whose end was not sent yet."""
        return 0 if self._calls is None else len(self._calls)

    async def run(self) -> None:
        """Dial, and serve, until ``finish``, or until the gateway does not want this runner any more."""
        while not self._over.is_set():
            hello = msgspec.structs.replace(self._hello, session=self._session, received=self._link.received)
            try:
                connection, welcome = await dial(self._target, hello, self._tasks)
            except CallError as error:
                await self._pause(error.message)
            except Exception:  # noqa: BLE001 - the top of a line: whatever breaks, it is dialled again
                _log.exception("%s cannot be dialled", self._target.url)
                await self._pause("")
            else:
                await self._serve(connection, hello, welcome)

    async def leave(self) -> None:
        """Have the gateway send no more calls; returns once it has said so, or if it is not there."""
        self._leaving = True
        if self._connection is not None:
            self._send(Close())
            with anyio.move_on_after(LEAVE_S):
                await self._let_go.wait()

    async def finish(self) -> None:
        """Have the gateway take what is left to say, and close."""
        if self._session:
            self._send(Ping(number=0))  # the answer acknowledges everything before it
            with anyio.move_on_after(LEAVE_S):
                await self._link.flushed()
        self._over.set()
        self._end_session()
        if self._connection is not None:
            await self._connection.aclose(1000, "it leaves")

    async def aclose(self) -> None:
        """Stop, whatever is under way."""
        self._over.set()
        self._drop_timers()
        self._end_session()
        if self._connection is not None:
            await self._connection.aclose(1000, "it leaves")
        await self._tasks.settle(LEAVE_S)
        await self._tasks.aclose()

    # -- one connection ------------------------------------------------------------------------------

    async def _serve(self, connection: WireConnection, hello: RunnerHello, welcome: Welcome) -> None:
        self._connection = connection
        try:
            self._begin(connection, hello.session, welcome)
            while True:
                self._take(await connection.receive())
        except ProtocolError as error:
            self._faults += 1
            self._say(f"{self._target.url} breaks the protocol: {error}")
            connection.close(1002, "that was no parcel")
            if self._faults >= FAULTS:
                self._end_session()
        except CallError as error:
            if not self._over.is_set():
                self._say(f"the connection to {self._target.url} has ended: {error.message}")
        except Exception:  # noqa: BLE001 - the same; what was taken in, and not acted on, is lost to the session
            _log.exception("the connection to %s failed", self._target.url)
            connection.close(1011, "a fault of the runner")
            self._end_session()
        finally:
            connection.close(1000, "it dials again")
            self._connection = None
            self._link.detach()
            self._report.stop()
            self._drop_timers()
        if connection.close_code == REMOVED:
            _log.warning("%s does not want this runner any more", self._target.url)
            self._end_session()
            self._over.set()
        elif self._session:
            self._expiry = self._clock.call_later(self._resume_s, self._end_session)
        if not self._over.is_set():
            await self._pause("")

    def _begin(self, connection: WireConnection, asked: str, welcome: Welcome) -> None:
        """Go on with the session that was asked for, or begin a new one.

        Raises:
            RemoteProtocolError: The gateway cannot have received what it says.
            CallError: The session was given up here while the gateway was asked for it.
        """
        if asked and not self._session and welcome.session == asked:
            raise CallError("it came too late for the session")
        self._drop_timers()
        if welcome.session != self._session:
            self._end_session()
            self._session, self._faults = welcome.session, 0
            self._link = SessionLink(self._tasks, max_message=welcome.max_message)
            max_item = welcome.max_message - min(ROOM, welcome.max_message // 2)
            self._calls = WorkingSide(self._app, self._link, self._tasks, max_item, self._held)
            if self._leaving:
                self._send(Close())
        self._resume_s = welcome.resume_s
        self._link.attach(connection, welcome.received)
        self._report.begin(self._link, welcome.prefix_blocks)
        self._silence = 0
        self._watch_over(connection, welcome.heartbeat_s)
        _log.info("connected to %s", self._target.url)
        self._said = None

    def _take(self, parcel: bytes) -> None:
        messages = self._link.feed(parcel)
        self._silence = 0
        self._backoff.reset()
        for message in messages:
            self._heard(message)
        self._report.tell()  # what could not be told while the gateway was behind

    def _heard(self, message: Message) -> None:
        if isinstance(message, Ping):
            if self._app.answers:  # else its workers are frozen, and this is to be known
                self._send(Pong(number=message.number))
        elif isinstance(message, Close):
            self._let_go.set()
        elif self._calls is not None:
            self._calls.heard(message)

    def _send(self, message: Message) -> None:
        try:
            self._link.send(message)
        except ProtocolError as error:
            self._say(f"{self._target.url} takes nothing: {error}")
            self._end_session()

    def _watch_over(self, connection: WireConnection, heartbeat_s: float) -> None:
        """Leave a gateway that falls silent.

        Beats are counted, not seconds: a runner whose own loop was held counts one, however long it took.
        """

        def look() -> None:
            self._silence += 1
            if self._silence > SILENT_BEATS:
                self._say(f"{self._target.url} is silent")
                connection.abort()
            else:
                self._watch = self._clock.call_later(heartbeat_s, look)

        self._watch = self._clock.call_later(heartbeat_s, look)

    # -- between two ---------------------------------------------------------------------------------

    async def _pause(self, why: str) -> None:
        """Wait before the next attempt, by chance, so that many runners do not come at once."""
        if why:
            self._say(why)
        wait_s = self._backoff.next_s()
        if self._session:
            wait_s = min(wait_s, RESUMING_MOST_S)
        await pause(wait_s, self._over, self._clock, self._tasks)

    def _end_session(self) -> None:
        """Stop what the gateway has given up."""
        self._session = ""
        self._link.close()
        if self._calls is not None:
            calls, self._calls = self._calls, None
            if len(calls):
                _log.warning("%d calls of %s are lost, and stop", len(calls), self._target.url)
            calls.cancel_all(CancelReason.RUNNER_LOST)

    def _drop_timers(self) -> None:
        for timer in (self._expiry, self._watch):
            if timer is not None:
                timer.cancel()
        self._expiry = self._watch = None

    def _say(self, why: str) -> None:
        """Log what is new; a gateway that is down for hours would fill the log."""
        if why != self._said:
            self._said = why
            _log.warning("%s; trying again", why)
