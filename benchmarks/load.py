"""The load: connections that send one request after the other and check every answer.

The hot path counts bytes at C speed.  Every answer is checked: its HTTP status, the number of its items, and
a `completed` frame behind the last of them.  The first answer on each connection is read line by line as
well: every item's content, every number, the sum that was asked for.  One wrong answer ends the run.

The forms: `ndjson` and `sse` are penstock's frames, `cumulative` is NDJSON whose items hold all the text so
far, and `plain` is NDJSON of the items alone, without frames around them, as other servers send it.  `openai`
are the chunks of a chat completion.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvloop
from processes import cpu_seconds, family

ITEM_MARK = b'"status":"streaming"'
END_MARK = b'"status":"completed"'
PLAIN_MARK = b'"finished"'
LAST_CHUNK = b"\r\n0\r\n\r\n"
HEAD_END = b"\r\n\r\n"
TOKEN = "token "
EXPECTED_ITEM = {"text": TOKEN, "chunk": TOKEN, "finished": False}
CHUNK_MARK = b'"delta":{"content":"token "}'
DONE_MARK = b"data: [DONE]\n\n"
FORMS = ("ndjson", "sse", "cumulative", "plain", "openai")

ACCEPTED_S, ACCEPTED_EACH_S = 0.2, 0.001
PATIENCE_S = 60.0

now = time.perf_counter


class WrongAnswer(Exception):
    """A server did not answer what was asked."""


@dataclass(frozen=True)
class Job:
    """What each connection asks for, again and again.

    Attributes:
        command: The command to call.
        items: How many items its stream has; 0 for an answer that does not stream.
        form: One of ``FORMS``.
    """

    command: str
    items: int
    form: str = "ndjson"

    @property
    def mark(self) -> bytes:
        """What stands in every item once, and nowhere else."""
        return {"plain": PLAIN_MARK, "openai": CHUNK_MARK}.get(self.form, ITEM_MARK)

    def request(self, number: int) -> bytes:
        """Return the request of connection ``number``."""
        given: dict[str, Any] = {"prompt": "hello"} if self.items else {"a": number, "b": 1}
        if self.form == "plain":
            return post(f"/{self.command}", given)
        if self.form == "openai":
            said = [{"role": "user", "content": "hello"}]
            return post("/v1/chat/completions", {"model": self.command, "messages": said, "stream": True})
        asked = {"command": self.command, "input": given, "is_stream": self.items > 0}
        return post("/v2/execute", asked, "text/event-stream" if self.form == "sse" else "*/*")

    def check(self, answer: bytes) -> None:
        """Check an answer by counting."""
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise WrongAnswer(f"not a 200: {answer[:300]!r}")
        if answer.count(self.mark) != self.items:
            raise WrongAnswer(f"{answer.count(self.mark)} items, not {self.items}")
        if self.form == "plain":
            return
        if self.form == "openai":
            if answer.count(DONE_MARK) != 1:
                raise WrongAnswer(f"it does not end with [DONE]: {answer[-500:]!r}")
            return
        if answer.count(END_MARK) != 1 or answer.rfind(END_MARK) < answer.rfind(ITEM_MARK):
            raise WrongAnswer(f"it does not end with `completed`: {answer[-500:]!r}")

    def check_closely(self, answer: bytes, number: int) -> None:
        """Read an answer line by line."""
        body = body_of(answer)
        if self.form == "openai":
            check_chunks(body, self.items)
            return
        lines = events_of(body) if self.form == "sse" else body.splitlines()
        frames = [json.loads(line) for line in lines]
        if self.form == "plain":
            check_items(frames)
        elif self.items:
            check_stream(frames, self.items, cumulative=self.form == "cumulative")
        elif len(frames) != 1 or frames[0].get("data") != number + 1:
            raise WrongAnswer(f"{number} + 1 gave {frames!r}")


def post(path: str, body: object, accept: str = "*/*") -> bytes:
    """Return a request."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}accept: {accept}\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text


def check_items(items: list[dict[str, Any]], *, cumulative: bool = False) -> None:
    """Check what is in a stream."""
    for number, item in enumerate(items, 1):
        if item != ({**EXPECTED_ITEM, "text": TOKEN * number} if cumulative else EXPECTED_ITEM):
            raise WrongAnswer(f"item {number} is not what was asked for: {item!r}")


def check_chunks(body: bytes, items: int) -> None:
    """Check the chunks of one whole completion."""
    *chunks, done = [event.removeprefix(b"data: ") for event in body.split(b"\n\n")[:-1]]
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    if done != b"[DONE]" or "".join(each["delta"].get("content", "") for each in choices) != TOKEN * items:
        raise WrongAnswer(f"not the text that was asked for: {choices!r}"[:500])
    if [each["finish_reason"] for each in choices] != [None] * (items + 1) + ["stop"]:
        raise WrongAnswer("it does not end where it should")


def check_stream(frames: list[dict[str, Any]], items: int, *, cumulative: bool = False) -> None:
    """Check the frames of one whole stream."""
    if [frame["seq"] for frame in frames] != list(range(items + 2)):
        raise WrongAnswer("the frames are not numbered from 0 without a gap")
    if (frames[0]["status"], frames[-1]["status"]) != ("accepted", "completed"):
        raise WrongAnswer(f"a stream from {frames[0]['status']} to {frames[-1]['status']}")
    check_items([frame["data"] for frame in frames[1:-1]], cumulative=cumulative)
    if len({frame["task_id"] for frame in frames}) != 1:
        raise WrongAnswer("frames of several calls in one stream")


def events_of(body: bytes) -> list[bytes]:
    """Return the data of server-sent events, whose ids must be their numbers."""
    found = []
    for number, event in enumerate(body.split(b"\n\n")[:-1]):
        name, _, data = event.partition(b"\ndata: ")
        if name != b"id: %d" % number:
            raise WrongAnswer(f"not event {number}: {event[:200]!r}")
        found.append(data)
    return found


def body_of(answer: bytes) -> bytes:
    """Return the body of a complete HTTP response."""
    head, _, rest = answer.partition(HEAD_END)
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(parts)


@dataclass
class Tally:
    """What was finished since the last ``reset``."""

    requests: int = 0
    received: int = 0  # bytes of finished responses
    arrived: int = 0  # bytes, also of responses that are not finished
    items: int = 0  # the same, where items are counted as they come
    first_item_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)

    def all_items(self, per_answer: int) -> float:
        """How many items have come, those of unfinished answers included.

        Many streams that were begun together also end together: what ends within two seconds may be much
        less, or more, than what comes.
        """
        return self.items or self.arrived * self.requests * per_answer / self.received

    def reset(self) -> None:
        """Forget what was counted so far."""
        self.__init__()  # type: ignore[misc]


class Connection(asyncio.Protocol):
    """One keep-alive connection; it asks again as soon as it has its answer.

    Args:
        job: What it asks for.
        number: Its number, from 0.
        tally: Where finished answers are counted.
        failed: Called with what is wrong.
    """

    def __init__(self, job: Job, number: int, tally: Tally, failed: Callable[[Exception], None]) -> None:
        self._job = job
        self._number = number
        self._request = job.request(number)
        self._tally = tally
        self._failed = failed
        self._checked_closely = False
        self._stopping = False
        self._transport: Any = None
        self.answered = asyncio.get_running_loop().create_future()  # for the first time
        self.closed = asyncio.get_running_loop().create_future()
        self._reset()

    def _reset(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = 0  # size of the whole response, once it is known; 0: chunked
        self._head_seen = False
        self._first_item_at = 0.0
        self._sent_at = now()

    def stop(self) -> None:
        """Close the connection behind the answer it waits for."""
        self._stopping = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def begin(self) -> None:
        """Ask, now and as soon as there is an answer."""
        self._reset()
        self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._stopping:
            self._failed(WrongAnswer(f"the server closed connection {self._number}: {error}"))
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self._tally.arrived += len(data)
        if not self._head_seen:
            self._look_for_head()
        if not self._first_item_at:
            self._look_for_item()
        if self._is_whole(data):
            try:
                self._finish()
            except (WrongAnswer, ValueError, KeyError) as error:
                self._failed(error)

    def _look_for_head(self) -> None:
        answer = self._join()
        head, end, _ = answer.partition(HEAD_END)
        if end:
            self._head_seen = True
            _, found, rest = head.lower().partition(b"\r\ncontent-length:")
            if found:
                self._whole = len(head) + len(end) + int(rest.partition(b"\r\n")[0])

    def _look_for_item(self) -> None:
        if (self._job.mark if self._job.items else END_MARK) in self._join():
            self._first_item_at = now()

    def _is_whole(self, data: bytes) -> bool:
        if not self._head_seen:
            return False
        if self._whole:
            return self._size >= self._whole
        tail = data if len(data) >= len(LAST_CHUNK) else self._join()
        return tail.endswith(LAST_CHUNK)

    def _join(self) -> bytes:
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def _finish(self) -> None:
        ended = now()
        answer = self._join()
        self._job.check(answer)
        if not self._checked_closely:
            self._job.check_closely(answer, self._number)
            self._checked_closely = True
        tally = self._tally
        tally.requests += 1
        tally.received += len(answer)
        tally.first_item_s.append(self._first_item_at - self._sent_at)
        tally.total_s.append(ended - self._sent_at)
        if not self.answered.done():
            self.answered.set_result(None)
        if self._stopping:
            self._transport.close()
        else:
            self.begin()


class CpuMeter:
    """CPU seconds used by the server and by this process since the last ``reset``."""

    def __init__(self, server: int) -> None:
        self._root = server
        self.reset()

    def reset(self) -> None:
        """Start again from 0."""
        self._server, self._own = self._read(), time.process_time()

    def server(self) -> float:
        """CPU seconds of the server, all its processes together."""
        return sum(used - self._server.get(pid, 0.0) for pid, used in self._read().items())

    def own(self) -> float:
        """CPU seconds of this process."""
        return time.process_time() - self._own

    def _read(self) -> dict[int, float]:
        return cpu_seconds(family(self._root))


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the load over HTTP."""
    job, tally = Job(args.command, args.items, args.form), Tally()
    return await run_load(
        lambda number, failed: Connection(job, number, tally, failed), tally, job.items, args
    )


async def run_load(
    make: Callable[[int, Callable[[Exception], None]], Any],
    tally: Tally,
    items: int,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Warm up, measure, and let every answer finish.

    Args:
        make: Makes the protocol of a connection, from its number and what to call with what is wrong.
        tally: Where finished answers are counted.
        items: Items per answer.
        args: Of the command line.
    """
    loop = asyncio.get_running_loop()
    broken: asyncio.Future[None] = loop.create_future()

    def failed(error: Exception) -> None:
        if not broken.done():
            broken.set_exception(error)

    cpu = CpuMeter(args.server_pid)
    connections: list[Any] = []
    for number in range(args.connections):
        _, connection = await loop.create_connection(partial(make, number, failed), "127.0.0.1", args.port)
        connections.append(connection)
    # A busy server may accept no more than one connection at each turn of its loop: all are there before
    # the first request, so that this measures streams.
    await _pass(broken, ACCEPTED_S + len(connections) * ACCEPTED_EACH_S)
    for connection in connections:
        connection.begin()
    await _all("answered", connections, broken)
    await _pass(broken, args.warm_up)
    tally.reset()
    cpu.reset()
    began = now()
    await _pass(broken, args.seconds)
    result = {"command": args.command, "items": items, **summary(tally, items, cpu, now() - began)}
    for connection in connections:
        connection.stop()
    await _all("closed", connections, broken)
    return result


async def _all(what: str, connections: list[Any], broken: asyncio.Future[None]) -> None:
    """Wait until something has come to pass on every connection."""
    waited_for = [getattr(connection, what) for connection in connections]
    every = asyncio.gather(*waited_for)
    await asyncio.wait((every, broken), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    if broken.done():
        broken.result()
    if not every.done():
        left = sum(not one.done() for one in waited_for)
        every.cancel()
        raise WrongAnswer(f"after {PATIENCE_S:g} s {left} of {len(connections)} connections are not {what}")


async def _pass(broken: asyncio.Future[None], seconds: float) -> None:
    done, _ = await asyncio.wait((broken,), timeout=seconds)
    for failure in done:
        failure.result()


def summary(tally: Tally, items: int, cpu: CpuMeter, seconds: float) -> dict[str, Any]:
    """Return what was measured; times in milliseconds."""
    if not tally.requests:
        raise WrongAnswer(f"nothing was answered in {seconds:.1f} s")
    return {
        "seconds": round(seconds, 4),
        "requests": tally.requests,
        "requests_per_s": round(tally.requests / seconds, 1),
        "tokens_per_s": round(tally.all_items(items) / seconds),
        "bytes_per_request": round(tally.received / tally.requests, 1),
        "first_item_ms": percentiles(tally.first_item_s),
        "total_ms": percentiles(tally.total_s),
        "server_cpu": round(cpu.server() / seconds, 3),
        "load_cpu": round(cpu.own() / seconds, 3),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return what half and 99 of 100 do not exceed, and the largest, in milliseconds."""
    ordered = sorted(seconds)
    ranks = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    last = len(ordered) - 1
    return {name: round(ordered[round(rank * last)] * 1000, 3) for name, rank in ranks}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what every load is told."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--server-pid", type=int, default=0)
    parser.add_argument("--command", required=True)
    parser.add_argument("--form", choices=FORMS, default="ndjson")
    parser.add_argument("--items", type=int, default=0, help="items per stream; 0: not a stream")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    parser.add_argument("--core", type=int, required=True)
    return parser


def tell(measure: Callable[[argparse.Namespace], Coroutine[Any, Any, Any]], args: argparse.Namespace) -> None:
    """Run one measurement on its core and print it as JSON, or exit with what was wrong."""
    os.sched_setaffinity(0, {args.core})
    try:
        print(json.dumps(uvloop.run(measure(args))))
    except (WrongAnswer, OSError, ValueError, KeyError, EOFError, asyncio.TimeoutError) as error:
        sys.exit(f"load: {type(error).__name__}: {error}")


if __name__ == "__main__":
    tell(measure, arguments(__doc__).parse_args())
