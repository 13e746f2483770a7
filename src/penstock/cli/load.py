"""Calls of one command, so many at once, each with a watch on it."""

from __future__ import annotations

import asyncio
import signal
from array import array
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple

from penstock.calls.tasks import TaskOwner
from penstock.client import AsyncClient
from penstock.errors import CallCancelled, CallError, PenstockError, StreamTruncated


class Plan(NamedTuple):
    """What is asked of a server.

    Attributes:
        command: Its name.
        inputs: Its input, the same each time.
        concurrency: Calls at once.
        requests: How many in all; None is as many as begin in ``seconds``.
        seconds: How long calls are begun; None is until there were ``requests``.
    """

    command: str
    inputs: Mapping[str, Any]
    concurrency: int
    requests: int | None
    seconds: float | None


class Measured:
    """What came of it; times are of calls that completed, in seconds.

    Attributes:
        plan: What was asked.
        elapsed_s: From the first call to the end of the last.
        items: Of all calls.
        first: From the request to the first item.
        gaps: From one item to the next, as they were read.
        totals: From the request to the end of the answer.
        errors: Calls that did not complete, by their code.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.elapsed_s = 0.0
        self.items = 0
        self.first = array("d")
        self.gaps = array("d")
        self.totals = array("d")
        self.errors: Counter[str] = Counter()


class Load:
    """Makes the calls of a plan.

    Args:
        client: Makes them; it is closed at the end.
        plan: What is asked.

    Attributes:
        measured: What has come of it so far.
        interrupted: Whether Ctrl-C ended it.
    """

    def __init__(self, client: AsyncClient, plan: Plan) -> None:
        self._client = client
        self._plan = plan
        self._begun = 0
        self._tasks = TaskOwner()
        self.measured = Measured(plan)
        self.interrupted = False

    async def run(self) -> None:
        """Make the calls; Ctrl-C ends that.

        Raises:
            PenstockError: The server cannot be asked for its commands.
        """
        async with self._client:
            await self._client.commands()  # and a connection is there
            began = perf_counter()
            workers = [self._tasks.start(self._work(began), awaited=True) for _ in range(self._callers())]
            with suppress(NotImplementedError):  # Windows: Ctrl-C ends the process there
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt, workers)
            try:
                ended = await asyncio.gather(*workers, return_exceptions=True)
            finally:
                await self._tasks.aclose()
            self.measured.elapsed_s = perf_counter() - began
        for fault in ended:
            if isinstance(fault, Exception):
                raise fault

    def _callers(self) -> int:
        return min(self._plan.concurrency, self._plan.requests or self._plan.concurrency)

    def _interrupt(self, workers: list[asyncio.Task[None]]) -> None:
        self.interrupted = True
        for worker in workers:
            worker.cancel()

    async def _work(self, began: float) -> None:
        plan = self._plan
        while (plan.requests is None or self._begun < plan.requests) and (
            plan.seconds is None or perf_counter() - began < plan.seconds
        ):
            self._begun += 1
            try:
                await self._call()
            except PenstockError as error:
                self.measured.errors[_code(error)] += 1

    async def _call(self) -> None:
        """Make one call; what it took counts if it completes."""
        times = array("d", (perf_counter(),))
        # A load that is interrupted leaves nothing behind, whatever the command's settings say.
        async with self._client.stream(
            self._plan.command, self._plan.inputs, on_disconnect="cancel"
        ) as items:
            async for _ in items:
                times.append(perf_counter())
        ended, measured = perf_counter(), self.measured
        measured.items += len(times) - 1
        measured.totals.append(ended - times[0])
        measured.first.extend(time - times[0] for time in times[1:2])
        measured.gaps.extend(after - before for before, after in pairwise(times[1:]))


def _code(error: PenstockError) -> str:
    if isinstance(error, CallError):
        return error.code.value
    if isinstance(error, CallCancelled):
        return "cancelled"
    return "truncated" if isinstance(error, StreamTruncated) else "protocol"
