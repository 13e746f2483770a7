"""Threads of an engine: never more at once than slots, in order, and none left behind."""

from __future__ import annotations

import threading

from penstock.engines.slots import SlotThreads


class Held:
    """A job that runs until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        self.began.set()
        self.go.wait(5)
        self.ended.set()


def test_one_waits_when_all_slots_are_taken() -> None:
    slots, jobs = SlotThreads(2, "test"), [Held(), Held(), Held()]
    for job in jobs:
        assert slots.submit(job)
    assert jobs[0].began.wait(5)
    assert jobs[1].began.wait(5)
    assert not jobs[2].began.is_set()
    jobs[0].go.set()
    assert jobs[2].began.wait(5)
    jobs[1].go.set()
    jobs[2].go.set()
    assert slots.close(5)
    assert all(job.ended.is_set() for job in jobs)


def test_a_waiting_job_can_be_withdrawn_and_a_running_one_cannot() -> None:
    slots, first, second = SlotThreads(1, "test"), Held(), Held()
    slots.submit(first)
    slots.submit(second)
    assert first.began.wait(5)
    assert slots.withdraw(second)
    assert not slots.withdraw(second)
    assert not slots.withdraw(first)
    first.go.set()
    assert slots.close(5)
    assert not second.began.is_set()


def test_closed_it_takes_nothing_and_leaves_no_thread() -> None:
    before = threading.active_count()
    slots = SlotThreads(3, "test")
    assert threading.active_count() == before + 3
    assert slots.close(5)
    assert threading.active_count() == before
    assert not slots.submit(Held())


def test_closing_says_when_a_job_runs_on() -> None:
    slots, job = SlotThreads(1, "test"), Held()
    slots.submit(job)
    assert job.began.wait(5)
    assert not slots.close(0.01)
    job.go.set()
    assert slots.close(5)
