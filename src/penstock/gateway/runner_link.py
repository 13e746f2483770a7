"""One runner as the gateway sees it: what it offers, whether it is there, and the calls it runs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from penstock.calls.clock import Clock, Timer
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode, LocalProtocolError, RemoteProtocolError
from penstock.gateway.checking import check_items, check_object
from penstock.gateway.settings import GatewaySettings
from penstock.protocol.messages import CancelReason
from penstock.protocol.runners import Offer, RunnerHello
from penstock.protocol.session import (
    Cancel,
    Check,
    Checked,
    Close,
    End,
    Items,
    Message,
    Open,
    Ping,
    Pong,
    Progress,
)
from penstock.runtime.remote import RemoteCall
from penstock.runtime.session_link import Connection, SessionLink

UNANSWERED = 2  # pings; at the next, at most 3 heartbeats after its last word, a runner is taken for away

CHECK_S = 2.0  # how long a runner may take to judge an input; then it is accepted, and judged where it runs

CLOSE_NORMAL, CLOSE_BAD, CLOSE_RESTART = 1000, 1002, 1012  # RFC 6455 section 7.4.1
CLOSE_AWAY, CLOSE_REMOVED = 4000, 4001  # ours: it did not answer; it is not wanted any more

_log = logging.getLogger("penstock.gateway")


class Stranded(CallError):
    """The runner of a call is lost or away before the call's first item; it may run elsewhere."""

    code = ErrorCode.UNAVAILABLE


class Watcher(Protocol):
    """Is told what becomes of a runner."""

    def changed(self, runner: RunnerLink) -> None:
        """It takes calls now, or does no longer."""
        ...

    def gone(self, runner: RunnerLink) -> None:
        """It is lost, or has left; it never comes back."""
        ...


class RunnerLink:
    """Carries the calls of one runner, over one connection after the other.

    Args:
        hello: Who it is.
        session: The secret by which it comes back.
        settings: Times and sizes.
        clock: Tells the time.
        tasks: Owns what writes to it.
        watcher: Is told what becomes of it.
        still_welcome: Whether what let it in would still let it in.
    """

    def __init__(
        self,
        hello: RunnerHello,
        session: str,
        settings: GatewaySettings,
        clock: Clock,
        tasks: TaskOwner,
        watcher: Watcher,
        still_welcome: Callable[[], bool],
    ) -> None:
        self.name = hello.name
        self.session = session
        self.software = hello.software
        self.labels: Mapping[str, str] = hello.labels
        self.capacity = hello.capacity
        self.offers: Mapping[str, Offer] = {offer.name: offer for offer in hello.offers}
        self.weight = 1.0
        self.turn = 0.0  # grows with each call it is given, the slower the greater its weight
        self.draining = False  # it is given no more calls
        self.leaving = False  # ... as it said itself
        self.gone = False
        self.confirmed = False  # it has the welcome, and with it the secret by which it comes back
        self.prepared = True  # it has the state that is in force
        self.connected_at = clock.wall()
        self.load = 0  # places taken
        self.used: Counter[str] = Counter()  # ... by command
        self.link = SessionLink(tasks)
        self._settings = settings
        self._clock = clock
        self._watcher = watcher
        self._still_welcome = still_welcome
        self._calls: dict[str, RemoteCall] = {}
        self._movable: set[str] = set()
        self._checks: dict[int, asyncio.Future[CallError | None]] = {}
        self._unanswered = 0
        self._number = 0
        self._away_since: float | None = None
        self._timer: Timer | None = None

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether it is there, as far as is known."""
        return not self.gone and self._away_since is None

    @property
    def takes(self) -> bool:
        """Whether it may be given calls."""
        return self.connected and self.confirmed and self.prepared and self.expected

    @property
    def expected(self) -> bool:
        """Whether it may be given calls, or is away and may come back to take some."""
        return not (self.gone or self.draining or self.leaving) and self.weight > 0

    @property
    def calls(self) -> int:
        """How many calls it has."""
        return len(self._calls)

    def concurrency(self, command: str) -> int:
        """Return how many calls of ``command`` it runs at once."""
        offer = self.offers.get(command)
        return 0 if offer is None else min(offer.concurrency, self.capacity)

    def has_room(self, command: str) -> bool:
        """Whether it takes a call of ``command`` now."""
        return self.takes and self.used[command] < self.concurrency(command) and self.load < self.capacity

    @property
    def state(self) -> str:
        """How it is, in a word: connecting, connected, draining, leaving, away or gone."""
        if self.gone:
            return "gone"
        if self._away_since is not None:
            return "away"
        if not (self.confirmed and self.prepared):
            return "connecting"
        return "leaving" if self.leaving else "draining" if self.draining else "connected"

    @property
    def status(self) -> str:
        """How it is, in a few words."""
        if self._away_since is not None and not self.gone:
            away_s = self._clock.monotonic() - self._away_since
            return f"away for {away_s:.0f} s, {self.calls} calls wait"
        return f"{self.state}, {self.calls} calls"

    # -- calls ---------------------------------------------------------------------------------------

    def call(self, opening: Open, *, movable: bool) -> RemoteCall:
        """Open a call.

        Args:
            movable: It may run elsewhere if this runner is lost before its first item.

        Raises:
            CallError: ``unavailable``, it is gone; ``too_large``.
        """
        if self.gone:
            raise self._loss("it is gone")
        call = RemoteCall(self, opening)
        self._calls[opening.request_id] = call
        if movable:
            self._movable.add(opening.request_id)
        return call

    async def check(self, command: str, text: bytes) -> CallError | None:
        """Return what a call would be refused with; None also if the runner is lost meanwhile."""
        if not self.connected:
            return None
        self._number += 1
        number = self._number
        self._checks[number] = answer = asyncio.get_running_loop().create_future()
        try:
            self.send(Check(number=number, command=command, input=text))
            await asyncio.wait((answer,), timeout=CHECK_S)
            return answer.result() if answer.done() else None
        finally:
            self._checks.pop(number, None)

    def strand(self) -> None:
        """Let go of the calls that may run elsewhere; when this runner comes back it is told to stop them."""
        for request_id in tuple(self._movable):
            call = self._calls[request_id]
            if not call.begun:
                self._forget(request_id)
                self.send(Cancel(request_id=request_id, reason=CancelReason.RUNNER_LOST))
                call.lose(Stranded(f"the runner {self.name} was lost; try again", retry_after_s=1))

    def send(self, message: Message) -> None:
        """See ``penstock.runtime.remote.Carrier``; a runner that lets everything pile up is given up.

        Raises:
            LocalProtocolError: An ``Open`` is too large.
        """
        try:
            self.link.send(message)
        except LocalProtocolError as error:
            if isinstance(message, Open):
                raise
            self.lose(f"it takes nothing: {error}", CLOSE_BAD)

    def kill(self, why: str) -> None:
        """See ``penstock.runtime.remote.Carrier``; a runner is not ours to kill, nor are its other calls."""
        _log.warning("runner %s: %s; its place there stays taken until it stops", self.name, why)

    # -- connections ---------------------------------------------------------------------------------

    def attach(self, connection: Connection, received: int) -> None:
        """It is there, over ``connection``, and has received messages up to that number.

        Raises:
            RemoteProtocolError: It cannot have.
        """
        former = self.link.connection
        self.link.attach(connection, received)
        if former is not None:
            former.close(CLOSE_AWAY, "it came back on another connection")
        self._away_since = None
        self._unanswered = 0
        self._plan(self._settings.heartbeat_s, self._beat)
        self._ping()
        self._watcher.changed(self)

    def detach(self, connection: Connection) -> None:
        """``connection`` has ended."""
        if self.link.connection is connection or (self.link.connection is None and self.connected):
            self._go_away("its connection ended")

    def feed(self, connection: Connection, parcel: bytes) -> None:
        """Take a parcel that came over ``connection``.

        Raises:
            RemoteProtocolError: It is none, or what is in it breaks the protocol: the runner is lost.
        """
        if self.gone or self.link.connection is not connection:
            return
        try:
            messages = self.link.feed(parcel)
        except RemoteProtocolError as error:
            # Nothing of it was taken: what was meant is sent again on the next connection.
            _log.warning("runner %s broke the protocol: %s", self.name, error)
            connection.close(CLOSE_BAD, "that was no parcel")
            self._go_away("it broke the protocol")
            return
        if messages:
            self._unanswered = 0
        if not self.confirmed:
            self.confirmed = True
            self._watcher.changed(self)
        try:
            for message in messages:
                self._heard(message)
        except RemoteProtocolError as error:
            self.lose(f"it broke the protocol: {error}", CLOSE_BAD)

    def lose(self, why: str, code: int) -> None:
        """It never comes back: its calls fail, or run elsewhere.

        Args:
            code: What its connection is closed with.
        """
        if self.gone:
            return
        self.gone = True
        self._drop_timer()
        connection = self.link.close()
        if connection is not None:
            connection.close(code, why[:100])
        if self._calls:
            _log.warning("runner %s is lost (%s); it had %d calls", self.name, why, len(self._calls))
        calls, self._calls = self._calls, {}
        for request_id, call in calls.items():
            moves = request_id in self._movable and not call.begun
            call.lose(Stranded(str(self._loss(why)), retry_after_s=1) if moves else self._loss(why))
        self._movable.clear()
        self._let_checks_be()
        self._watcher.gone(self)

    def leave(self) -> None:
        """Close, as the gateway stops."""
        self.lose("the gateway is stopping", CLOSE_RESTART)

    # -- inside --------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        if isinstance(message, (Items, Progress, End)):
            call = self._calls.get(message.request_id)
            if call is not None:  # else it has ended, or runs elsewhere
                self._deliver(call, message)
        elif isinstance(message, Ping):
            self.send(Pong(number=message.number))
        elif isinstance(message, Checked):
            answer = self._checks.get(message.number)
            if answer is not None and not answer.done():
                answer.set_result(None if message.error is None else message.error.error())
        elif isinstance(message, Close):
            self.leaving = True
            self.send(Close())  # behind the last call that it was given
            self._watcher.changed(self)

    def _deliver(self, call: RemoteCall, message: Items | Progress | End) -> None:
        if isinstance(message, Items):
            check_items(message.items)
        elif isinstance(message, Progress):
            check_object(message.about)
        else:
            check_items([] if message.answer is None else [message.answer])
            self._forget(message.request_id)
        call.heard(message)
        if call.untaken > 2 * self._settings.window + self.link.max_message:
            raise RemoteProtocolError("it sends more than it has credit for")

    def _let_checks_be(self) -> None:
        for answer in self._checks.values():
            if not answer.done():
                answer.set_result(None)

    def _forget(self, request_id: str) -> None:
        self._calls.pop(request_id, None)
        self._movable.discard(request_id)

    def _beat(self) -> None:
        if not self._still_welcome():
            self.lose("its key is no longer good", CLOSE_REMOVED)
            return
        if self._unanswered >= UNANSWERED:
            connection = self.link.connection
            if connection is not None:
                connection.close(CLOSE_AWAY, "it does not answer")
            self._go_away("it does not answer")
            return
        self._unanswered += 1
        self._plan(self._settings.heartbeat_s, self._beat)
        self._ping()

    def _ping(self) -> None:
        self._number += 1
        self.send(Ping(number=self._number))

    def _go_away(self, why: str) -> None:
        if self.gone or not self.connected:
            return
        self.link.detach()
        self._drop_timer()
        if self.leaving and not self._calls:
            self.lose("it has left", CLOSE_NORMAL)
            return
        if not self.confirmed:
            self.lose("it never answered", CLOSE_AWAY)
            return
        self._let_checks_be()
        self._away_since = self._clock.monotonic()
        _log.warning("runner %s is away (%s); %d calls wait for it", self.name, why, len(self._calls))
        seconds = self._settings.resume_s
        self._plan(seconds, lambda: self.lose(f"it was away for {seconds:g} s", CLOSE_AWAY))
        self._watcher.changed(self)

    def _loss(self, why: str) -> CallError:
        text = f"the runner {self.name} was lost ({why}); try again"
        return CallError(text, ErrorCode.UNAVAILABLE, retry_after_s=1)

    def _plan(self, delay_s: float, then: Callable[[], object]) -> None:
        self._drop_timer()
        self._timer = self._clock.call_later(delay_s, then)

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
