"""The tasks of annotation of a runner: they go on after the items that brought them are over."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from clarifai_grpc.grpc.api import resources_pb2, service_pb2

from penstock.calls.clock import Clock
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.statuses import status_of, success
from penstock.runner.clarifai.address import Address
from penstock.runner.clarifai.annotating import Annotator
from penstock.runner.clarifai.annotation_task import AnnotationTask
from penstock.runner.clarifai.methods import Methods
from penstock.runner.clarifai.posting import Poster
from penstock.runtime.app import App

MAX_TASKS = 16
EARLY_S = 10.0  # how long a cancel may come before what it cancels
MAX_EARLY = 1024

Response = service_pb2.MultiOutputResponse


class AnnotationTasks:
    """Begins tasks, and finds them by the ids of their items.

    Args:
        annotator: Does them.
        app: Runs the model.
        methods: What the model has.
        address: Of the API, where what is found is posted.
        clock: Tells the time.
        chance: A number from 0 to 1, for the waits between attempts.
    """

    def __init__(
        self,
        annotator: Annotator,
        app: App,
        methods: Methods,
        address: Address,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._annotator = annotator
        self._app = app
        self._methods = methods
        self._address = address
        self._clock = clock
        self._chance = chance
        self._owner = TaskOwner()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._under_way: set[asyncio.Task[None]] = set()  # those that were cancelled and end, too
        self._early: OrderedDict[str, float] = OrderedDict()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the items whose tasks run."""
        return tuple(self._running)

    def begin(self, item: service_pb2.RunnerItem) -> Response | None:
        """Begin a task; returns what is answered, None if that is nothing, as the task runs already."""
        if item.id in self._running:
            return None
        try:
            self._begin(item.id, item.auto_annotation_request)
        except CallError as error:
            return Response(status=status_of(error))
        status = success()
        status.description = "Auto-annotation task started."
        return Response(status=status)

    def cancel(self, item_id: str) -> bool:
        """End a task, now or when it comes in a moment; returns whether it was there."""
        running = self._running.pop(item_id, None)  # its id may come again before it has ended
        if running is not None:
            running.cancel()
            return True
        self._early[item_id] = self._clock.monotonic() + EARLY_S
        while len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)
        return False

    def cancel_all(self) -> None:
        """End them all, within a frame each."""
        for item_id in self.ids:
            self.cancel(item_id)

    async def left(self) -> None:
        """Return once all are over."""
        while self._under_way:
            await asyncio.wait(tuple(self._under_way))

    async def aclose(self) -> None:
        """End them all."""
        await self._owner.aclose()

    def _begin(self, item_id: str, request: service_pb2.AutoAnnotationRequest) -> None:
        if self._early.pop(item_id, 0.0) > self._clock.monotonic():
            raise CallError("the item was cancelled", ErrorCode.CANCELLED)
        if len(self._under_way) >= MAX_TASKS:
            text = f"{MAX_TASKS} tasks of annotation are under way"
            raise CallError(text, ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=60)
        value = request.authorization_value
        if not (value and value.isascii() and value.isprintable() and len(value) <= 4096):
            text = "authorization_value is missing or cannot be sent, and nothing can be posted without"
            raise CallError(text, ErrorCode.INVALID_ARGUMENT)
        predict = request.post_model_outputs_request
        method = self._methods.find(predict, resources_pb2.UNARY_UNARY)
        plan = self._annotator.plan(request, method.offer, self._app)
        poster = Poster(self._address.channel(), value, predict.user_app_id, self._clock, self._chance)
        task = AnnotationTask(request, plan, poster, self._clock)
        running = self._running[item_id] = self._owner.start(task.run(), name=f"annotation {item_id}")
        self._under_way.add(running)
        running.add_done_callback(partial(self._ended, item_id))

    def _ended(self, item_id: str, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._running.get(item_id) is task:
            del self._running[item_id]
