"""One run of a workflow: every step a call of its own, its frames forwarded into the workflow's log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from penstock.calls.clock import Clock
from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.calls.waiting import wait_stopped
from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import Ending
from penstock.protocol.messages import CancelReason, OnDisconnect, Start
from penstock.protocol.steps import StepItem
from penstock.protocol.values import encode_value
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.command import BoundCommand, Command, Kind
from penstock.runtime.parameters import InputSchema
from penstock.runtime.references import Scope
from penstock.runtime.workflow import Step, Workflow

SHORTEST_S = 0.001  # a budget is never nothing: a call whose time is over is cut by its own deadline
Forward = Callable[[list[StepItem]], Awaitable[None]]


class Opener(Protocol):
    """Opens the call of a step, for the caller of the workflow."""

    def __call__(self, start: Start) -> Live: ...


class WorkflowRun:
    """Runs the stages of a workflow one after the other.

    To the executor it is also the workflow's hold: it needs no state of its own, and its answer is not its
    last item.

    Args:
        workflow: What runs.
        given: Its input, checked.
        live: Its call.
        open_step: Opens the calls of its steps.
        tasks: Owns the tasks that read them.
        clock: Tells the time between attempts.
    """

    def __init__(
        self,
        workflow: Workflow,
        given: dict[str, Any],
        live: Live,
        *,
        open_step: Opener,
        tasks: TaskOwner,
        clock: Clock,
    ) -> None:
        self._workflow = workflow
        self._live = live
        self._open_step = open_step
        self._tasks = tasks
        self._clock = clock
        self._answers: dict[str, Any] = {}
        self._scope = Scope(given, self._answers)
        self._inner: set[Live] = set()
        self.aborts = AbortCallbacks()
        live.on_cut(self._cut)

    async def items(self) -> AsyncGenerator[StepItem, None]:
        """Run the steps and yield their items as they come.

        Raises:
            CallError: A step failed; it is named, and its siblings are cancelled.
        """
        for steps in self._workflow.stages:
            stage = _Stage(self._tasks, [self._runner(step) for step in steps])
            try:
                while batch := await stage.take():
                    for item in batch:
                        yield item
            finally:
                await stage.aclose()

    # -- the hold ------------------------------------------------------------------------------------

    async def take(self) -> dict[str, Any]:
        """See ``Hold.take``."""
        return {}

    async def run(self, run: Callable[[], Awaitable[object]]) -> object:
        """Run the workflow; returns its answer."""
        await run()
        if self._workflow.output is not None:
            return self._workflow.output.resolve(self._scope)
        return {"steps": {step.id: self._answers[step.id] for step in self._workflow.steps()}}

    def release(self) -> None:
        """See ``Hold.release``."""

    # -- a step --------------------------------------------------------------------------------------

    def _runner(self, step: Step) -> Callable[[Forward], Any]:
        async def run(forward: Forward) -> None:
            try:
                self._answers[step.id] = await self._step(step, forward)
            except CallError as error:
                raise _named(step, error) from error

        return run

    async def _step(self, step: Step, forward: Forward) -> Any:
        """Run a step, again where that may help; returns its answer, None where it is skipped."""
        if step.when is not None and not step.when.holds(self._scope):
            return None
        given = _input(step, self._scope)
        left = step.attempts
        while True:
            reading = _Reading(step.id)
            left -= 1
            try:
                return await self._attempt(step, given, reading, forward)
            except CallError as error:
                if not left or not error.retryable or reading.last is not None:
                    raise
            await self._pause(step.delay_s)

    async def _attempt(self, step: Step, given: bytes, reading: _Reading, forward: Forward) -> Any:
        self._live.expire()  # then the step, too, is cut before it begins
        inner = self._open_step(self._start(step, given))
        self._inner.add(inner)
        try:
            if self._live.cancel_reason is not None:
                inner.cancel(self._live.cancel_reason)
            async with inner.reader() as reader:
                async for batch in reader:
                    if items := reading.read(batch.lines, self._live):
                        await forward(items)
            return reading.answer(inner.ending)
        finally:
            inner.cancel(CancelReason.CALLER)
            await wait_stopped(inner)
            self._inner.discard(inner)

    def _start(self, step: Step, given: bytes) -> Start:
        budgets = [s for s in (step.timeout_s, self._live.remaining()) if s is not None]
        return Start(
            command=step.command,
            input=given,
            is_stream=True,
            notes=self._live.start.notes,
            output_config=self._live.start.output_config,
            route=self._live.start.route,
            on_disconnect=OnDisconnect(None),  # the workflow cancels it, by name and with the reason
            timeout_s=max(min(budgets), SHORTEST_S) if budgets else None,
        )

    async def _pause(self, delay_s: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(delay_s, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def _cut(self, reason: CancelReason) -> None:
        for inner in tuple(self._inner):
            inner.cancel(reason)


def run_steps(run: WorkflowRun) -> AsyncGenerator[StepItem, None]:
    """Return the items of ``run``: the function that the executor runs for every workflow."""
    return run.items()


WORKFLOW = BoundCommand(
    Command("workflow", run_steps, Kind.ASYNC_GENERATOR, "", (), 1, 0), InputSchema((), "workflow"), ()
)


class _Frame(msgspec.Struct):
    """What counts in a frame of a step's call."""

    status: str
    data: msgspec.Raw = msgspec.Raw(b"")
    position: int = 0


_decode = msgspec.json.Decoder(_Frame).decode


class _Reading:
    """What one attempt at a step has said so far.

    Attributes:
        last: Its last item, or the answer of a plain command; None before the first.
    """

    def __init__(self, step: str) -> None:
        self._step = step
        self.last: bytes | None = None

    def read(self, lines: Sequence[bytes], live: Live) -> list[StepItem]:
        """Return the items among ``lines``; notes go to ``live`` at once."""
        items = []
        for line in lines:
            frame = _decode(line)
            if frame.status in ("streaming", "completed") and frame.data:
                self.last = bytes(frame.data)
                items.append(StepItem(self._step, self.last))
            elif frame.status == "progress":
                live.note("progress", {"step": self._step, "data": frame.data})
            elif frame.status == "queued":
                live.note("queued", {"step": self._step, "position": frame.position})
        return items

    def answer(self, ending: Ending | None) -> Any:
        """Return the answer of an attempt that has ended.

        Raises:
            CallError: It failed, or was cancelled from outside.
        """
        if ending is None or ending.reason is not None:
            raise CallError("the call was cancelled", ErrorCode.CANCELLED)
        if ending.error is not None:
            raise ending.error
        return None if self.last is None else msgspec.json.decode(self.last)


def _input(step: Step, scope: Scope) -> bytes:
    given = step.input.resolve(scope)
    if not isinstance(given, dict):
        what = f"the input of a command is an object, and here it is {type(given).__name__}"
        raise CallError(what, ErrorCode.COMMAND_FAILED)
    return encode_value(given)


def _named(step: Step, error: CallError) -> CallError:
    return CallError(
        f"step {step.id}: {error.message}",
        error.code,
        retryable=error.retryable,
        details=[{"step": step.id}, *error.details],
        retry_after_s=error.retry_after_s,
    )


class _Batch:
    """Items on their way from a step to the workflow's log."""

    def __init__(self, items: list[StepItem]) -> None:
        self.items = items
        self.taken = asyncio.Event()


class _Stage:
    """Steps under way at the same time.  A step goes on reading once its last batch has been taken, so that
    a workflow that is held back holds its steps back.

    Args:
        tasks: Owns them.
        runners: Run one step each, and hand on its items.
    """

    def __init__(self, tasks: TaskOwner, runners: Sequence[Callable[[Forward], Any]]) -> None:
        self._events: asyncio.Queue[_Batch | asyncio.Task[None]] = asyncio.Queue()
        self._batch: _Batch | None = None
        self._running = [tasks.start(runner(self._forward), awaited=True) for runner in runners]
        self._left = len(self._running)
        for task in self._running:
            task.add_done_callback(self._over)

    async def take(self) -> list[StepItem]:
        """Return the next items; an empty list when every step is over.

        Raises:
            CallError: A step has failed, the first to do so.
        """
        if self._batch is not None:
            self._batch.taken.set()
            self._batch = None
        while self._left:
            event = await self._events.get()
            if isinstance(event, _Batch):
                self._batch = event
                return event.items
            self._left -= 1
            event.result()
        return []

    async def aclose(self) -> None:
        """Cancel what still runs, and wait until its calls have ended."""
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running)

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen: of several that fail, only the first is raised
        self._events.put_nowait(task)

    async def _forward(self, items: list[StepItem]) -> None:
        batch = _Batch(items)
        self._events.put_nowait(batch)
        await batch.taken.wait()
