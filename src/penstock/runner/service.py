"""A runner as a process: from its start to a signal, and from there in good order to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from penstock.calls.tasks import TaskOwner

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_log = logging.getLogger("penstock.runner")


class Serving(Protocol):
    """A runner, over whatever link."""

    @property
    def words(self) -> str:
        """What it offers, and where, for people."""
        ...

    @property
    def over(self) -> asyncio.Event:
        """Set when nobody wants it any more."""
        ...

    async def start(self) -> None: ...
    async def drain(self) -> None: ...
    async def aclose(self) -> None: ...


async def serve(runner: Serving, ready: Callable[[str], None]) -> None:
    """Run until a signal, or until no gateway wants the runner any more; a second signal stops at once.

    Args:
        ready: Told in words what is offered, once the project has started.

    Raises:
        Exception: The project does not start.
    """
    tasks = TaskOwner()
    stop, at_once = asyncio.Event(), asyncio.Event()
    starting = tasks.start(runner.start(), name="start", awaited=True)
    with _signals(stop, at_once):
        try:
            if not await _either(starting, tasks.start(stop.wait(), name="stop")):
                starting.cancel()
                return
            await starting
            ready(runner.words)
            over = tasks.start(runner.over.wait(), name="over")
            await _either(tasks.start(stop.wait(), name="stop"), over)
            _log.info("stopping: no more calls are taken, those that run may finish")
            draining = tasks.start(runner.drain(), name="drain")
            await _either(draining, tasks.start(at_once.wait(), name="at once"))
            draining.cancel()
        finally:
            await runner.aclose()
            await tasks.aclose()


async def _either(one: asyncio.Task[Any], other: asyncio.Task[Any]) -> bool:
    """Wait for the first of two; returns whether ``one`` is done."""
    await asyncio.wait((one, other), return_when=asyncio.FIRST_COMPLETED)
    return one.done()


@contextlib.contextmanager
def _signals(stop: asyncio.Event, at_once: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def told() -> None:
        (at_once if stop.is_set() else stop).set()

    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, told)
    except NotImplementedError:  # Windows: Ctrl-C is an exception there
        yield
        return
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
