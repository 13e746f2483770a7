"""Two ends of a session, joined by a wire that loses, cuts and comes back."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.errors import LocalProtocolError, RemoteProtocolError
from penstock.protocol.reliable import ACK_BYTES, MAX_PARCEL, ReliableSession
from penstock.protocol.session import Items, Message, Ping, encode_message

LEFT, RIGHT = 0, 1


def numbered(number: int, size: int = 0) -> Message:
    return Items(request_id=str(number), items=[b"x" * size]) if size else Ping(number=number)


def number_of(message: Message) -> int:
    return message.number if isinstance(message, Ping) else int(message.request_id)  # type: ignore[union-attr]


class LossyWire(RuleBasedStateMachine):
    """Messages pushed at either end; parcels that are written, arrive in order, or are lost with their
    connection; connections that come back at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = (ReliableSession(), ReliableSession())
        self.pushed = [0, 0]
        self.heard: tuple[list[int], list[int]] = ([], [])
        self.flying: tuple[deque[bytes], deque[bytes]] = (deque(), deque())  # towards that side
        self.connected = True

    @rule(side=st.sampled_from((LEFT, RIGHT)), size=st.sampled_from((0, 10, MAX_PARCEL)))
    def push(self, side: int, size: int) -> None:
        self.pushed[side] += 1
        self.ends[side].push(numbered(self.pushed[side], size))

    @precondition(lambda self: self.connected)
    @rule(side=st.sampled_from((LEFT, RIGHT)))
    def write(self, side: int) -> None:
        self.flying[1 - side].append(self.ends[side].parcel())

    @precondition(lambda self: self.connected)
    @rule(side=st.sampled_from((LEFT, RIGHT)))
    def arrive(self, side: int) -> None:
        if self.flying[side]:
            self.hear(side)

    def hear(self, side: int) -> None:
        self.heard[side].extend(map(number_of, self.ends[side].feed(self.flying[side].popleft())))

    @rule(arriving=st.tuples(st.integers(0, 3), st.integers(0, 3)))
    def drop(self, arriving: tuple[int, int]) -> None:
        for side in (LEFT, RIGHT):  # some of what was on its way still comes, to each side as much as it may
            for _ in range(min(arriving[side], len(self.flying[side]))):
                self.hear(side)
            self.flying[side].clear()
        self.connected = False

    @precondition(lambda self: not self.connected)
    @rule()
    def reconnect(self) -> None:
        left, right = (end.received for end in self.ends)
        self.ends[LEFT].resume(right)
        self.ends[RIGHT].resume(left)
        self.connected = True

    @invariant()
    def nothing_is_lost_repeated_or_reordered(self) -> None:
        for side in (LEFT, RIGHT):
            assert self.heard[side] == list(range(1, len(self.heard[side]) + 1))
            assert len(self.heard[side]) <= self.pushed[1 - side]

    def teardown(self) -> None:
        if not self.connected:
            self.reconnect()
        for side in (LEFT, RIGHT):
            while self.ends[side].waiting:
                self.write(side)
            while self.flying[1 - side]:
                self.hear(1 - side)
        for side in (LEFT, RIGHT):
            assert len(self.heard[side]) == self.pushed[1 - side]
            self.write(side)
            while self.flying[1 - side]:
                self.hear(1 - side)
        assert [end.unacknowledged for end in self.ends] == [0, 0]


TestLossyWire = LossyWire.TestCase


def test_what_comes_twice_is_dropped() -> None:
    here, there = ReliableSession(), ReliableSession()
    here.push(Ping(number=1))
    parcel = here.parcel()
    assert there.feed(parcel) == [Ping(number=1)]
    assert there.feed(parcel) == []
    assert there.received == 1


def test_a_gap_is_refused_and_changes_nothing() -> None:
    here, there = ReliableSession(), ReliableSession()
    for number in (1, 2):
        here.push(Ping(number=number))
        parcel = here.parcel()
    with pytest.raises(RemoteProtocolError, match="2 came where 1 was due"):
        there.feed(parcel)
    assert there.received == 0


@pytest.mark.parametrize("number", [-1, 2, 10**30])
def test_nobody_acknowledges_or_resumes_behind_what_was_sent(number: int) -> None:
    here = ReliableSession()
    here.push(Ping(number=1))
    with pytest.raises(RemoteProtocolError, match="here 0 to 1 can be"):
        here.resume(number)


def test_what_was_acknowledged_is_forgotten_and_cannot_be_had_again() -> None:
    here, there = ReliableSession(), ReliableSession()
    here.push(Ping(number=1))
    there.feed(here.parcel())
    here.feed(there.parcel())
    assert here.unacknowledged == 0
    with pytest.raises(RemoteProtocolError, match="resumes message 0"):
        here.resume(0)


def test_what_piles_up_is_bounded() -> None:
    message = len(encode_message(numbered(1, 80)))
    here = ReliableSession(max_kept=3 * message)
    for number in (1, 2, 3):
        here.push(numbered(number, 80))
    with pytest.raises(LocalProtocolError, match="has not taken"):
        here.push(numbered(4, 80))
    assert here.unacknowledged == 3 * message
    with pytest.raises(LocalProtocolError, match="items"):
        ReliableSession(max_message=100).push(numbered(1, 101))


def test_a_parcel_is_bounded_and_a_large_message_has_one_of_its_own() -> None:
    here, there = ReliableSession(), ReliableSession()
    for number in (1, 2, 3):
        here.push(numbered(number, MAX_PARCEL + 1 if number == 2 else 10))
    assert [list(map(number_of, there.feed(here.parcel()))) for _ in range(4)] == [[1], [2], [3], []]


def test_what_was_received_is_said_now_and_then() -> None:
    here, there = ReliableSession(), ReliableSession()
    here.push(numbered(1, ACK_BYTES))
    there.feed(here.parcel())
    assert there.owes
    here.feed(there.parcel())
    assert not there.owes
    assert here.unacknowledged == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    session = ReliableSession()
    try:
        session.feed(data)
    except RemoteProtocolError:
        assert session.received == 0
