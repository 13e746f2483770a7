"""The load of paced streams: many that are begun one after the other, each with a token every 20 ms.

What counts is the gap between one arrival on a connection and the next, while all streams run.  Items that
come together are one arrival, so that a server that saves them up is not rewarded with gaps of nothing.
Every stream is checked to its end: each has all its items, and `completed` behind them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from array import array
from functools import partial
from typing import Any

from load import (
    ACCEPTED_EACH_S,
    ACCEPTED_S,
    END_MARK,
    HEAD_END,
    ITEM_MARK,
    LAST_CHUNK,
    CpuMeter,
    WrongAnswer,
    arguments,
    body_of,
    check_stream,
    now,
    percentiles,
    post,
    tell,
)

PER_S = 50  # tokens, on each stream
BEGUN_PER_S = 1000  # streams
SETTLE_S = 1.0
LAG_S = 0.01  # how often the load looks whether it is late itself
LATE_S = 100.0  # a stream that has not ended this long after its time never will


class Clockwork:
    """Whether it is time to count, and what was counted."""

    def __init__(self) -> None:
        self.counting = False
        self.gaps = array("d")
        self.items = 0
        self.lags = array("d")


class Connection(asyncio.Protocol):
    """One stream, from its request to its end."""

    def __init__(self, request: bytes, clockwork: Clockwork) -> None:
        self._request = request
        self._clockwork = clockwork
        self._last = 0.0
        self._parts: list[bytes] = []
        self._transport: Any = None
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def begin(self) -> None:
        """Ask for the stream."""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        at, clockwork = now(), self._clockwork
        self._parts.append(data)
        items = data.count(ITEM_MARK)
        if clockwork.counting and items:
            if self._last:
                clockwork.gaps.append(at - self._last)
            clockwork.items += items
        if items:
            self._last = at
        if data.endswith(LAST_CHUNK) or data == LAST_CHUNK[2:]:
            self.answer.set_result(b"".join(self._parts))
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(WrongAnswer(f"the server closed a stream: {error}"))


def check(answer: bytes, items: int, *, closely: bool) -> None:
    """Check one whole stream."""
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise WrongAnswer(f"not a 200: {answer.partition(HEAD_END)[2][:300]!r}")
    if answer.count(ITEM_MARK) != items or answer.count(END_MARK) != 1:
        raise WrongAnswer(f"{answer.count(ITEM_MARK)} items of {items}, or no `completed`")
    if closely:
        check_stream([json.loads(line) for line in body_of(answer).splitlines()], items)


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Begin the streams, count while all of them run, and see all of them end."""
    loop = asyncio.get_running_loop()
    ramp = args.connections / BEGUN_PER_S
    items = round(PER_S * (ramp + SETTLE_S + args.seconds))
    asked = {"command": args.command, "input": {"tokens": items}, "is_stream": True}
    clockwork, request = Clockwork(), post("/v2/execute", asked)
    make, connections = partial(Connection, request, clockwork), []
    for _ in range(args.connections):
        connections.append((await loop.create_connection(make, "127.0.0.1", args.port))[1])
    await asyncio.sleep(ACCEPTED_S + len(connections) * ACCEPTED_EACH_S)
    began = loop.time()
    for number, connection in enumerate(connections):
        await asyncio.sleep(max(0.0, began + number / BEGUN_PER_S - loop.time()))
        connection.begin()
    await asyncio.sleep(SETTLE_S)
    result = await _count(clockwork, CpuMeter(args.server_pid), args.seconds)
    answers = asyncio.gather(*(connection.answer for connection in connections))
    for number, answer in enumerate(await asyncio.wait_for(answers, LATE_S)):
        check(answer, items, closely=number % 100 == 0)
    return {"command": args.command, "items": items, **result}


async def _count(clockwork: Clockwork, cpu: CpuMeter, seconds: float) -> dict[str, Any]:
    clockwork.counting, began = True, now()
    while now() - began < seconds:
        due = now() + LAG_S
        await asyncio.sleep(LAG_S)
        clockwork.lags.append(max(0.0, now() - due))
    clockwork.counting, took = False, now() - began
    if not clockwork.gaps:
        raise WrongAnswer("nothing came")
    return {
        "seconds": round(took, 4),
        "paced_tokens_per_s": round(clockwork.items / took),
        "gap_ms": percentiles(clockwork.gaps),
        "load_lag_ms": percentiles(clockwork.lags),
        "server_cpu": round(cpu.server() / took, 3),
        "load_cpu": round(cpu.own() / took, 3),
    }


if __name__ == "__main__":
    tell(measure, arguments(__doc__).parse_args())
