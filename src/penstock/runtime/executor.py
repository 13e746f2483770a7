"""The executor: pumps an author's function into a call's log.

There is one, for every kind of function, and it is the only place where an exception becomes a wire error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from penstock.calls import ambient
from penstock.calls.admission import Place
from penstock.calls.clock import Clock
from penstock.calls.failures import log_failure
from penstock.calls.live import Live
from penstock.errors import CallError, ErrorCode, LocalProtocolError
from penstock.protocol.messages import CancelReason
from penstock.runtime.command import BoundCommand, Kind
from penstock.runtime.context import CallContext
from penstock.runtime.interrupt import interruptible
from penstock.runtime.own_loop import OwnLoop, OwnLoopItems
from penstock.runtime.threads import DaemonThreads, ThreadedCall, ThreadedItems

_log = logging.getLogger("penstock.executor")

BURST = 128  # items a generator that never waits may yield before the event loop turns
BURST_S = 0.005  # ... and for how long: items must not wait while it computes the next one


class Hold(Protocol):
    """How a call meets what outlives it: a command the project's state, a workflow its own run."""

    async def take(self) -> dict[str, Any]:
        """Return arguments to add to the call's own."""
        ...

    async def run(self, run: Callable[[], Awaitable[object]]) -> object:
        """Run what is called; returns the answer."""
        ...

    def release(self) -> None:
        """Let go; further calls do nothing."""
        ...


class Batches(Protocol):
    """Items that come several at a time."""

    async def take(self) -> list[Any]:
        """Return those that are there, once there are some; an empty list at the end."""
        ...

    async def aclose(self) -> None:
        """Stop whatever makes them, and wait for that."""
        ...


@dataclass(slots=True)
class Work:
    """One call, ready to run.

    Attributes:
        arguments: Checked input.
        place: Its permit or place in the queue.
        hold: Wraps what is called, if anything does.
    """

    live: Live
    context: CallContext
    command: BoundCommand
    arguments: dict[str, Any]
    place: Place
    hold: Hold | None


class Executor:
    """Runs calls.

    Args:
        clock: Tells the time.
        threads: Where blocking functions run.
        abort: Runs the abort callbacks of a call that was cut.
        left: Told of a call when nothing of it runs any more.
    """

    def __init__(
        self,
        clock: Clock,
        threads: DaemonThreads,
        abort: Callable[[Work], None],
        left: Callable[[Live], None],
    ) -> None:
        self._wall = clock.wall
        self._threads = threads
        self._abort = abort
        self._left = left

    async def run(self, work: Work) -> None:
        """Run one call to its end; never raises for what the author's code does.

        The permit is given back only here, when the work has really stopped.
        """
        live = work.live
        try:
            ambient.current.set(work.context)
            live.on_cut(self._cut(work))
            if work.place.granted_at is None:
                await self._queued(work)
            live.expire()
            if live.cancel_reason is not None:
                raise asyncio.CancelledError  # cut before it began: the author's code must not run at all
            live.mark_started()
            await self._perform(work)
        except BaseException as error:  # the one place where exceptions become wire errors
            self._fail(work, error)
            if isinstance(error, KeyboardInterrupt) and not work.command.command.kind.blocking:
                raise  # Ctrl-C that arrived within a command; one raised in a thread is the author's own
        finally:
            if work.hold is not None:
                work.hold.release()
            work.place.leave()
            live.mark_stopped()
            self._left(live)

    async def _queued(self, work: Work) -> None:
        work.live.note("queued", {"position": work.place.position})
        await work.place.admitted()

    async def _perform(self, work: Work) -> None:
        live, hold, command = work.live, work.hold, work.command.command
        if hold is None:
            answer = await self._invoke(work, partial(command.function, **work.arguments))
        else:
            call = partial(command.function, **work.arguments, **await hold.take())
            answer = await hold.run(partial(self._invoke, work, call))
        ends_a_stream = command.streaming and live.start.is_stream and live.start.workflow_id is None
        live.complete(answer, has_answer=not ends_a_stream)

    async def _invoke(self, work: Work, call: Callable[[], Any]) -> object:
        live, command = work.live, work.command
        kind = command.command.kind
        if _on_own_loop(command):
            return await self._run_on_own_loop(work, call)
        if command.interrupt:
            call = interruptible(call, live.on_cut, streaming=kind.streaming)
        if kind is Kind.ASYNC_GENERATOR:
            return await self._pump(live, call())
        if kind is Kind.BATCHES:
            return await self._pump_batches(live, call())
        if kind is Kind.GENERATOR:
            return await self._pump_batches(live, ThreadedItems(self._threads, copy_context(), call))
        if kind is Kind.AWAITABLE:
            live.work = running = call()
            return await running
        return await self._in_thread(live, call)

    async def _in_thread(self, live: Live, call: Callable[[], Any]) -> object:
        live.work = work = ThreadedCall(self._threads, copy_context(), call)
        return await work.result()

    async def _run_on_own_loop(self, work: Work, call: Callable[[], Any]) -> object:
        live, loop = work.live, OwnLoop(work.context.cancel_felt)
        live.on_cut(loop.cancel)
        if work.command.command.kind is Kind.ASYNC_GENERATOR:
            items = OwnLoopItems(self._threads, copy_context(), call, loop)
            return await self._pump_batches(live, items)
        return await self._in_thread(live, lambda: loop.run(call))

    async def _pump(self, live: Live, items: AsyncGenerator[Any, None]) -> object:
        append, wall, log, readers = live.log.item, self._wall, live.log, live.readers
        live.work = items
        last: object = None
        left = 1  # so that the first item leaves at once
        turned = wall()
        try:
            async for last in items:
                now = wall()
                append(last, now)
                left -= 1
                if not left or now - turned > BURST_S or log.size >= readers.full_at:
                    await live.breathe()
                    left, turned = BURST, wall()
        finally:
            await items.aclose()
        return last

    async def _pump_batches(self, live: Live, items: Batches) -> object:
        append, wall, log, readers = live.log.item, self._wall, live.log, live.readers
        live.work = items
        last: object = None
        try:
            while batch := await items.take():
                for last in batch:
                    append(last, wall())
                    if log.size >= readers.full_at:
                        await live.breathe()
                await live.breathe()
        finally:
            await items.aclose()
        return last

    def _fail(self, work: Work, error: BaseException) -> None:
        live, given = work.live, work.arguments.values()
        if live.cancel_reason is not None:
            if isinstance(error, asyncio.CancelledError):
                live.mark_delivered()
            elif not isinstance(error, LocalProtocolError):  # an item behind the end, which is dropped
                said = "call %s of %s raised while it was cancelled"
                log_failure(_log, logging.WARNING, error, live, given, said)
            live.mark_acknowledged()
        elif isinstance(error, CallError):
            live.fail(error)
        else:
            name = live.start.target
            log_failure(_log, logging.ERROR, error, live, given, "call %s of %s failed")
            live.fail(CallError(f"{name} failed ({type(error).__name__})", ErrorCode.COMMAND_FAILED))

    def _cut(self, work: Work) -> Callable[[CancelReason], None]:
        """Return what cuts the scope of the task that runs ``work``: the current one."""
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        live = work.live

        def cut(_: CancelReason) -> None:
            self._abort(work)
            if task is not None:
                task.cancel()
            if not work.command.command.kind.blocking and not _on_own_loop(work.command):
                # Its next step, at which it is thrown the cancel, stands in the loop's queue before this.
                # In a thread it feels the cancel only when it asks or ends.
                loop.call_soon(live.mark_delivered)
            loop.call_soon(live.end_cut)  # the terminal frame waits for nobody's clean-up

        return cut


def _on_own_loop(command: BoundCommand) -> bool:
    return command.isolation == "thread" and not command.command.kind.blocking
