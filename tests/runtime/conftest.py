"""Apps to test against: a project made in the test, or the model zoo."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.waiting import wait_ended
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Frame, Start, decode_frame
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.testing import Zoo, model_zoo


class Served:
    """An app that serves, and what tests do with it.  Leaving it proves that nothing is left behind."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def open(self, command: str = "predict", *, stream: bool = True, **given: Any) -> Live:
        """Open a call; keywords that ``Start`` knows belong to it, the rest is the input."""
        known = {name: given.pop(name) for name in tuple(given) if name in Start.__struct_fields__}
        start = Start(command=command, input=msgspec.json.encode(given), is_stream=stream, **known)
        return await self.app.open(start, LOCAL)

    async def frames(self, live: Live) -> list[Frame]:
        """Return every frame of a call, once it has ended."""
        with anyio.fail_after(10):
            await wait_ended(live)
        return [decode_frame(line) for line in live.log.read(-1, 1 << 30)]

    async def run(self, command: str = "predict", *, stream: bool = True, **given: Any) -> list[Frame]:
        """Open a call and return every frame of it."""
        return await self.frames(await self.open(command, stream=stream, **given))

    async def answer(self, command: str = "predict", **given: Any) -> Any:
        """Return what a command answers; fails the test if it does not complete."""
        last = (await self.run(command, stream=False, **given))[-1]
        assert last.status == "completed", last
        return last.data

    @property
    def permits(self) -> int:
        """Permits and places in queues that are taken."""
        return sum(door.running + door.waiting for door in self.app._admissions.values())

    async def settled(self) -> None:
        """Return once no task is left; for calls that have ended but whose code still winds up."""
        with anyio.fail_after(10):
            while len(self.app._tasks):
                await anyio.lowlevel.checkpoint()


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    """Return ``serve(runtime, clock=…, **limits)``, an async context that gives a ``Served``."""

    @asynccontextmanager
    async def run(runtime: Runtime, *, clock: Any = None, **limits: Any) -> AsyncIterator[Served]:
        app = App(runtime, limits=CallLimits(**{"cancel_grace_s": 2.0, **limits}), clock=clock)
        async with app:
            yield Served(app)
        assert len(app._tasks) == 0
        assert len(app._store) == 0

    return run


@pytest.fixture
def zoo() -> Iterator[Zoo]:
    """Return a model zoo, whose animals are let go at the end."""
    animals = model_zoo()
    yield animals
    animals.release()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fail a test after which a thread of ours still runs that it has begun."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("penstock-"):
            thread.join(5)
            assert not thread.is_alive(), thread
