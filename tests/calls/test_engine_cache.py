"""Room in an engine's KV cache: who gets it, who waits for it, who is refused; and it always comes back."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.calls.admission import MAX_RETRY_AFTER_S, Admission, Place
from penstock.calls.engine_cache import BLOCK_TOKENS, EngineCache, KVNeed, _params
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.kv import KVHookEvent, KVHookPoint, KVVeto
from penstock.protocol.events import UNBOUNDED
from penstock.testing import FakeClock


class Doors:
    """A cache of four blocks, with the admissions of two commands in front of it."""

    def __init__(self, tokens: int = 4 * BLOCK_TOKENS, permits: int = 9, queue: int = 9) -> None:
        self.clock = FakeClock()
        self.cache = EngineCache("engine", tokens, monotonic=self.clock.monotonic)
        self.chat, self.predict = (
            Admission(permits, queue, name, self.clock.monotonic) for name in ("chat", "predict")
        )

    def need(self, tokens: int, name: str = "r", budget: int | None = None) -> KVNeed:
        return self.cache.need(name, tokens - 1, 1, budget)

    @property
    def handles(self) -> int:
        return self.cache.state().stats.handles


@pytest.fixture
def doors() -> Doors:
    return Doors()


def refusal(door: Admission, need: KVNeed) -> CallError:
    with pytest.raises(CallError) as refused:
        door.enter(need)
    return refused.value


def test_calls_start_while_there_is_room_and_wait_for_it_in_their_order(doors: Doors) -> None:
    first, second = doors.chat.enter(doors.need(40)), doors.predict.enter(doors.need(10))
    large, small = doors.chat.enter(doors.need(33)), doors.predict.enter(doors.need(1))
    assert [place.position for place in (first, second, large, small)] == [0, 0, 1, 1]
    assert doors.cache.state().waiting == 2
    second.leave()  # there is a block now, which the small one could have: but the large one came first
    assert [place.position for place in (large, small)] == [1, 1]
    first.leave()
    assert [place.position for place in (large, small)] == [0, 0]
    for place in (large, small):
        place.leave()
    assert (doors.handles, doors.cache.state().waiting) == (0, 0)


def test_who_leaves_the_queue_makes_way_for_those_behind(doors: Doors) -> None:
    first = doors.chat.enter(doors.need(33))
    large, small = doors.chat.enter(doors.need(33)), doors.predict.enter(doors.need(1))
    large.leave()
    assert (first.position, small.position) == (0, 0)
    assert doors.chat.waiting == 0


def test_a_permit_is_needed_as_well() -> None:
    doors = Doors(permits=1)
    first, second = doors.chat.enter(doors.need(1)), doors.chat.enter(doors.need(1))
    assert (first.position, second.position, doors.cache.state().counted_blocks) == (0, 1, 1)
    first.leave()
    assert (second.position, doors.cache.state().counted_blocks) == (0, 1)


def test_a_full_queue_tells_the_measured_time(doors: Doors) -> None:
    doors = Doors(queue=1)
    for _ in range(3):  # 64 tokens in 8 seconds
        place = doors.chat.enter(doors.need(64))
        doors.clock.advance(8)
        place.leave()
    doors.chat.enter(doors.need(64))
    doors.chat.enter(doors.need(32))
    error = refusal(doors.chat, doors.need(32))
    assert (error.code, error.retryable) == (ErrorCode.RESOURCE_EXHAUSTED, True)
    assert error.message == "chat is busy (0 of 64 tokens of KV cache left, 1 waiting); try again later"
    assert error.retry_after_s == 8  # those 32 and the 32 before them, at 8 a second
    assert doors.cache.state().drain_tokens_per_s == pytest.approx(8)
    assert doors.cache.state().waiting == 1


def test_more_than_there_is_is_refused_for_good(doors: Doors) -> None:
    error = refusal(doors.chat, doors.cache.need("r", 1, 64, None))
    assert (error.code, error.retryable) == (ErrorCode.RESOURCE_EXHAUSTED, False)
    assert error.message == (
        "prompt and answer may take 65 tokens, and the KV cache of engine holds 64; lower max_tokens or "
        "kv_budget_tokens, or shorten the prompt"
    )
    assert doors.chat.enter(doors.cache.need("r", 10**9, 63, None)).position == 0  # a bound that is too high


@pytest.mark.parametrize("budget", [65, 2**62, None])
def test_a_budget_bounds_what_is_asked_for(budget: int | None) -> None:
    doors = Doors()
    assert doors.cache.need("r", 10, 10, 15).num_tokens == 15
    assert doors.cache.need("r", 10, 10, budget).num_tokens == 20
    assert EngineCache("e", 64, call_tokens=16).need("r", 10, 10, budget).num_tokens == 16


def test_an_answer_that_goes_on_until_it_ends_may_take_all_there_is() -> None:
    doors = Doors()
    assert doors.cache.need("r", 10, UNBOUNDED, None).num_tokens == doors.cache.num_tokens
    assert doors.cache.fitting(10, UNBOUNDED, None) == doors.cache.num_tokens
    assert EngineCache("e", 64, call_tokens=16).need("r", 10, UNBOUNDED, None).num_tokens == 16


@pytest.mark.parametrize("tokens", [0, 15, -1, -(2**40), 2**40])
def test_a_cache_of_no_block_or_too_many_is_refused(tokens: int) -> None:
    with pytest.raises(CallError) as refused:
        EngineCache("engine", tokens)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_where_nobody_gives_back_nobody_waits(doors: Doors) -> None:
    """An operator holds and pins everything: a call would wait for ever."""
    with doors.cache.locked() as pool:
        theirs = pool.allocate(_params(doors.need(60)))
        pool.pin(theirs)
    error = refusal(doors.chat, doors.need(10))
    assert (error.code, error.retryable) == (ErrorCode.RESOURCE_EXHAUSTED, True)
    assert "no call holds the rest, so waiting for one is no use" in error.message
    assert 1 <= (error.retry_after_s or 0) <= MAX_RETRY_AFTER_S
    with doors.cache.locked() as pool:
        pool.free(theirs, force=True)
    assert doors.chat.enter(doors.need(10)).position == 0


@pytest.mark.anyio
async def test_who_waits_is_refused_when_the_last_call_leaves_no_room(doors: Doors) -> None:
    with doors.cache.locked() as pool:
        pool.allocate(_params(doors.need(40)))
    first = doors.chat.enter(doors.need(16))
    waiter = doors.predict.enter(doors.need(32))
    first.leave()
    with anyio.fail_after(5), pytest.raises(CallError, match="no call holds the rest"):
        await waiter.admitted()
    waiter.leave()
    assert doors.predict.waiting == doors.predict.running == 0


def test_a_veto_refuses_the_call_with_its_reason(doors: Doors) -> None:
    closed = doors.cache.hooks.on("before_allocate", lambda event: KVVeto("closed for the night"))
    need = doors.need(64)
    place = doors.chat.enter(need)
    with pytest.raises(CallError) as refused:
        need.allocate(64)
    assert refused.value.code is ErrorCode.FAILED_PRECONDITION
    assert refused.value.message == "a hook forbade to allocate: closed for the night"
    assert doors.cache.state().counted_blocks == 0
    place.leave()
    closed()
    need = doors.need(64)
    doors.chat.enter(need)
    need.allocate(64)
    assert doors.handles == 1


def test_what_a_hook_wants_to_keep_is_told_with_a_time_to_come_back(doors: Doors) -> None:
    need = doors.need(64)
    place = doors.chat.enter(need)
    need.allocate(64, range(64))
    need.computed = True
    place.leave()
    doors.cache.hooks.on("before_evict", lambda event: KVVeto("it is dear to me"))
    need = doors.need(64)
    place = doors.chat.enter(need)
    with pytest.raises(CallError, match="it is dear to me") as refused:
        need.allocate(64, range(1000, 1010))
    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert 1 <= (refused.value.retry_after_s or 0) <= MAX_RETRY_AFTER_S
    place.leave()
    assert doors.handles == 0


def test_hooks_that_raise_or_reenter_harm_nobody(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    codes: list[str] = []

    def reenter(event: KVHookEvent) -> None:
        with doors.cache.locked() as pool:
            try:
                pool.clear(force=True)
            except CallError as error:
                codes.append(error.code.value)

    def fail(event: KVHookEvent) -> None:
        raise RuntimeError("ouch")

    for point in KVHookPoint:
        doors.cache.hooks.on(point, reenter)
        doors.cache.hooks.on(point, fail)
    for _ in range(2):
        need = doors.need(64)
        place = doors.chat.enter(need)
        waiter = doors.chat.enter(doors.need(64))
        need.allocate(64, range(50))
        need.computed = True
        place.leave()
        assert waiter.position == 0
        waiter.leave()
    assert doors.handles == 0
    assert set(codes) == {"failed_precondition"}
    assert "raised; it is ignored" in caplog.text


def test_what_is_known_of_a_prompt_makes_its_room_fit(doors: Doors) -> None:
    need = doors.need(64)
    place = doors.chat.enter(need)
    waiter = doors.chat.enter(doors.need(16))
    need.allocate(30, range(20))
    assert (need.num_tokens, waiter.position, doors.handles) == (30, 0, 1)
    need.computed = True
    need.follow(range(20, 28))
    need.follow(range(28, 200))  # more than there is room for: it is not cached, and nobody is harmed
    waiter.leave()
    place.leave()
    again = doors.need(64)
    place = doors.chat.enter(again)
    again.allocate(40, range(33))
    assert again.handle is not None
    assert again.handle.reused_tokens == 16
    place.leave()
    stats = doors.cache.state().stats
    assert (stats.queried_tokens, stats.reused_tokens, stats.handles) == (53, 16, 0)


def test_room_that_was_too_large_is_given_back(doors: Doors) -> None:
    need = doors.need(64)
    doors.chat.enter(need)
    need.allocate(64)
    waiter = doors.chat.enter(doors.need(32))
    need.fit(32)
    assert waiter.position == 0


def test_what_the_engine_has_not_computed_is_not_found_again(doors: Doors) -> None:
    for _ in range(2):
        need = doors.need(64)
        place = doors.chat.enter(need)
        need.allocate(33, range(32))
        assert need.handle is not None
        assert need.handle.reused_tokens == 0
        place.leave()


def test_a_bound_evicts_nothing(doors: Doors) -> None:
    for expected in (0, 32):
        need = doors.need(64)
        place = doors.chat.enter(need)
        need.allocate(33, range(32))
        assert need.handle is not None
        assert need.handle.reused_tokens == expected
        need.computed = True
        place.leave()
    assert not doors.cache.state().stats.evicted_blocks


def test_more_than_was_asked_for_is_had_if_there_is_room(doors: Doors) -> None:
    need, other = doors.need(16), doors.need(16)
    places = [doors.chat.enter(need), doors.chat.enter(other)]
    need.allocate(48)
    with pytest.raises(CallError) as refused:
        other.allocate(32)
    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
    for place in places:
        place.leave()
    need.allocate(16)  # too late: nothing happens
    assert doors.handles == 0


@pytest.mark.anyio
async def test_a_generation_uses_what_its_call_has_got(doors: Doors) -> None:
    need = doors.cache.reserve(doors.need(64, "call"))
    place = doors.chat.enter(need)
    with anyio.fail_after(5):
        async with doors.cache.hold(doors.need(64, "call")) as held:
            assert held is need
            held.allocate(64)
        assert doors.handles == 0
        async with doors.cache.hold(doors.need(64, "call")) as second:  # the same call asks again
            assert second is not need
            second.allocate(64)
            place.leave()
            assert doors.handles == 1
    assert doors.handles == 0


@pytest.mark.anyio
async def test_a_generation_in_another_thread_waits_on_its_own_loop(doors: Doors) -> None:
    first = doors.chat.enter(doors.need(64))
    waits = threading.Event()
    order: list[str] = []

    async def generate() -> None:
        waits.set()
        async with doors.cache.hold(doors.need(64, "other")):
            order.append("held")

    thread = threading.Thread(target=lambda: anyio.run(generate))
    thread.start()
    await anyio.to_thread.run_sync(waits.wait)
    order.append("left")
    first.leave()
    with anyio.fail_after(10):
        await anyio.to_thread.run_sync(thread.join)
    assert order == ["left", "held"]
    assert doors.handles == 0


@pytest.mark.anyio
async def test_a_waiter_that_is_cancelled_leaves_nothing_behind(doors: Doors) -> None:
    first = doors.chat.enter(doors.need(64))

    async def generate() -> None:
        async with doors.cache.hold(doors.need(16)):
            pytest.fail("it was cancelled before")

    tasks = TaskOwner()
    waiter = tasks.start(generate())
    await anyio.wait_all_tasks_blocked()
    assert doors.cache.state().waiting == 1
    for act in (first.leave, waiter.cancel):  # in one turn of the loop
        act()
    with anyio.fail_after(5):
        await tasks.aclose()
    assert (doors.handles, doors.cache.state().waiting) == (0, 0)


def test_a_closed_cache_tells_of_handles_that_were_never_freed(
    doors: Doors, caplog: pytest.LogCaptureFixture
) -> None:
    with doors.cache.locked() as pool:
        pool.allocate(_params(doors.need(16)))
    place = doors.chat.enter(doors.need(16))
    doors.cache.close()
    assert not caplog.messages  # a call is not over yet
    place.leave()
    assert caplog.messages == ["engine is closed, and 1 handles of its KV cache were never freed"]


class Lives(RuleBasedStateMachine):
    """Calls come through two doors, learn what they need, and leave at any point of their lives."""

    def __init__(self) -> None:
        super().__init__()
        self.doors = Doors(permits=3, queue=2)
        self.places: list[tuple[Place, KVNeed]] = []
        self.veto: str = ""
        self.foreign: list[Any] = []

        self.doors.cache.hooks.on("before_allocate", self.may)
        self.doors.cache.hooks.on("before_evict", self.may)

    def may(self, event: KVHookEvent) -> KVVeto | None:
        return KVVeto("no") if event.point.value == self.veto else None

    @rule(door=st.sampled_from(("chat", "predict")), tokens=st.integers(1, 70))
    def enter(self, door: str, tokens: int) -> None:
        need = self.doors.need(tokens)
        try:
            place = getattr(self.doors, door).enter(need)
        except CallError:
            assert need.handle is None
        else:
            self.places.append((place, need))

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.places) - 1))
        place, need = self.places.pop(at)
        place.leave()
        place.leave()
        assert need.handle is None

    @precondition(lambda self: self.places)
    @rule(data=st.data(), prompt=st.integers(0, 70), more=st.integers(0, 20), computed=st.booleans())
    def allocate(self, data: st.DataObject, prompt: int, more: int, computed: bool) -> None:
        place, need = data.draw(st.sampled_from(self.places))
        if place.granted_at is None or need.handle is not None:
            return
        with suppress(CallError):
            need.allocate(max(prompt, 1) + more, range(prompt))
            need.computed = computed

    @precondition(lambda self: self.places)
    @rule(data=st.data(), tokens=st.integers(0, 40), shrink=st.booleans())
    def fit_or_follow(self, data: st.DataObject, tokens: int, shrink: bool) -> None:
        _, need = data.draw(st.sampled_from(self.places))
        need.fit(tokens) if shrink else need.follow(range(tokens))

    @rule(what=st.sampled_from(("", "", "before_allocate", "before_evict")))
    def forbid(self, what: str) -> None:
        self.veto = what

    @rule(tokens=st.integers(1, 64))
    def somebody_holds_some(self, tokens: int) -> None:

        with self.doors.cache.locked() as pool:
            try:
                self.foreign.append(pool.allocate(_params(self.doors.need(tokens))))
            except CallError:
                return

    @precondition(lambda self: self.foreign)
    @rule()
    def somebody_gives_back(self) -> None:
        with self.doors.cache.locked() as pool:
            pool.free(self.foreign.pop())

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.doors.clock.advance(seconds)

    @invariant()
    def the_books_are_right(self) -> None:
        state = self.doors.cache.state()
        running = [need for place, need in self.places if place.granted_at is not None]
        holding = [need for need in running if need.handle is not None]
        assert state.stats.handles == len(holding) + len(self.foreign)
        assert state.counted_blocks == sum(need.counted for need in running)
        assert all(not need.counted for need in holding)
        assert state.waiting <= 2
        with self.doors.cache.locked() as pool:
            pool.check()
        admitted = sum(door.running for door in (self.doors.chat, self.doors.predict))
        assert admitted == len(running)
        if state.waiting:
            assert running, "somebody waits, and nobody would wake them"

    def teardown(self) -> None:
        for place, _ in self.places:
            place.leave()
        state = self.doors.cache.state()
        assert (state.stats.handles, state.waiting, state.counted_blocks) == (len(self.foreign), 0, 0)


Lives.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestLives = Lives.TestCase
