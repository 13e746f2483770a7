"""What holds after every behaviour test, whatever it was about: the logs are whole, what callers saw is part
of them, and everything that was taken is back."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

import anyio
import anyio.lowlevel

from behaviour.connect import TERMINAL, Frame, Handle, Way
from behaviour.raw_http import WAIT_S
from penstock.calls.live import Live
from penstock.gateway.hub import Hub
from penstock.protocol.dispatch import LOCAL, Dispatcher
from penstock.runtime.app import App

_MAY_FOLLOW = {
    "accepted": {"queued", "progress", "streaming", *TERMINAL},
    "queued": {"queued", "progress", "streaming", *TERMINAL},
    "progress": {"queued", "progress", "streaming", *TERMINAL},
    "streaming": {"queued", "progress", "streaming", *TERMINAL},
    "completed": set(),
    "error": set(),
    "cancelled": set(),
}


def check_log(lines: Iterable[bytes], first_seq: int = 0) -> None:
    """Check the whole log of a call that has ended (P1, P3); ``first_seq`` where its start was trimmed."""
    frames: list[Frame] = [json.loads(line) for line in lines]
    statuses = [frame["status"] for frame in frames]
    assert [frame["seq"] for frame in frames] == list(range(first_seq, first_seq + len(frames))), statuses
    assert sum(status in TERMINAL for status in statuses) == 1, statuses
    assert statuses.count("accepted") == (0 if first_seq else 1), statuses
    assert first_seq or statuses[0] == "accepted", statuses
    for before, after in itertools.pairwise(statuses):
        assert after in _MAY_FOLLOW[before], statuses
    times = [frame["timestamp"] for frame in frames]
    assert times == sorted(times), times


def check_received(handle: Handle, log: list[bytes], first_seq: int) -> None:
    """Check that what a caller received is a gapless piece of the log, to its end if the transport ended."""
    seqs = [json.loads(line)["seq"] for line in handle.received]
    assert not seqs or seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    for seq, line in zip(seqs, handle.received, strict=True):
        assert seq < first_seq or line == log[seq - first_seq]
    if handle.at_end and handle.received:
        assert json.loads(handle.received[-1])["status"] in TERMINAL


async def check_calls(way: Way) -> None:
    """Check every call the dispatcher knows: all have ended."""
    logs: dict[str, tuple[list[bytes], int]] = {}
    for record in way.dispatcher.tasks(LOCAL):
        lines = await _read(way.dispatcher, record.request_id, record.first_seq)
        if record.first_seq < record.next_seq:
            check_log(lines, record.first_seq)
            assert record.status == json.loads(lines[-1])["status"]
        logs[record.request_id] = (lines, record.first_seq)
    for handle in way.handles:
        if handle.request_id in logs:
            check_received(handle, *logs[handle.request_id])


async def _read(dispatcher: Dispatcher, request_id: str, first_seq: int) -> list[bytes]:
    lines: list[bytes] = []
    async with dispatcher.find(request_id, LOCAL).reader(first_seq - 1) as reader:
        with anyio.fail_after(WAIT_S):
            async for batch in reader:
                lines += batch.lines
    return lines


class Permits(NamedTuple):
    """What the calls of an app hold."""

    running: int
    waiting: int
    working: int  # calls whose code has not stopped
    in_flight: int


def permits(app: App | Hub) -> Permits:
    """Return what is taken.  The one place that looks inside: nothing public says it."""
    admissions = app._admissions.values()
    return Permits(
        sum(each.running for each in admissions),
        sum(each.waiting for each in admissions),
        len(app._working),
        len(app._store),
    )


async def happened(event: asyncio.Event) -> None:
    """Wait for an event, with a bound."""
    with anyio.fail_after(WAIT_S):
        await event.wait()


async def until(holds: Callable[[], bool], otherwise: Callable[[], object]) -> None:
    """Let the event loop turn until something holds: for what nobody announces."""
    try:
        with anyio.fail_after(WAIT_S):
            while not holds():
                await anyio.lowlevel.checkpoint()
    except TimeoutError:
        raise AssertionError(f"still {otherwise()}") from None


async def unread(call: Handle) -> None:
    """Return once the server has seen that nobody reads ``call`` any more; nothing public says it."""
    live = call.way.dispatcher.find(call.request_id, LOCAL)
    assert isinstance(live, Live)
    await until(lambda: not live.readers, lambda: f"{len(live.readers)} readers")


async def arrived(call: Handle, items: int) -> None:
    """Return once so many items are in the call's log: where it runs elsewhere, they come to it later."""
    live = call.way.dispatcher.find(call.request_id, LOCAL)
    assert isinstance(live, Live)
    await until(lambda: live.items() >= items, lambda: f"{live.items()} items")
    for _ in range(3):  # the turns in which those who wait for items are told
        await asyncio.sleep(0)


async def told(call: Handle) -> None:
    """Return once the call's task, wherever it runs, has been told of its cancel."""
    live = call.way.app.find(call.request_id, LOCAL)
    await until(lambda: live.cancel_reason is not None, lambda: "not cancelled there")
    await asyncio.sleep(0)  # the turn in which the task is told


async def at_rest(app: App | Hub) -> None:
    """Return once nothing runs and nothing is held (P9)."""
    await until(lambda: not any(permits(app)), lambda: permits(app))


class Resources:
    """The tasks and threads there are now."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._threads = set(threading.enumerate())

    async def check_level(self) -> None:
        """Check that none came to stay."""
        await until(lambda: not self._more_tasks(), self._more_tasks)
        for thread in set(threading.enumerate()) - self._threads:
            if thread.name.startswith(("asyncio_", "uvloop_")):
                continue  # of the event loop's own pool
            thread.join(WAIT_S)
            assert not thread.is_alive(), f"still {thread}"

    def _more_tasks(self) -> set[asyncio.Task[object]]:
        return {task for task in asyncio.all_tasks() - self._tasks if not _of_the_runner(task)}


def _of_the_runner(task: asyncio.Task[object]) -> bool:
    # anyio steps each test and fixture from a task of its own.
    return "TestRunner" in repr(task.get_coro())
