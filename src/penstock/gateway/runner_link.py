"""A runner that came over penstock's own link."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from penstock.calls.clock import Clock, Timer
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, LocalProtocolError, RemoteProtocolError
from penstock.gateway.checking import check_items, check_object
from penstock.gateway.prefixes import RunnerPrefixes
from penstock.gateway.runner import Identity, Parting, Runner, Watcher
from penstock.gateway.settings import GatewaySettings
from penstock.protocol.reliable import MAX_KEPT
from penstock.protocol.runners import RunnerHello
from penstock.protocol.session import (
    Cached,
    Check,
    Checked,
    Close,
    End,
    Input,
    InputTaken,
    Items,
    Message,
    Open,
    Ping,
    Pong,
    Progress,
)
from penstock.runtime.offered_workflows import plan_offered
from penstock.runtime.remote import RemoteCall
from penstock.runtime.session_link import Connection, SessionLink

UNANSWERED = 2  # pings; at the next, at most 3 heartbeats after its last word, a runner is taken for away

MAX_INPUT_KEPT = MAX_KEPT // 2  # bytes for a runner; the rest is for what must not be refused
CHECK_S = 2.0  # how long a runner may take to judge an input; then it is accepted, and judged where it runs

CLOSE_CODES: Mapping[Parting, int] = {  # RFC 6455 section 7.4.1; those from 4000 on are ours
    Parting.LEFT: 1000,
    Parting.BROKE: 1002,
    Parting.STOPPING: 1012,
    Parting.AWAY: 4000,
    Parting.REMOVED: 4001,
}

_log = logging.getLogger("penstock.gateway")


class _Said(NamedTuple):
    """What a runner says of an input."""

    refusal: CallError | None


class RunnerLink(Runner):
    """Carries the calls of one runner, over one connection after the other.

    Args:
        hello: Who it is.
        session: The secret by which it comes back.
        key: The id of the key it came with.
        settings: Times and sizes.
        clock: Tells the time.
        tasks: Owns what writes to it.
        watcher: Is told what becomes of it.
        still_welcome: Whether what let it in would still let it in.

    Raises:
        CallError: ``invalid_argument``; a workflow that it offers is none.
    """

    def __init__(
        self,
        hello: RunnerHello,
        session: str,
        key: str,
        settings: GatewaySettings,
        clock: Clock,
        tasks: TaskOwner,
        watcher: Watcher,
        still_welcome: Callable[[], bool],
    ) -> None:
        identity = Identity(hello.name, session, key, hello.software, hello.labels)
        offers = {offer.name: offer for offer in hello.offers}
        super().__init__(identity, offers, hello.capacity, clock, watcher)
        self.workflows = plan_offered(hello.workflows, offers)
        self.default_command = hello.default_command
        self.prefixes = RunnerPrefixes(settings.prefix_blocks)
        self.link = SessionLink(tasks)
        self._settings = settings
        self._still_welcome = still_welcome
        self._checks: dict[int, asyncio.Future[_Said | None]] = {}
        self._unanswered = 0
        self._number = 0
        self._timer: Timer | None = None

    # -- calls ---------------------------------------------------------------------------------------

    async def check(self, command: str, text: bytes) -> CallError | None:
        """See ``Runner.check``; None also if the runner is lost meanwhile."""
        said = await self._ask(partial(Check, command=command, input=text))
        return None if said is None else said.refusal

    async def check_workflow(self, name: str, text: bytes) -> None:
        """See ``Runner.check_workflow``."""
        said = await self._ask(partial(Check, workflow=name, input=text))
        if said is None:
            await super().check_workflow(name, text)
        elif said.refusal is not None:
            raise said.refusal

    async def _ask(self, question: Callable[..., Check]) -> _Said | None:
        """Put a question to the runner; None if it is not there, or does not answer in time."""
        if not self.connected:
            return None
        self._number += 1
        number = self._number
        self._checks[number] = answer = asyncio.get_running_loop().create_future()
        try:
            self.send(question(number=number))
            await asyncio.wait((answer,), timeout=CHECK_S)
            return answer.result() if answer.done() else None
        finally:
            self._checks.pop(number, None)

    def send(self, message: Message) -> None:
        """See ``Runner.send``; a runner that lets everything pile up is given up."""
        if isinstance(message, Input) and self.link.unacknowledged + len(message.item) > MAX_INPUT_KEPT:
            raise LocalProtocolError(f"{self.link.unacknowledged} bytes wait")
        try:
            self.link.send(message)
        except LocalProtocolError as error:
            if isinstance(message, (Open, Input)):
                raise
            self.lose(f"it takes nothing: {error}", Parting.BROKE)

    # -- connections ---------------------------------------------------------------------------------

    def attach(self, connection: Connection, received: int) -> None:
        """It is there, over ``connection``, and has received messages up to that number.

        Raises:
            RemoteProtocolError: It cannot have.
        """
        former = self.link.connection
        self.link.attach(connection, received)
        if former is not None:
            former.close(CLOSE_CODES[Parting.AWAY], "it came back on another connection")
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
            connection.close(CLOSE_CODES[Parting.BROKE], "that was no parcel")
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
            self.lose(f"it broke the protocol: {error}", Parting.BROKE)

    def _part(self, why: str, parting: Parting) -> None:
        self._drop_timer()
        connection = self.link.close()
        if connection is not None:
            connection.close(CLOSE_CODES[parting], why[:100])
        self._let_checks_be()

    # -- inside --------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        if isinstance(message, (Items, Progress, End)):
            call = self._calls.get(message.request_id)
            if call is not None:  # else it has ended, or runs elsewhere
                self._deliver(call, message)
        elif isinstance(message, Cached):
            self.prefixes.hear(message)
        elif isinstance(message, InputTaken):
            if (call := self._calls.get(message.request_id)) is not None:
                call.input_taken(message.count)
        elif isinstance(message, Ping):
            self.send(Pong(number=message.number))
        elif isinstance(message, Checked):
            answer = self._checks.get(message.number)
            if answer is not None and not answer.done():
                answer.set_result(_Said(None if message.error is None else message.error.error()))
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

    def _beat(self) -> None:
        if not self._still_welcome():
            self.lose("its key is no longer good", Parting.REMOVED)
            return
        if self._unanswered >= UNANSWERED:
            connection = self.link.connection
            if connection is not None:
                connection.close(CLOSE_CODES[Parting.AWAY], "it does not answer")
            self._go_away("it does not answer")
            return
        self._unanswered += 1
        self.prefixes.beat()
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
            self.lose("it has left", Parting.LEFT)
            return
        if not self.confirmed:
            self.lose("it never answered", Parting.AWAY)
            return
        self._let_checks_be()
        self._away_since = self._clock.monotonic()
        _log.warning("runner %s is away (%s); %d calls wait for it", self.name, why, len(self._calls))
        seconds = self._settings.resume_s
        self._plan(seconds, lambda: self.lose(f"it was away for {seconds:g} s", Parting.AWAY))
        self._watcher.changed(self)

    def _plan(self, delay_s: float, then: Callable[[], object]) -> None:
        self._drop_timer()
        self._timer = self._clock.call_later(delay_s, then)

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
