"""Connections that come at once are taken at once, whatever else the event loop does."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket

import anyio
import pytest

from penstock.server.accepting import Acceptor

pytestmark = pytest.mark.anyio
CLIENTS = 60


class Counting(asyncio.Protocol):
    """Counts the connections that were made."""

    def __init__(self, made: list[asyncio.Transport], enough: asyncio.Event, due: int) -> None:
        self._made, self._enough, self._due = made, enough, due

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._made.append(transport)
        if len(self._made) == self._due:
            self._enough.set()


class Refusing(socket.socket):
    """A listening socket that runs out of something, as often as it is told to."""

    times = 0
    number = errno.EMFILE

    def accept(self) -> tuple[socket.socket, object]:
        if self.times:
            self.times -= 1
            raise OSError(self.number, "for the test")
        return super().accept()


def listener() -> Refusing:
    listening = Refusing()
    listening.bind(("127.0.0.1", 0))
    listening.listen(CLIENTS)
    return listening


async def test_all_that_wait_are_taken_in_one_turn() -> None:
    made: list[asyncio.Transport] = []
    enough = asyncio.Event()
    with listener() as listening:
        clients = [socket.create_connection(listening.getsockname()) for _ in range(CLIENTS)]
        acceptor = Acceptor(listening, lambda: Counting(made, enough, CLIENTS))
        turns = 0
        while len(made) < CLIENTS and turns < 10:
            await asyncio.sleep(0)
            turns += 1
        assert len(made) == CLIENTS
        acceptor.close()
        await acceptor.wait_closed()
        for end in (*made, *clients):
            end.close()
        await asyncio.sleep(0)


async def test_without_a_descriptor_it_says_so_and_tries_again_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.server.accepting.PAUSE_S", 0.001)
    made: list[asyncio.Transport] = []
    enough = asyncio.Event()
    with listener() as listening, caplog.at_level(logging.ERROR, "penstock.server"):
        listening.times = 2
        with socket.create_connection(listening.getsockname()):
            acceptor = Acceptor(listening, lambda: Counting(made, enough, 1))
            with anyio.fail_after(5):
                await enough.wait()
            acceptor.close()
            await acceptor.wait_closed()
            made[0].close()
            await asyncio.sleep(0)
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        "no connection can be accepted"
    ] * 2


async def test_one_that_left_while_it_waited_is_passed_over() -> None:
    made: list[asyncio.Transport] = []
    enough = asyncio.Event()
    with listener() as listening:
        listening.times, listening.number = 1, errno.ECONNABORTED
        with socket.create_connection(listening.getsockname()):
            acceptor = Acceptor(listening, lambda: Counting(made, enough, 1))
            with anyio.fail_after(5):
                await enough.wait()
            acceptor.close()
            await acceptor.wait_closed()
            made[0].close()
            await asyncio.sleep(0)
