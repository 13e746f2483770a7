"""What is cut in the cancel matrix, and by what: projects whose one command waits at a given point, and the
triggers."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from itertools import count
from typing import Any, ClassVar, Literal, NamedTuple

import anyio.lowlevel

from behaviour.connect import Frame, Handle, HttpNdjson, Way
from behaviour.over_websocket import SocketHandle, WebSocket
from behaviour.raw_http import Departure
from penstock import Runtime, current_call, register_abort_callback
from penstock.calls.limits import CallLimits
from penstock.calls.tasks import TaskOwner
from penstock.runtime.manifest import Manifest
from penstock.testing import FakeClock, Journal

Point = Literal["queued", "before", "mid", "last", "after"]
POINTS: tuple[Point, ...] = ("queued", "before", "mid", "last", "after")
DEADLINE_S = 10.0
LIMITS = CallLimits(drain_s=1.0)
ITEMS = 4
HALF = 2
_numbers = count(1)


class Trigger(NamedTuple):
    """What ends a call.

    Attributes:
        way: The way in that has it.
        how: How the caller leaves, if that is the trigger.
        heard: Whether the caller still reads what the server says.
        ends: The terminal frame's status, and its reason or code.
    """

    name: str
    way: type[Way]
    ends: tuple[str, str]
    how: Departure | None = None

    @property
    def heard(self) -> bool:
        """Whether the caller still reads."""
        return self.how is None

    async def pull(self, way: Way, call: Handle, clock: FakeClock, tasks: TaskOwner) -> None:
        """Do it."""
        if self.how is not None:
            await call.drop(self.how)
        elif self.name == "deadline":
            clock.advance(DEADLINE_S)
        elif self.name == "drain":
            tasks.start(way.dispatcher.inner.drain())
            await anyio.lowlevel.checkpoint()
            clock.advance(LIMITS.drain_s)
        elif isinstance(call, SocketHandle):
            call._peer.send("cancel", task_id=call.request_id)
        else:
            assert await call.cancel() in ("cancelled", "already_finished")


LEFT = ("cancelled", "disconnect")
ASKED = ("cancelled", "caller")
TRIGGERS = (
    Trigger("api", HttpNdjson, ASKED),
    Trigger("message", WebSocket, ASKED),
    Trigger("rst", HttpNdjson, LEFT, "rst"),
    Trigger("fin", HttpNdjson, LEFT, "fin"),
    Trigger("half-close", HttpNdjson, LEFT, "half"),
    Trigger("websocket-close", WebSocket, LEFT, "close"),
    Trigger("deadline", HttpNdjson, ("error", "deadline_exceeded")),
    Trigger("drain", HttpNdjson, ("error", "unavailable")),
)


def outcome_of(frame: Frame) -> tuple[str, str]:
    """Return the status of a terminal frame, and its reason or code."""
    return frame["status"], frame.get("reason") or frame.get("code") or ""


class Project:
    """A project with one command, one call of which runs at a time.

    Attributes:
        told: How often the callback of the project was called, by request id.
        own: How often the callback of the call was.
        threads: In which threads.
        lingers: The points at which a call that was cut runs on until ``let_go``.
        confirms: Whether something below says that its work has stopped.
    """

    lingers: ClassVar[tuple[Point, ...]] = ()
    confirms: ClassVar[bool] = False

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.own: Counter[str] = Counter()
        self.threads: set[threading.Thread] = set()
        self.journal = Journal()
        self.runtime = rt = Runtime(Manifest(startup=["initialize"]))

        @rt.command("initialize")
        def initialize() -> dict[str, Any]:
            register_abort_callback(self._told)
            return {}

        self.serve(rt)

    def serve(self, rt: Runtime) -> None:
        """Add the command ``predict(point, prompt)``, which waits at ``point``."""
        raise NotImplementedError

    def prepare(self, point: Point) -> None:
        """The next call is to wait at this point."""

    async def arrived(self, point: Point, call: Handle) -> None:
        """Return once it does."""
        if point in ("mid", "last"):
            await call.until("streaming")
        await self.journal.wait(point, call.request_id)

    def let_go(self) -> None:
        """Let what was cut, and lingers, come to its end."""

    async def check(self, prompt: str, request_id: str, point: Point) -> None:
        """Check that the call has left nothing behind elsewhere, where it was told to stop once."""

    def register(self) -> None:
        """Have the call that this runs in counted."""
        current_call().on_abort(self._own)

    def _told(self, request_id: str) -> None:
        self.threads.add(threading.current_thread())
        self.told[request_id] += 1

    def _own(self, request_id: str) -> None:
        self.threads.add(threading.current_thread())
        self.own[request_id] += 1


def new_prompt() -> str:
    """Return one that no other call has."""
    return f"prompt-{next(_numbers)}"


class AsyncGenerator(Project):
    """An async generator of the author's own."""

    def serve(self, rt: Runtime) -> None:
        @rt.streaming_command("predict", concurrency=1)
        async def predict(point: str, prompt: str):
            self.register()
            for step in ("before", "mid", "last"):
                if step == point:
                    self.journal.record(step)
                    await asyncio.Event().wait()
                if step != "last":
                    yield {"step": step}


class Threaded(Project):
    """Code that blocks its thread until it hears of the cancel, and then until it is let go."""

    lingers = ("before", "mid", "last")

    def __init__(self) -> None:
        self._go = threading.Event()
        super().__init__()

    def prepare(self, point: Point) -> None:
        self._go.clear()

    def let_go(self) -> None:
        self._go.set()

    def pause(self, step: str, point: str) -> None:
        """Wait, if this is where."""
        if step != point:
            return
        call, heard = current_call(), threading.Event()
        call.on_abort(lambda _: heard.set())
        self.journal.record(step)
        assert heard.wait(5)
        assert self._go.wait(5)
        if step != "last":  # there it does not look, and returns as if nothing had been
            call.raise_if_cancelled()


class SyncGenerator(Threaded):
    """A generator that blocks."""

    def serve(self, rt: Runtime) -> None:
        @rt.streaming_command("predict", concurrency=1)
        def predict(point: str, prompt: str):
            self.register()
            for step in ("before", "mid", "last"):
                self.pause(step, point)
                if step != "last":
                    yield {"step": step}


class SyncFunction(Threaded):
    """A function that blocks; it has no items, so its points are between its steps."""

    def serve(self, rt: Runtime) -> None:
        @rt.command("predict", concurrency=1)
        def predict(point: str, prompt: str):
            self.register()
            for step in ("before", "mid", "last"):
                self.pause(step, point)
            return "an answer that nobody gets"

    async def arrived(self, point: Point, call: Handle) -> None:
        await self.journal.wait(point, call.request_id)


PLAIN = (AsyncGenerator, SyncGenerator, SyncFunction)
