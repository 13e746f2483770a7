"""A gateway knows what a runner's caches hold: over lost links, lost events and new sessions."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.gateway.prefixes import RunnerPrefixes
from penstock.kv.events import EventLog
from penstock.kv.held import HeldPrefixes
from penstock.protocol.reliable import ReliableSession
from penstock.protocol.session import MAX_NAMED, Cached, Message
from penstock.runner.prefix_report import PrefixReport
from penstock.runtime.session_link import AHEAD, SessionLink

pytestmark = pytest.mark.anyio

TALKS = st.lists(st.sampled_from("abc"), max_size=6)


def chain(words: list[str]) -> list[bytes]:
    return [path.rjust(16, ".").encode() for path in accumulate(words)]


class Ends:
    """The two ends of a link, without what carries it."""

    def __init__(self, held: HeldPrefixes, most: int = 100) -> None:
        self.held = held
        self.most = most
        self.max_message = 1 << 20
        self.unacknowledged = 0
        self.connected = False
        self.report = PrefixReport(held, self.send)
        self.runner, self.gateway = ReliableSession(), ReliableSession()
        self.known = RunnerPrefixes(most)
        self.sent: list[Cached] = []

    def send(self, message: Message) -> None:
        assert isinstance(message, Cached)
        self.sent.append(message)
        self.runner.push(message)
        self.unacknowledged = self.runner.unacknowledged

    def connect(self, *, session_lost: bool = False) -> None:
        if session_lost:
            self.runner, self.gateway = ReliableSession(), ReliableSession()
            self.known = RunnerPrefixes(self.most)
        self.connected = True
        self.runner.resume(self.gateway.received)
        self.gateway.resume(self.runner.received)
        self.report.begin(cast(SessionLink, self), self.most)

    def drop(self) -> None:
        self.connected = False
        self.report.stop()

    def carry(self) -> None:
        """One parcel up, and one down."""
        if self.connected:
            for message in self.gateway.feed(self.runner.parcel()):
                assert isinstance(message, Cached)
                self.known.hear(message)
            self.runner.feed(self.gateway.parcel())
            self.unacknowledged = self.runner.unacknowledged
            self.report.tell()

    def agree(self) -> bool:
        held = self.held.snapshot().held
        return self.known.blocks == len(held) and all(self.known.longest([name]) for name in held)


HOLD = st.tuples(st.just("hold"), st.integers(0, 3), TALKS)
STEPS = st.lists(
    HOLD | st.sampled_from(["carry", "drop", "connect", "lose the session", "turn", "far behind"]),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_the_gateway_knows_what_is_held_whatever_happens_to_the_link(steps: list) -> None:
    async def run() -> None:
        held = HeldPrefixes()
        held._log = EventLog(max_events=4)  # so that events are lost
        ends = Ends(held)
        for step in steps:
            if isinstance(step, tuple):
                held.hold(step[1], chain(step[2]))
            elif step == "carry":
                ends.carry()
            elif step == "drop":
                ends.drop()
            elif step in ("connect", "lose the session"):
                ends.connect(session_lost=step != "connect")
            elif step == "far behind":
                ends.unacknowledged = AHEAD + 1
            else:
                await asyncio.sleep(0)
        if not ends.connected:
            ends.connect()
        await asyncio.sleep(0)
        ends.carry()
        ends.carry()
        assert ends.agree()
        ends.drop()

    asyncio.run(run())


async def test_a_change_is_told_before_what_comes_behind_it() -> None:
    held = HeldPrefixes()
    ends = Ends(held)
    ends.connect()
    order: list[str] = []
    await asyncio.to_thread(held.hold, 1, chain(["a", "b"]))
    asyncio.get_running_loop().call_soon(lambda: order.append(f"behind {len(ends.sent)}"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["behind 2"]  # that it begins anew, and the change
    assert ends.sent[-1].held == chain(["a", "b"])
    ends.drop()


async def test_what_came_and_went_is_told_once() -> None:
    held = HeldPrefixes()
    ends = Ends(held)
    ends.connect()
    held.hold(1, chain(["a", "b"]))
    held.hold(1, chain(["a", "c"]))
    await asyncio.sleep(0)
    [first, *rest] = ends.sent
    assert (first.anew, first.held) == (True, [])
    assert {name for each in rest for name in each.held} == set(chain(["a", "c"]))
    await asyncio.sleep(0)
    ends.carry()
    assert len(ends.sent) == 1 + len(rest)
    ends.drop()


async def test_a_gateway_that_does_not_ask_is_told_nothing() -> None:
    held = HeldPrefixes()
    held.hold(1, chain(["a"]))
    ends = Ends(held, most=0)
    ends.connect()
    held.hold(2, chain(["b"]))
    await asyncio.sleep(0)
    ends.carry()
    assert ends.sent == []


async def test_much_is_told_in_several_messages_and_no_more_than_is_kept() -> None:
    held = HeldPrefixes()
    names = [number.to_bytes(16, "big") for number in range(3 * MAX_NAMED)]
    held.hold(1, names)
    ends = Ends(held, most=2 * MAX_NAMED + 1)
    ends.connect()
    assert [len(message.held) for message in ends.sent] == [0, MAX_NAMED, MAX_NAMED, 1]
    assert [message.number for message in ends.sent] == [1, 2, 3, 4]
    ends.carry()
    assert ends.known.longest(names) == 2 * MAX_NAMED + 1
    ends.max_message = 1024
    ends.connect()
    assert all(len(message.held) <= 49 for message in ends.sent[4:])
    ends.drop()


async def test_a_gateway_that_is_far_behind_is_told_later_and_of_the_end_only() -> None:
    held = HeldPrefixes()
    ends = Ends(held)
    ends.connect()
    ends.carry()
    ends.unacknowledged = AHEAD + 1
    for number in range(50):
        held.hold(1, chain(["a"] * (number % 5)))
        await asyncio.sleep(0)
    assert len(ends.sent) == 1
    ends.carry()
    ends.carry()
    assert ends.agree()
    assert len(ends.sent) < 4
    ends.drop()


async def test_a_thread_that_holds_when_the_loop_is_closed_harms_nobody() -> None:
    held = HeldPrefixes()

    def elsewhere() -> None:
        async def begin() -> None:
            Ends(held).connect()

        asyncio.run(begin())

    await asyncio.to_thread(elsewhere)
    held.hold(1, chain(["a"]))
