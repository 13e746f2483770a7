"""One runner as the gateway sees it, over whatever link it came: what it offers, whether it is there, and the
calls it runs."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from penstock.calls.clock import Clock
from penstock.errors import CallError, ErrorCode
from penstock.gateway.prefixes import RunnerPrefixes
from penstock.protocol.messages import CancelReason
from penstock.protocol.runners import Offer
from penstock.protocol.session import Cancel, Message, Open
from penstock.runtime.remote import RemoteCall
from penstock.runtime.workflow import Workflow

_log = logging.getLogger("penstock.gateway")


class Parting(Enum):
    """Why a runner and the gateway part."""

    LEFT = auto()  # as the runner said it would
    AWAY = auto()  # it did not answer, or did not come back
    REMOVED = auto()  # it is not wanted any more
    BROKE = auto()  # it broke the protocol
    STOPPING = auto()  # the gateway stops; it may dial again


class Stranded(CallError):
    """The runner of a call is lost or away before the call's first item; it may run elsewhere."""

    code = ErrorCode.UNAVAILABLE


class Watcher(Protocol):
    """Is told what becomes of a runner."""

    def changed(self, runner: Runner) -> None:
        """It takes calls now, or does no longer."""
        ...

    def gone(self, runner: Runner) -> None:
        """It is lost, or has left; it never comes back."""
        ...


@dataclass(frozen=True)
class Identity:
    """Who a runner is.

    Attributes:
        name: No two of a gateway have the same.
        session: The secret by which it comes back; empty where its link has none.
        key: The id of the key it came with; empty where there are no keys.
        software: What it is, for people.
        labels: For calls that ask for some.
    """

    name: str
    session: str = field(default="", repr=False)
    key: str = ""
    software: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Runner(ABC):
    """Where calls run.  Links differ in how they carry a call's messages; the rest is here.

    Args:
        identity: Who it is.
        offers: What it runs.
        capacity: Calls at once, whatever they are.
        clock: Tells the time.
        watcher: Is told what becomes of it.
    """

    def __init__(
        self,
        identity: Identity,
        offers: Mapping[str, Offer],
        capacity: int,
        clock: Clock,
        watcher: Watcher,
    ) -> None:
        self.identity = identity
        self.name = identity.name
        self.labels = identity.labels
        self.offers = offers
        self.workflows: Mapping[str, Workflow] = {}
        """Those that it offers, ready to run."""
        self.default_command = ""
        """Of calls that name none, as it says; empty if it does not."""
        self.prefixes = RunnerPrefixes(0)
        """What its caches hold; nothing is known where its link does not say."""
        self.capacity = capacity
        self.weight = 1.0
        self.turn = 0.0  # grows with each call it is given, the slower the greater its weight
        self.draining = False  # it is given no more calls
        self.leaving = False  # ... as it said itself
        self.gone = False
        self.confirmed = False  # it is known to have been taken in
        self.prepared = True  # it has the state that is in force
        self.connected_at = clock.wall()
        self.load = 0  # places taken
        self.used: Counter[str] = Counter()  # ... by command
        self._clock = clock
        self._watcher = watcher
        self._calls: dict[str, RemoteCall] = {}
        self._movable: set[str] = set()
        self._away_since: float | None = None

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
        """Return what a call would be refused with, if it can be known before the call runs."""
        return None

    async def check_workflow(self, name: str, text: bytes) -> None:
        """See that one of its workflows takes an input.

        Raises:
            CallError: It does not, or that cannot be known: ``unavailable``.
        """
        raise CallError(f"{self.name} does not say whether it takes this input", ErrorCode.UNAVAILABLE)

    def strand(self) -> None:
        """Let go of the calls that may run elsewhere; when this runner comes back it is told to stop them."""
        for request_id in tuple(self._movable):
            call = self._calls[request_id]
            if not call.begun:
                self._forget(request_id)
                self.send(Cancel(request_id=request_id, reason=CancelReason.RUNNER_LOST))
                call.lose(Stranded(f"the runner {self.name} was lost; try again", retry_after_s=1))

    @abstractmethod
    def send(self, message: Message) -> None:
        """See ``penstock.runtime.remote.Carrier``.

        Raises:
            LocalProtocolError: An ``Open`` or an ``Input`` is too large, or too much waits for one.
        """

    def kill(self, why: str) -> None:
        """See ``penstock.runtime.remote.Carrier``; a runner is not ours to kill, nor are its other calls."""
        _log.warning("runner %s: %s; its place there stays taken until it stops", self.name, why)

    # -- its end -------------------------------------------------------------------------------------

    def lose(self, why: str, parting: Parting) -> None:
        """It never comes back: its calls fail, or run elsewhere."""
        if self.gone:
            return
        self.gone = True
        self._part(why, parting)
        if self._calls:
            _log.warning("runner %s is lost (%s); it had %d calls", self.name, why, len(self._calls))
        for request_id in tuple(self._calls):
            self._lose_call(request_id, why)
        self._watcher.gone(self)

    def leave(self) -> None:
        """Close, as the gateway stops."""
        self.lose("the gateway is stopping", Parting.STOPPING)

    @abstractmethod
    def _part(self, why: str, parting: Parting) -> None:
        """Close what connects it, and forget who else waits for its answers."""

    # -- inside --------------------------------------------------------------------------------------

    def _lose_call(self, request_id: str, why: str) -> None:
        call = self._calls[request_id]
        moves = request_id in self._movable and not call.begun
        self._forget(request_id)
        loss = self._loss(why)
        call.lose(Stranded(str(loss), retry_after_s=1) if moves else loss)

    def _forget(self, request_id: str) -> None:
        self._calls.pop(request_id, None)
        self._movable.discard(request_id)

    def _loss(self, why: str) -> CallError:
        text = f"the runner {self.name} was lost ({why}); try again"
        return CallError(text, ErrorCode.UNAVAILABLE, retry_after_s=1)
