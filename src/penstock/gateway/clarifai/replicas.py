"""The replicas that are there: who they are, what they run, and whether they are welcome."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from penstock.calls.clock import Clock
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.annotation_form import annotation_command
from penstock.gateway.clarifai.assignments import Assignments
from penstock.gateway.clarifai.binding import Bindings, ServedModel
from penstock.gateway.clarifai.forms import Form, SignaturesForm, raw_commands
from penstock.gateway.clarifai.hello import Hello, ReplicaId
from penstock.gateway.clarifai.lanes import Lane, Line
from penstock.gateway.clarifai.replica import Replica
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.gateway.clarifai.typed import typed_commands
from penstock.gateway.door import Visitor
from penstock.gateway.hub import Hub
from penstock.protocol.runners import Offer

ASK_S = 30.0  # how long a replica may take to say what its methods are
ASKED = 3  # times
MAX_REMOVED = 10_000  # replicas that were sent away and are still remembered

_log = logging.getLogger("penstock.gateway")


class Replicas:
    """Finds the replica of a stream, or makes it known.

    Args:
        hub: Whose runners they become.
        link: How they are treated.
        bindings: Knows which models runners were announced for.
        clock: Tells the time.
        assignments: The tasks of annotation.
    """

    def __init__(
        self,
        hub: Hub,
        link: LinkSettings,
        bindings: Bindings,
        clock: Clock,
        assignments: Assignments | None = None,
    ) -> None:
        self._hub = hub
        self._link = link
        self._bindings = bindings
        self._clock = clock
        self._assignments = assignments or Assignments(clock)
        self._known: dict[ReplicaId, Replica] = {}
        self._removed: dict[ReplicaId, None] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._known)

    def close(self) -> None:
        """Take no more of them."""
        self._closing = True
        for replica in tuple(self._known.values()):
            replica.drop("the gateway is stopping")

    def of(self, hello: Hello, visitor: Visitor) -> Replica:
        """Return the replica that a stream is of.

        Raises:
            CallError: ``not_found``, it was sent away; ``resource_exhausted``, there are too many;
                ``unavailable``.
        """
        replica = self._known.get(hello.who)
        if replica is not None:
            return replica
        if self._closing:
            raise CallError("the gateway is stopping", ErrorCode.UNAVAILABLE, retry_after_s=1)
        if hello.who in self._removed:
            raise CallError(f"the runner {hello.who.name} was removed here", ErrorCode.NOT_FOUND)
        if len(self._known) >= self._hub.settings.max_runners:
            text = f"{len(self._known)} runners are connected, as many as this gateway takes"
            raise CallError(text, ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=30)
        replica = Replica(
            hello,
            self._model_of(hello.who).labels(),
            self._hub.settings,
            self._link,
            self._clock,
            self._hub,
            self._hub.runners.serve,
            visitor.still_welcome,
            self._forget,
            self._assignments,
        )
        self._known[hello.who] = replica
        return replica

    def open_lane(self, replica: Replica, line: Line, hello: Hello, visitor: Visitor) -> Lane:
        """A replica has opened a data stream; by its first one it says what it runs."""
        lane = replica.open_lane(line, primary=hello.primary)
        if hello.primary:
            replica.tasks.said_to_run(hello.tasks)
        if not replica.introduced:
            replica.introduced = True
            work = self._introduce(replica, self._model_of(hello.who), visitor.commands)
            self._hub.links.start(work, name=f"introducing {replica.name}")
        return lane

    async def _introduce(self, replica: Replica, model: ServedModel, allowed: frozenset[str] | None) -> None:
        offers, forms = await self._commands_of(replica, model)
        await replica.settle()
        if replica.gone:
            return
        if replica.primaries:
            offer, form = annotation_command(model)
            offers, forms = [*offers, offer], {offer.name: form, **forms}
        mine = {
            offer.name: msgspec.structs.replace(offer, queue=self._link.queue)
            for offer in offers
            if allowed is None or offer.name in allowed
        }
        try:
            if not mine:
                names = ", ".join(offer.name for offer in offers)
                text = f"the key of this runner lets it offer none of {names[:200]}"
                raise CallError(text, ErrorCode.PERMISSION_DENIED)
            self._hub.check_welcome(mine.keys(), allowed)
            replica.introduce(mine, forms)
            self._hub.take_in(replica)
        except CallError as error:
            _log.warning("the runner %s was refused: %s", replica.name, error.message)
            replica.refuse(error)
            return
        replica.come()

    async def _commands_of(
        self, replica: Replica, model: ServedModel
    ) -> tuple[list[Offer], Mapping[str, Form]]:
        """Return what a replica runs: its methods, as far as it says them, and what every model has."""
        offers, forms = raw_commands(model.model_id)
        for _ in range(ASKED):
            if replica.gone:
                break
            try:
                text = await replica.ask(SignaturesForm(), b"{}", ASK_S)
                more, typed = typed_commands(model, text)
                return [*more, *offers], {**typed, **forms}
            except CallError as error:
                _log.warning("the runner %s does not say its methods: %s", replica.name, error.message)
                if error.code is not ErrorCode.UNAVAILABLE:
                    break
        return offers, forms

    def _model_of(self, who: ReplicaId) -> ServedModel:
        announced = self._bindings.model_of(who.user, who.runner)
        return announced or ServedModel(model_id=who.runner, user_id=who.user)

    def _forget(self, replica: Replica) -> None:
        if self._known.get(replica.who) is replica:
            del self._known[replica.who]
        if replica.removed:
            while len(self._removed) >= MAX_REMOVED:
                del self._removed[next(iter(self._removed))]
            self._removed[replica.who] = None
