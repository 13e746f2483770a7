"""The model zoo: commands that behave well, badly and worse, to test whatever runs commands.

Those that take their process down are in ``penstock.testing.deadly``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from penstock.runtime.context import current_call
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime
from penstock.testing.journal import Journal

HELD_AT_MOST_S = 30.0  # a test that forgets `release` must not leave a thread behind for good


def _own_runtime() -> Runtime:
    return Runtime(Manifest(name="zoo", default_command="echo"))


@dataclass(frozen=True)
class Zoo:
    """A runtime of test doubles.

    Attributes:
        runtime: Serves them.
        journal: What happened in them, by request id.
    """

    runtime: Runtime = field(default_factory=_own_runtime)
    journal: Journal = field(default_factory=Journal)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let `spin`, `block` and `ignore_cancel` end, those that run and those to come."""
        self.released.set()
        self.journal.record("released", "zoo")

    @contextmanager
    def life(self) -> Iterator[None]:
        """Record the life of the command whose body runs inside."""
        call = current_call()
        call.on_abort(lambda request_id: self.journal.record("aborted", request_id))
        self.journal.record("started")
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.journal.record("cancelled", call.request_id)
            raise
        except BaseException:
            self.journal.record("raised", call.request_id)
            raise
        self.journal.record("finished", call.request_id)


def model_zoo(runtime: Runtime | None = None, journal: Journal | None = None) -> Zoo:
    """Return a fresh zoo, on a runtime and with a journal of its own unless they are given.  Its commands:

    - ``echo(value)`` returns its input.
    - ``ticker(n, dt)`` yields ``{"tick": i}`` n times, ``dt`` seconds apart.
    - ``silent()`` never yields, and ends when it is cancelled.
    - ``flood(n, size)`` yields n items of ``size`` bytes without ever waiting.
    - ``raise_at(k)`` yields k items, then raises ``ValueError``.
    - ``ignore_cancel()`` yields once, and swallows its cancel until ``release``.
    - ``late_yield_after_cancel()`` yields once more when it is cancelled.
    - ``block()`` and ``spin()`` hold their thread, waiting or computing, until ``release``.
    """
    animals = Zoo(runtime or _own_runtime(), journal or Journal())
    for add in (_add_tame, _add_endless, _add_stubborn, _add_threaded):
        add(animals)
    return animals


def _add_tame(animals: Zoo) -> None:
    @animals.runtime.command("echo")
    async def echo(value: Any = None) -> Any:
        with animals.life():
            return value

    @animals.runtime.streaming_command("ticker")
    async def ticker(n: int = 3, dt: float = 0.0) -> AsyncIterator[dict[str, int]]:
        with animals.life():
            for i in range(n):
                yield {"tick": i}
                await asyncio.sleep(dt)

    @animals.runtime.streaming_command("raise_at")
    async def raise_at(k: int = 0) -> AsyncIterator[dict[str, int]]:
        with animals.life():
            for i in range(k):
                yield {"tick": i}
            raise ValueError("raise_at was asked to")


def _add_endless(animals: Zoo) -> None:
    @animals.runtime.streaming_command("silent")
    async def silent() -> AsyncIterator[dict[str, int]]:
        with animals.life():
            await asyncio.Event().wait()
            yield {}

    @animals.runtime.streaming_command("flood")
    async def flood(n: int = 1_000_000_000, size: int = 64) -> AsyncIterator[dict[str, str]]:
        text = "x" * size
        with animals.life():
            for _ in range(n):
                yield {"chunk": text}


def _add_stubborn(animals: Zoo) -> None:
    @animals.runtime.streaming_command("ignore_cancel")
    async def ignore_cancel() -> AsyncIterator[dict[str, int]]:
        with animals.life():
            yield {"tick": 0}
            while not animals.released.is_set():
                try:
                    await animals.journal.wait("released")
                except asyncio.CancelledError:
                    animals.journal.record("ignored")

    @animals.runtime.streaming_command("late_yield_after_cancel")
    async def late_yield_after_cancel() -> AsyncIterator[dict[str, int]]:
        with animals.life():
            yield {"tick": 0}
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield {"tick": 1}
                raise


def _add_threaded(animals: Zoo) -> None:
    @animals.runtime.command("block")
    def block() -> None:
        with animals.life():
            animals.released.wait(HELD_AT_MOST_S)

    @animals.runtime.command("spin")
    def spin() -> int:
        with animals.life():
            turns = 0
            while not animals.released.is_set():
                turns += 1
            return turns
