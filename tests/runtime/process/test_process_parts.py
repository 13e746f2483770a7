"""The parts of process isolation, each for itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import (
    MAX_MESSAGE,
    Cancel,
    Credit,
    End,
    Failure,
    Items,
    Message,
    Open,
    Ping,
    Pong,
    Progress,
)
from penstock.runtime.link import WRITE_BUFFER, Link
from penstock.runtime.process import _describe_exit
from penstock.runtime.remote import RemoteCall
from penstock.runtime.supervisor import Backoff

pytestmark = pytest.mark.anyio

OPENING = Open(request_id="a", task_id="a", command="predict", window=400)


class Carrier:
    """A process that only remembers."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.killed: list[str] = []
        self.call: RemoteCall | None = None

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def kill(self, why: str) -> None:
        self.killed.append(why)
        assert self.call is not None
        self.call.lose(CallError("lost", ErrorCode.UNAVAILABLE))


def opened() -> tuple[Carrier, RemoteCall]:
    carrier = Carrier()
    carrier.call = RemoteCall(carrier, OPENING)
    return carrier, carrier.call


# -- backing off -----------------------------------------------------------------------------------------


@given(st.floats(0.001, 1), st.floats(1, 100), st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_waits_double_up_to_a_bound_with_half_of_each_by_chance(
    first_s: float, most_s: float, chances: list[float]
) -> None:
    given_chances = iter(chances)
    backoff = Backoff(first_s, most_s, lambda: next(given_chances))
    for turn, chance in enumerate(chances):
        whole_s = min(most_s, first_s * 2**turn)
        assert backoff.now_s >= max(1, whole_s)
        assert backoff.next_s() == pytest.approx(whole_s / 2 + whole_s / 2 * chance)


def test_a_steady_process_lets_the_waits_begin_again() -> None:
    backoff = Backoff(1, 60, lambda: 1.0)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next_s() == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (7, "exit code 7"), (-9, "exit code -9, SIGKILL"), (-63, "exit code -63")],
)
def test_an_exit_is_named(code: int, words: str) -> None:
    assert _describe_exit(code) == words


# -- a remote call ---------------------------------------------------------------------------------------


async def test_items_come_in_batches_and_credit_goes_back_by_the_quarter() -> None:
    carrier, call = opened()
    assert carrier.sent == [OPENING]
    call.heard(Items(request_id="a", items=[b"x" * 50, b"y" * 49]))
    call.heard(Progress(request_id="a", about=b"{}"))
    assert await call.take() == [b"x" * 50, b"y" * 49, Progress(request_id="a", about=b"{}")]
    assert len(carrier.sent) == 1
    call.heard(Items(request_id="a", items=[b"z"]))
    await call.take()
    assert carrier.sent[1:] == [Credit(request_id="a", size=100)]
    call.heard(End(request_id="a", answer=b"1"))
    assert await call.take() == []
    assert call.result().answer == b"1"
    await call.stop(CancelReason.CALLER, 5)
    assert len(carrier.sent) == 2  # nothing to cancel


async def test_a_failure_is_raised_once_its_items_are_taken() -> None:
    _, call = opened()
    call.heard(Items(request_id="a", items=[b"1"]))
    call.heard(End(request_id="a", error=Failure(code=ErrorCode.CONFLICT, message="no", retryable=False)))
    assert await call.take() == [b"1"]
    assert await call.take() == []
    with pytest.raises(CallError, match="no") as raised:
        call.result()
    assert raised.value.code is ErrorCode.CONFLICT


async def test_a_loss_is_told_once_what_had_arrived_is_taken() -> None:
    _, call = opened()
    call.heard(Items(request_id="a", items=[b"1"]))
    call.lose(CallError("gone", ErrorCode.UNAVAILABLE))
    assert await call.take() == [b"1"]
    with pytest.raises(CallError, match="gone"):
        await call.take()
    await call.stop(CancelReason.CALLER, 5)


async def test_who_waits_is_woken_by_whatever_comes() -> None:
    for message in (Items(request_id="a", items=[b"1"]), End(request_id="a")):
        _, call = opened()
        tasks = TaskOwner()
        taking = tasks.start(call.take())
        await anyio.lowlevel.checkpoint()
        call.heard(message)
        with anyio.fail_after(5):
            assert await taking == ([b"1"] if isinstance(message, Items) else [])


async def test_stopping_cancels_and_waits_however_often_it_is_interrupted() -> None:
    carrier, call = opened()
    tasks = TaskOwner()
    stopping = tasks.start(call.stop(CancelReason.DRAIN, 600), awaited=True)
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
        stopping.cancel()
    await anyio.lowlevel.checkpoint()
    assert not stopping.done()
    assert carrier.sent[1:] == [Cancel(request_id="a", reason=CancelReason.DRAIN)]
    call.heard(End(request_id="a", reason=CancelReason.DRAIN))
    with anyio.fail_after(5), pytest.raises(asyncio.CancelledError):
        await stopping
    assert not carrier.killed


async def test_what_does_not_stop_is_killed_after_its_grace() -> None:
    carrier, call = opened()
    with anyio.fail_after(5):
        await call.stop(CancelReason.CALLER, 0.01)
    assert carrier.killed == ["a call of it ran on 0.01 s after its cancel"]


# -- the link --------------------------------------------------------------------------------------------


class Ends:
    """Two ends of a link, what each has heard, and why it was lost."""

    def __init__(self) -> None:
        self.heard: tuple[list[Message], list[Message]] = ([], [])
        self.lost: tuple[list[str], list[str]] = ([], [])
        self.links = [Link(self.heard[i].append, self.lost[i].append) for i in (0, 1)]

    async def until(self, end: int, messages: int) -> None:
        with anyio.fail_after(20):
            while len(self.heard[end]) < messages:
                await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def linked() -> AsyncIterator[Ends]:
    ends = Ends()
    loop = asyncio.get_running_loop()
    for link, end in zip(ends.links, socket.socketpair(), strict=True):
        await loop.create_unix_connection(lambda link=link: link, sock=end)
    yield ends
    for link in ends.links:
        link.abort()
        with anyio.fail_after(5):
            await link.closed


async def test_a_link_carries_messages_both_ways_in_order() -> None:
    async with linked() as ends:
        for number in range(100):
            ends.links[0].send(Ping(number=number))
            ends.links[1].send(Pong(number=number))
        await ends.until(0, 100)
        await ends.until(1, 100)
        assert ends.heard == (
            [Pong(number=number) for number in range(100)],
            [Ping(number=number) for number in range(100)],
        )
    assert ends.lost == (["closed its link"], ["closed its link"])


async def test_a_sender_waits_for_a_peer_that_does_not_read() -> None:
    async with linked() as ends:
        large = Items(request_id="a", items=[b"x" * (2 * WRITE_BUFFER)])
        tasks = TaskOwner()
        waiting = tasks.start(ends.links[0].put(large))
        await asyncio.sleep(0)
        assert ends.links[0]._full is not None
        assert not waiting.done()
        await ends.until(1, 1)
        with anyio.fail_after(5):
            await waiting
        await ends.links[0].put(Ping(number=1))  # at once


async def test_a_sender_whose_peer_is_gone_does_not_wait_for_it() -> None:
    async with linked() as ends:
        ends.links[0].send(Items(request_id="a", items=[b"x" * (2 * WRITE_BUFFER)]))
        ends.links[0].abort()
        with anyio.fail_after(5):
            await ends.links[0].put(Ping(number=1))  # heard by nobody


async def test_a_peer_that_talks_nonsense_is_left() -> None:
    ends = Ends()
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    await loop.create_unix_connection(lambda: ends.links[0], sock=here)
    with there:
        there.sendall((MAX_MESSAGE + 1).to_bytes(4, "big"))
        with anyio.fail_after(5):
            await ends.links[0].closed
    [why] = ends.lost[0]
    assert why.startswith("broke the protocol: a message claims 67108865 bytes")
    assert ends.heard[0] == []
