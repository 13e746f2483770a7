"""``ClarifaiRunner``: offers an app's commands to a server of Clarifai's runners."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from penstock.calls.clock import Clock, SystemClock
from penstock.calls.tasks import TaskOwner
from penstock.protocol.messages import CancelReason
from penstock.runner.clarifai.address import Address
from penstock.runner.clarifai.admission import Admission
from penstock.runner.clarifai.annotating import Annotator
from penstock.runner.clarifai.annotation_tasks import AnnotationTasks
from penstock.runner.clarifai.control import Control
from penstock.runner.clarifai.identity import Credentials, Identity
from penstock.runner.clarifai.item import MAX_OUTPUT, Workshop
from penstock.runner.clarifai.items import Items
from penstock.runner.clarifai.link import Link
from penstock.runner.clarifai.methods import Methods
from penstock.runner.clarifai.probes import Probe, Probes
from penstock.runner.clarifai.readiness import Readiness
from penstock.runner.clarifai.slot import LEAVE_S, Slot
from penstock.runner.clarifai.work_stream import Place
from penstock.runner.pausing import pause
from penstock.runtime.app import App

MAX_THREADS = 1024
USUAL_THREADS = 16

_log = logging.getLogger("penstock.runner")


class ClarifaiRunner:
    """Serves an app's commands to a server that speaks `ProcessRunnerItems`; ``async with`` starts and
    stops it.

    Args:
        app: Runs the calls; it is started and closed here.
        address: Where the server is.
        identity: Who this is there.
        credentials: What is shown there.
        threads: Items at once, each on a stream of its own; without it as many as the app runs of one
            command, at most 16.
        clock: Tells the time.
        chance: A number from 0 to 1, for the waits between attempts.
        max_output: Bytes that an output may have.
        annotator: Does tasks of annotation; without it they are refused.
        health: Address and port where probes are answered; None: they are not.

    Raises:
        ValueError: ``threads`` is no number from 1 to 1024.
    """

    def __init__(
        self,
        app: App,
        address: Address,
        identity: Identity,
        credentials: Credentials | None = None,
        *,
        threads: int | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        max_output: int = MAX_OUTPUT,
        annotator: Annotator | None = None,
        health: tuple[str, int] | None = None,
    ) -> None:
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"--threads is a number from 1 to {MAX_THREADS} (not {threads})")
        self._app = app
        self._address = address
        self._identity = identity
        self._threads = threads
        self._clock = clock or SystemClock()
        self._chance = chance
        self._max_output = max_output
        self._annotator = annotator
        self._annotations: AnnotationTasks | None = None
        self._has_started = self._leaves = False
        self.probes = None if health is None else Probes(*health, self._probes())
        """Where probes are answered."""
        self._items = Items()
        self._tasks = TaskOwner()
        self._link = Link(address, credentials or Credentials(), self._clock, chance)
        self._control = Control(self._link, identity, self._cancel, self._clock, chance)
        self._readiness = Readiness(app, self._clock, self._withdraw)
        self.slots: list[Slot] = []
        """One for each stream, once it is started."""
        self.over = asyncio.Event()
        """Never set: a server that does not want a runner today may want it tomorrow."""

    async def __aenter__(self) -> ClarifaiRunner:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def words(self) -> str:
        """What it offers, and where, for people."""
        commands = ", ".join(self._app.commands) or "none"
        who = f"runner {self._identity.runner_id} of {self._identity.user_id}"
        probed = "" if self.probes is None else f"; probes at {self.probes.where}"
        return f"{who} offers {commands} to {self._address}, {len(self.slots)} at once{probed}"

    @property
    def connected(self) -> bool:
        """Whether the server is there, and cancels can come, as far as is known."""
        return self._link.connected and self._control.open

    @property
    def items(self) -> int:
        """Items that are being processed."""
        return len(self._items)

    @property
    def annotating(self) -> tuple[str, ...]:
        """The ids of the items whose tasks of annotation are under way."""
        return () if self._annotations is None else self._annotations.ids

    async def annotated(self) -> None:
        """Return once those that are under way are over."""
        if self._annotations is not None:
            await self._annotations.left()

    async def start(self) -> None:
        """Start the app, and begin to dial.

        Raises:
            AuthoringError: The project does not start.
        """
        if self.probes is not None:
            await self.probes.start()
        await self._app.start()
        methods = await Methods.of(self._app)
        await self._readiness.look()
        if self._annotator is not None:
            self._annotations = AnnotationTasks(
                self._annotator, self._app, methods, self._address, self._clock, self._chance
            )
        workshop = Workshop(self._app, methods, self._clock, self._max_output)
        place = Place(
            self._link,
            self._identity,
            self._items,
            workshop,
            self._clock,
            self._chance,
            self._readiness.ready,
            Admission(self._app),
            self._annotations,
        )
        threads = self._threads or min(methods.most_at_once, USUAL_THREADS)
        self.slots = [Slot(place, primary=not number) for number in range(threads)]
        self._tasks.start(self._link.run(), name="link")
        self._tasks.start(self._control.run(), name="control")
        for slot in self.slots:
            slot.start()
        self._has_started = True

    async def drain(self) -> None:
        """Take no more items, and let those that run end, at most as long as the app's calls may; what is
        left then is told that it was cut short."""
        self._leaves = True
        for slot in self.slots:
            slot.leave()
        left = self._tasks.start(self._all_left(), name="drain")
        over = asyncio.Event()
        left.add_done_callback(lambda _: over.set())
        await pause(self._app.limits.drain_s, over, self._clock, self._tasks)
        self._items.cancel_all(CancelReason.DRAIN)
        if self._annotations is not None:
            self._annotations.cancel_all()
        await asyncio.wait((left,), timeout=LEAVE_S)
        await self._app.drain()

    async def aclose(self) -> None:
        """Stop everything."""
        await self._readiness.aclose()
        if self._annotations is not None:
            await self._annotations.aclose()
        await asyncio.gather(*(slot.aclose() for slot in self.slots))
        await self._tasks.aclose()
        await self._control.aclose()
        await self._link.aclose()
        await self._app.aclose()
        if self.probes is not None:
            await self.probes.aclose()

    def _probes(self) -> Mapping[str, Probe]:
        """Unlike those of Clarifai's own runner, they tell whether items can come."""
        return {
            "liveness": lambda: not self._has_started or self._app.answers,
            "readiness": lambda: self.connected and self._readiness.ready.is_set() and not self._leaves,
            "startup": lambda: self._has_started,
        }

    def _withdraw(self) -> None:
        for slot in self.slots:
            slot.withdraw()

    def _cancel(self, item_id: str) -> None:
        if self._annotations is not None and self._annotations.cancel(item_id):
            return
        self._items.cancel(item_id)

    async def _all_left(self) -> None:
        await asyncio.gather(*(slot.left() for slot in self.slots))
        await self.annotated()
