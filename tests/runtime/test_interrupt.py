"""The exception that a cancel throws into a thread: once, in the code it is meant for, and nowhere else."""

from __future__ import annotations

import queue
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.runtime.interrupt import CallInterrupted, Interrupt, interruptible, raised_here, shield

WAIT_S = 10.0
RACES = 3000


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Let threads meet at as many different steps as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def work(turns: int) -> None:
    for _ in range(turns):
        pass


def throw_late(
    throw: Callable[[int, int | None], int], turns: int, thread: int, exception: int | None
) -> int:
    """Throw some steps after it was decided: that much of the thread's own steps it may meet."""
    if exception is not None:
        work(turns)
    return throw(thread, exception)


Make = Callable[[int, threading.Event], Callable[[Interrupt], object]]


class Race:
    """One thread runs calls, this one interrupts each of them around its end.

    A call that was interrupted makes the next ones shorter, one that ended by itself makes them longer.
    """

    def __init__(self) -> None:
        self._turns = 500
        self.outcomes: Counter[str] = Counter()
        self.strays: list[BaseException] = []
        self._calls: queue.SimpleQueue[tuple[Interrupt, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self, make: Make) -> None:
        """Race ``RACES`` calls; ``make`` is told how long a call takes, and what it sets when it begins."""
        thread = threading.Thread(target=self._serve)
        thread.start()
        chance = random.Random(4)
        for _ in range(RACES):
            interrupt, ready = Interrupt(), threading.Event()
            interrupt._throw = partial(throw_late, interrupt._throw, chance.choice((0, 0, 100)))
            call = make(self._turns + chance.randrange(100), ready)
            self._calls.put((interrupt, lambda call=call, interrupt=interrupt: call(interrupt)))
            assert ready.wait(WAIT_S)
            interrupt.request()
            self._over.get(timeout=WAIT_S)
        self._calls.put(None)
        thread.join(WAIT_S)
        assert not thread.is_alive()

    def _serve(self) -> None:
        while (job := self._calls.get()) is not None:
            interrupt, call = job
            try:
                self._one(call)
                work(50)  # the pool's own code
                assert not interrupt._inside
                assert interrupt._shields == 0
            except BaseException as stray:  # noqa: BLE001 - what this test is about
                self.strays.append(stray)
            self._over.put(None)

    def _one(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except CallInterrupted:
            self.outcomes["interrupted"] += 1
            self._turns = self._turns * 9 // 10
        else:
            self.outcomes["ended"] += 1
            self._turns += 20 + self._turns // 10


def check(race: Race) -> None:
    assert race.strays == []
    assert sum(race.outcomes.values()) == RACES
    assert min(race.outcomes["interrupted"], race.outcomes["ended"]) > RACES // 100, race.outcomes


# -- races ---------------------------------------------------------------------------------------------


def test_a_call_that_ends_takes_its_interrupt_with_it() -> None:
    def make(turns: int, ready: threading.Event) -> Callable[[Interrupt], object]:
        def call() -> None:
            ready.set()
            work(turns)

        return lambda interrupt: interrupt.run(call)

    race = Race()
    race.run(make)
    check(race)


def test_swallowed_it_does_not_come_again() -> None:
    swallowed: Counter[int] = Counter()

    def make(turns: int, ready: threading.Event) -> Callable[[Interrupt], object]:
        number = len(swallowed)
        swallowed[number] = 0

        def call() -> None:
            try:
                ready.set()
                work(turns)
            except CallInterrupted:
                swallowed[number] += 1
                with shield():
                    work(20)
                work(200)
                raise

        return lambda interrupt: interrupt.run(call)

    race = Race()
    race.run(make)
    assert race.strays == []
    assert Counter(swallowed.values())[1] > RACES // 100
    assert max(swallowed.values()) == 1


def test_no_shield_is_ever_cut() -> None:
    cut: list[int] = []

    def make(turns: int, ready: threading.Event) -> Callable[[Interrupt], object]:
        def call() -> None:
            ready.set()
            for _ in range(4):
                work(turns // 8)
                with shield():
                    try:
                        work(turns // 8)
                        with shield():
                            work(5)
                        work(5)
                    except CallInterrupted:
                        cut.append(turns)

        return lambda interrupt: interrupt.run(call)

    race = Race()
    race.run(make)
    check(race)
    assert cut == []


def test_a_generator_is_cut_in_its_own_code_only() -> None:
    closed: Counter[str] = Counter()

    def make(turns: int, ready: threading.Event) -> Callable[[Interrupt], object]:
        def items() -> Iterator[int]:
            try:
                ready.set()
                for i in range(4):
                    work(turns // 8)
                    yield i
            except GeneratorExit:
                closed["at its yield"] += 1
                work(50)  # not disturbed
                raise
            except CallInterrupted:
                closed["in its code"] += 1
                raise

        def drain(interrupt: Interrupt) -> None:
            for _ in interrupt.items(items):
                work(turns // 8)  # the pool's own code: what is raised here would come out of it

        return drain

    race = Race()
    race.run(make)
    check(race)
    assert closed["at its yield"] > 0 < closed["in its code"]


# -- one by one ----------------------------------------------------------------------------------------


def in_thread(function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns or raises in a thread of its own."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(function())
        except BaseException as error:  # noqa: BLE001 - told to the test
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(WAIT_S)
    (end,) = ended
    return end


def test_what_was_cancelled_before_it_began_does_not_begin() -> None:
    interrupt, ran = Interrupt(), []
    interrupt.request()
    assert isinstance(in_thread(lambda: interrupt.run(lambda: ran.append(1))), CallInterrupted)
    items = interrupt.items(lambda: (ran.append(1) for _ in range(1)))
    assert isinstance(in_thread(lambda: list(items)), CallInterrupted)
    assert ran == []


def test_code_that_computes_is_interrupted_and_cleans_up() -> None:
    interrupt, log = Interrupt(), []
    computing = threading.Event()

    def compute() -> None:
        try:
            computing.set()
            while True:
                pass
        finally:
            work(1000)
            log.append("cleaned up")

    def request() -> None:
        computing.wait(WAIT_S)
        interrupt.request()
        interrupt.request()  # no second time for that

    requester = threading.Thread(target=request)
    requester.start()
    assert isinstance(in_thread(lambda: interrupt.run(compute)), CallInterrupted)
    requester.join(WAIT_S)
    assert log == ["cleaned up"]


def test_except_exception_lets_it_pass() -> None:
    assert not issubclass(CallInterrupted, Exception)


def test_a_shield_holds_it_back_and_raises_it_at_its_outermost_end() -> None:
    interrupt, log = Interrupt(), []

    def call() -> None:
        with shield():
            with shield():
                interrupt.request()
                work(1000)
                log.append("inner")
            work(1000)
            log.append("outer")
        log.append("behind")

    assert isinstance(in_thread(lambda: interrupt.run(call)), CallInterrupted)
    assert log == ["inner", "outer"]


def test_an_error_in_a_shield_gives_way_but_is_not_lost() -> None:
    interrupt = Interrupt()

    def call() -> None:
        with shield():
            interrupt.request()
            raise KeyError("inside")

    end = in_thread(lambda: interrupt.run(call))
    assert isinstance(end, CallInterrupted)
    assert isinstance(end.__context__, KeyError)


def test_raised_by_other_means_it_is_not_thrown_too() -> None:
    interrupt, log = Interrupt(), []

    def call() -> None:
        try:
            with shield():
                interrupt.request()
                raised_here()
            log.append("not raised again")
            raised_here()
            raise CallInterrupted
        finally:
            work(1000)
            log.append("cleaned up")

    assert isinstance(in_thread(lambda: interrupt.run(call)), CallInterrupted)
    assert log == ["not raised again", "cleaned up"]


def test_a_generator_may_yield_in_a_shield() -> None:
    interrupt, log = Interrupt(), []

    def items() -> Iterator[int]:
        with shield():
            yield 1
            yield 2
        log.append("behind")
        yield 3

    assert in_thread(lambda: list(interrupt.items(items))) == [1, 2, 3]
    assert log == ["behind"]

    def until_two() -> None:
        for item in Interrupt.items(other, items):
            if item == 2:
                other.request()

    other = Interrupt()
    assert isinstance(in_thread(until_two), CallInterrupted)
    assert log == ["behind"]  # it was closed at its yield, and nothing was raised in its place


def test_what_was_thrown_and_has_not_arrived_is_withdrawn() -> None:
    interrupt, thrown = Interrupt(), []
    interrupt._throw = lambda thread, exception: thrown.append((thread, exception)) or 1

    def call() -> int:
        interrupt.request()
        thread = threading.get_ident()
        assert thrown == [(thread, id(CallInterrupted))]
        with shield():
            assert thrown[1:] == [(thread, None)]
        assert len(thrown) == 2
        return thread

    thread = in_thread(lambda: interrupt.run(call))
    assert thrown[2:] == [(thread, None)]


def test_a_call_that_ends_while_it_is_being_interrupted_waits_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupt = Interrupt()
    throw, decided, waits = interrupt._throw, threading.Event(), threading.Event()

    def throw_when_waited_for(thread: int, exception: int | None) -> int:
        if exception is not None:
            decided.set()
            assert waits.wait(WAIT_S)
        return throw(thread, exception)

    interrupt._throw = throw_when_waited_for
    monkeypatch.setattr("penstock.runtime.interrupt.time", SimpleNamespace(sleep=lambda _: waits.set()))
    requester = threading.Thread(target=interrupt.request)

    def call() -> None:
        requester.start()
        decided.wait(WAIT_S)

    assert isinstance(in_thread(lambda: interrupt.run(call)), CallInterrupted)
    requester.join(WAIT_S)


def test_elsewhere_a_shield_changes_nothing() -> None:
    interrupt, seen = Interrupt(), []

    def nested() -> None:
        with shield():
            seen.append(interrupt._shields)

    def call() -> None:
        in_thread(nested)
        with shield():
            seen.append(interrupt._shields)

    in_thread(lambda: interrupt.run(call))
    in_thread(nested)
    raised_here()
    assert seen == [0, 1, 0]


def test_the_cut_of_a_call_interrupts_it() -> None:
    cuts: list[Callable[[object], None]] = []
    call = interruptible(lambda: cuts[0](None) or work(1000), cuts.append, streaming=False)
    assert isinstance(in_thread(call), CallInterrupted)
    items = interruptible(lambda: (cuts[1](None) or i for i in range(3)), cuts.append, streaming=True)
    assert isinstance(in_thread(lambda: list(items())), CallInterrupted)
