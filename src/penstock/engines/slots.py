"""The threads an engine's blocking calls run in: one per slot, and a queue before them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol


class Job(Protocol):
    """Work for one slot; ``run`` must not raise."""

    def run(self) -> None:
        """Do the work, and return when it has really stopped."""
        ...


class SlotThreads:
    """Runs jobs in the order they came, ``count`` at the same time.

    The threads are daemons, because the interpreter joins others before it lets exit handlers cancel what
    they do; whoever owns this must call ``close``.
    """

    def __init__(self, count: int, name: str) -> None:
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> bool:
        """Run the job as soon as a slot is free; ``False`` when closed."""
        with self._change:
            if not self._closed:
                self._waiting.append(job)
                self._change.notify()
            return not self._closed

    def withdraw(self, job: Job) -> bool:
        """Take back a job that has not begun; ``False`` when it has."""
        with self._change:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def close(self, timeout_s: float) -> bool:
        """Take no more jobs and wait for those that run; ``False`` when one still runs after the time."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        # Its own frame, so that an idle thread keeps no job alive.
        job = self._next()
        if job is not None:
            job.run()
        return job is not None

    def _next(self) -> Job | None:
        with self._change:
            while not self._waiting and not self._closed:
                self._change.wait()
            return self._waiting.popleft() if self._waiting else None
