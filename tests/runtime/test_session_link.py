"""A session on connections that come and go: joined writes, back-pressure, and nothing lost."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from gateway.fakes import FakeConnection, turns
from penstock.calls.tasks import TaskOwner
from penstock.errors import LocalProtocolError, RemoteProtocolError
from penstock.protocol.reliable import ACK_BYTES, ReliableSession
from penstock.protocol.session import Items, Ping
from penstock.runtime.session_link import AHEAD, SessionLink

pytestmark = pytest.mark.anyio


def large(size: int = AHEAD) -> Items:
    return Items(request_id="a", items=[b"x" * size])


async def test_all_that_waits_leaves_in_one_write() -> None:
    link, connection = SessionLink(TaskOwner()), FakeConnection()
    link.send(Ping(number=1))
    link.attach(connection, 0)
    link.send(Ping(number=2))
    await link.put(Ping(number=3))
    await turns()
    [parcel] = connection.parcels
    assert [message.number for message in ReliableSession().feed(parcel)] == [1, 2, 3]  # type: ignore[union-attr]


async def test_who_puts_waits_for_a_peer_that_acknowledges_nothing_and_all_in_turn() -> None:
    link, connection, peer, tasks = SessionLink(TaskOwner()), FakeConnection(), ReliableSession(), TaskOwner()
    link.attach(connection, 0)
    await link.put(large(AHEAD + 1))
    waiting = [tasks.start(link.put(Ping(number=number))) for number in range(3)]
    await turns()
    assert not any(task.done() for task in waiting)
    [parcel] = connection.parcels
    peer.feed(parcel)
    link.feed(peer.parcel())
    with anyio.fail_after(5):
        await asyncio.wait(waiting)
    await turns()
    heard = [message for parcel in connection.parcels[1:] for message in peer.feed(parcel)]
    assert heard == [Ping(number=number) for number in range(3)]


async def test_a_connection_that_breaks_loses_nothing() -> None:
    link, peer = SessionLink(TaskOwner()), ReliableSession()
    broken = FakeConnection()
    broken.broken = True
    link.attach(broken, 0)
    link.send(Ping(number=1))
    await turns()
    assert link.connection is None
    link.send(Ping(number=2))
    connection = FakeConnection()
    link.attach(connection, peer.received)
    await turns()
    heard = [message for parcel in connection.parcels for message in peer.feed(parcel)]
    assert heard == [Ping(number=1), Ping(number=2)]


async def test_a_write_that_hangs_does_not_hold_up_the_next_connection() -> None:
    class Hanging(FakeConnection):
        async def send(self, data: bytes) -> None:
            await asyncio.Event().wait()

    link, connection = SessionLink(TaskOwner()), FakeConnection()
    link.attach(Hanging(), 0)
    link.send(Ping(number=1))
    await turns()
    link.attach(connection, 0)
    await turns()
    assert ReliableSession().feed(connection.parcels[0]) == [Ping(number=1)]


async def test_much_that_comes_is_acknowledged_without_being_asked() -> None:
    link, connection, peer = SessionLink(TaskOwner()), FakeConnection(), ReliableSession()
    link.attach(connection, 0)
    peer.push(large(ACK_BYTES))
    assert link.feed(peer.parcel())
    await turns()
    peer.feed(connection.parcels[0])
    assert peer.unacknowledged == 0


async def test_flushed_is_when_all_is_acknowledged() -> None:
    link, connection, peer, tasks = SessionLink(TaskOwner()), FakeConnection(), ReliableSession(), TaskOwner()
    link.attach(connection, 0)
    link.send(Ping(number=1))
    flushing = tasks.start(link.flushed())
    await turns()
    assert not flushing.done()
    peer.feed(connection.parcels[0])
    link.feed(peer.parcel())
    with anyio.fail_after(5):
        await flushing


async def test_a_closed_session_lets_everybody_go_and_drops_what_is_said() -> None:
    link, tasks = SessionLink(TaskOwner()), TaskOwner()
    link.send(large(AHEAD + 1))
    waiting = [tasks.start(link.put(Ping(number=1))), tasks.start(link.flushed())]
    await turns()
    connection = FakeConnection()
    link.attach(connection, 0)
    assert link.close() is connection
    with anyio.fail_after(5):
        await asyncio.wait(waiting)
    link.send(large())
    assert link.connection is None


async def test_too_much_is_an_error_and_changes_nothing() -> None:
    link = SessionLink(TaskOwner(), max_message=100, max_kept=150)
    with pytest.raises(LocalProtocolError):
        link.send(large(200))
    link.send(large(50))
    with pytest.raises(LocalProtocolError):
        link.send(large(60))
    with pytest.raises(RemoteProtocolError):
        link.attach(FakeConnection(), 7)
    assert link.connection is None
