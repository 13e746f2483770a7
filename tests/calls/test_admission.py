"""Permits and the queue in front of them, against a naive model and one case at a time."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.calls.admission import MAX_RETRY_AFTER_S, Admission, Place
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.testing import FakeClock


def admission(permits: int = 1, queue: int = 2, clock: FakeClock | None = None) -> Admission:
    return Admission(permits, queue, "predict", (clock or FakeClock()).monotonic)


@pytest.mark.parametrize(("permits", "queue"), [(0, 1), (-1, 1), (1, -1)])
def test_it_takes_sensible_numbers_only(permits: int, queue: int) -> None:
    with pytest.raises(ValueError, match="predict: at least 1 permit"):
        admission(permits, queue)


def test_first_come_first_served_and_positions_say_so() -> None:
    door = admission(permits=1, queue=3)
    places = [door.enter() for _ in range(4)]
    assert [place.position for place in places] == [0, 1, 2, 3]
    places[2].leave()
    assert [places[i].position for i in (0, 1, 3)] == [0, 1, 2]
    places[0].leave()
    assert [places[i].position for i in (1, 3)] == [0, 1]
    assert (door.running, door.waiting) == (1, 1)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    clock = FakeClock()
    door = admission(permits=2, queue=1, clock=clock)
    first, *_ = [door.enter() for _ in range(3)]
    with pytest.raises(CallError, match=r"predict is busy \(2 running, 1 waiting\)") as refused:
        door.enter()
    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert refused.value.retryable
    assert refused.value.retry_after_s == 1
    assert (door.running, door.waiting) == (2, 1)
    clock.advance(50)  # calls that take long make the estimate longer, up to a bound
    first.leave()
    door.enter()
    with pytest.raises(CallError) as later:
        door.enter()
    assert 1 < later.value.retry_after_s <= MAX_RETRY_AFTER_S
    assert later.value.retry_after_s == int(later.value.retry_after_s)


def test_no_queue_refuses_at_once() -> None:
    door = admission(permits=1, queue=0)
    place = door.enter()
    with pytest.raises(CallError):
        door.enter()
    place.leave()
    assert door.enter().position == 0


def test_leaving_twice_gives_back_once() -> None:
    door = admission(permits=2, queue=0)
    first, _ = door.enter(), door.enter()
    first.leave()
    first.leave()
    assert door.running == 1


@pytest.mark.anyio
async def test_a_waiter_goes_on_when_its_permit_comes() -> None:
    door = admission()
    holder, waiter = door.enter(), door.enter()
    passed = anyio.Event()

    async def wait() -> None:
        await waiter.admitted()
        passed.set()

    tasks = TaskOwner()
    tasks.start(wait())
    await anyio.wait_all_tasks_blocked()
    assert not passed.is_set()
    holder.leave()
    with anyio.fail_after(5):
        await passed.wait()
    assert waiter.position == 0


@pytest.mark.anyio
async def test_who_has_a_permit_is_not_made_to_wait() -> None:
    with anyio.fail_after(5):
        await admission().enter().admitted()


@pytest.mark.anyio
@pytest.mark.parametrize("permit_first", [True, False], ids=["permit then cancel", "cancel then permit"])
async def test_a_waiter_cancelled_as_its_permit_comes_does_not_leak_it(permit_first: bool) -> None:
    door = admission()
    holder, waiter = door.enter(), door.enter()
    tasks = TaskOwner()

    async def wait() -> None:
        try:
            await waiter.admitted()
        finally:
            waiter.leave()

    task = tasks.start(wait())
    await anyio.wait_all_tasks_blocked()
    # Both in one turn of the loop, before the waiter can notice either.
    for act in (holder.leave, task.cancel) if permit_first else (task.cancel, holder.leave):
        act()
    with anyio.fail_after(5):
        await tasks.aclose()
    assert (door.running, door.waiting) == (0, 0)
    assert door.enter().position == 0


class AgainstANaiveModel(RuleBasedStateMachine):
    @initialize(permits=st.integers(1, 3), queue=st.integers(0, 3))
    def start(self, permits: int, queue: int) -> None:
        self.clock = FakeClock()
        self.permits, self.queue = permits, queue
        self.door = admission(permits, queue, self.clock)
        self.running: set[Place] = set()
        self.waiting: list[Place] = []
        self.gone: list[Place] = []

    @rule()
    def enter(self) -> None:
        if len(self.running) == self.permits and len(self.waiting) == self.queue:
            with pytest.raises(CallError) as refused:
                self.door.enter()
            assert 1 <= refused.value.retry_after_s <= MAX_RETRY_AFTER_S
            return
        place = self.door.enter()
        if len(self.running) < self.permits:
            self.running.add(place)
        else:
            self.waiting.append(place)

    @precondition(lambda self: self.running or self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from([*sorted(self.running, key=id), *self.waiting]))
        place.leave()
        self.gone.append(place)
        if place in self.waiting:
            self.waiting.remove(place)
        else:
            self.running.remove(place)
            if self.waiting:
                self.running.add(self.waiting.pop(0))

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.gone)).leave()

    @rule(seconds=st.floats(0, 1000))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "door"):
            assert self.door.running == len(self.running) <= self.permits
            assert self.door.waiting == len(self.waiting) <= self.queue
            assert [place.position for place in self.waiting] == list(range(1, len(self.waiting) + 1))
            assert all(place.granted_at is not None and place.position == 0 for place in self.running)
            assert not self.waiting or len(self.running) == self.permits


AgainstANaiveModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAgainstANaiveModel = AgainstANaiveModel.TestCase


def test_more_permits_let_those_in_that_wait() -> None:
    door = admission(1, 4)
    places = [door.enter() for _ in range(4)]
    door.resize(3, 4)
    assert [place.position for place in places] == [0, 0, 0, 1]


def test_fewer_permits_take_none_away() -> None:
    door = admission(3, 4)
    places = [door.enter() for _ in range(4)]
    door.resize(1, 1)
    assert (door.running, door.waiting) == (3, 1)
    with pytest.raises(CallError):
        door.enter()
    places[0].leave()
    places[1].leave()
    assert (door.running, door.waiting) == (1, 1)
    places[2].leave()
    assert places[3].position == 0


def test_without_permits_all_wait_and_none_more_than_there_are_places() -> None:
    door = admission(1, 1)
    door.resize(0, 1)
    place = door.enter()
    assert place.position == 1
    with pytest.raises(CallError, match="0 running, 1 waiting"):
        door.enter()
    door.resize(1, 1)
    assert place.position == 0
