"""Runners that say what a test has them say, on connections that are none: no sockets, no waits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import msgspec

from penstock.calls.live import Live
from penstock.gateway.hub import Hub
from penstock.gateway.runner_link import RunnerLink
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Frame, Start, decode_frame
from penstock.protocol.reliable import ReliableSession
from penstock.protocol.runners import Offer, RunnerHello
from penstock.protocol.session import Cancel, End, Items, Message, Open, Ping, Pong
from penstock.testing import FakeClock

WAIT_S = 5.0
PREDICT = Offer(name="predict", streaming=True, concurrency=2, queue=4)
IDEMPOTENT = Offer(name="predict", streaming=True, concurrency=2, queue=4, idempotent=True)


class FakeConnection:
    """Keeps what is written to it."""

    def __init__(self) -> None:
        self.parcels: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.broken = False

    async def send(self, data: bytes) -> None:
        if self.broken:
            raise ConnectionResetError("broken")
        self.parcels.append(data)

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)


async def turns(count: int = 12) -> None:
    """Let the event loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class FakeRunner:
    """One that speaks the protocol, as the test says."""

    def __init__(self, hub: Hub, name: str, offers: tuple[Offer, ...], **hello: Any) -> None:
        self._hub = hub
        self.hello = RunnerHello(name=name, offers=list(offers), **hello)
        self.session = ReliableSession()
        self.connection = FakeConnection()
        self.heard: list[Message] = []
        self.answers_pings = True
        self.link: RunnerLink

    def connect(self) -> FakeRunner:
        """Dial in, with the session there is."""
        session = self.link.identity.session if hasattr(self, "link") else ""
        hello = msgspec.structs.replace(self.hello, session=session, received=self.session.received)
        self.link = self._hub.admit(hello)
        if self.link.identity.session != session:
            self.session = ReliableSession()
        self.connection = FakeConnection()
        self.session.resume(self.link.link.received)
        self.link.attach(self.connection, self.session.received)
        self.give(self.session.parcel())  # so it has the welcome
        return self

    def drop(self) -> None:
        """Lose the connection."""
        self.connection.broken = True
        self.link.detach(self.connection)

    def say(self, *messages: Message) -> None:
        """Send messages, in one parcel."""
        for message in messages:
            self.session.push(message)
        if messages:
            self.give(self.session.parcel())

    def give(self, parcel: bytes) -> None:
        """Send bytes."""
        self.link.feed(self.connection, parcel)

    async def listen(self) -> list[Message]:
        """Return what has come since, but for pings, which are answered."""
        await turns()
        parcels, self.connection.parcels = self.connection.parcels, []
        new = [message for parcel in parcels for message in self.session.feed(parcel)]
        self.heard += new
        if self.answers_pings:
            self.say(*(Pong(number=message.number) for message in new if isinstance(message, Ping)))
        return [message for message in new if not isinstance(message, Ping)]

    async def opened(self) -> list[Open]:
        """Return the calls that have come since."""
        return [message for message in await self.listen() if isinstance(message, Open)]

    async def cancelled(self) -> list[Cancel]:
        """Return the cancels that have come since."""
        return [message for message in await self.listen() if isinstance(message, Cancel)]

    def item(self, request_id: str, *values: object) -> None:
        """Yield items."""
        self.say(Items(request_id=request_id, items=[json.dumps(value).encode() for value in values]))

    def end(self, request_id: str, **how: Any) -> None:
        """End a call."""
        self.say(End(request_id=request_id, **how))


class World:
    """A hub, and who dials it."""

    def __init__(self, hub: Hub, clock: FakeClock) -> None:
        self.hub = hub
        self.clock = clock

    def runner(self, name: str = "one", *offers: Offer, **hello: Any) -> FakeRunner:
        """Return a runner that is connected."""
        return FakeRunner(self.hub, name, offers or (PREDICT,), **hello).connect()

    async def call(self, command: str = "predict", **start: Any) -> Live:
        """Open a call."""
        return await self.hub.open(Start(command=command, is_stream=True, **start), LOCAL)

    async def workflow(self, name: str, **given: Any) -> Live:
        """Open a call of a workflow."""
        return await self.call("", workflow_id=name, input=json.dumps(given).encode())

    async def frames(self, live: Live) -> list[Frame]:
        """Return all of a call's frames, up to its end."""
        found: list[Frame] = []
        with anyio.fail_after(WAIT_S):
            async with live.reader() as reader:
                async for batch in reader:
                    found += map(decode_frame, batch.lines)
        return found

    async def last(self, live: Live) -> Frame:
        """Return a call's terminal frame."""
        return (await self.frames(live))[-1]

    async def beat(self, runner: FakeRunner, times: int = 1) -> None:
        """Let heartbeats pass, all of which ``runner`` hears."""
        for _ in range(times):
            self.clock.advance(self.hub.settings.heartbeat_s)
            await runner.listen()
