"""The load over WebSocket: sockets with one or many calls, each asked for again as soon as it has ended.

The hot path counts bytes at C speed.  Every call is checked: it ends with `completed`, as the frame with the
right number, and as many items have come as the calls that ended have together.  The first calls of every
socket are read message by message as well.  One wrong answer ends the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from load import ITEM_MARK, Tally, WrongAnswer, arguments, check_stream, now, run_load, tell

ENDED = re.compile(rb'"status":"completed"[^\x81]*?"task_id":"c(\d+)r(\d+)","seq":(\d+)[,}]')
BEGUN = re.compile(rb'"task_id":"c(\d+)r\d+","seq":1}')
ERROR = b'"status":"error"'
HANDSHAKE = (
    "GET /v2/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TAIL = 512  # bytes that are looked at again with the next piece; no frame that is searched for is longer


@dataclass(frozen=True)
class Job:
    """What each socket asks for.

    Attributes:
        command: The command to call.
        items: How many items its stream has.
        calls: How many calls are under way on one socket.
    """

    command: str
    items: int
    calls: int

    def request(self, call: int, turn: int) -> bytes:
        """Return the message that opens a call; its mask is zero."""
        given = {"a": call, "b": 1} if self.command == "add" else {"prompt": "hello"}
        fields = {"type": "command", "command": self.command, "input": given, "is_stream": True}
        body = json.dumps({**fields, "task_id": f"c{call}r{turn}"}).encode()
        return bytes((0x81, 0xFE)) + len(body).to_bytes(2, "big") + bytes(4) + body


def messages(data: bytes) -> list[bytes]:
    """Return the messages that ``data`` begins with, a last one that is incomplete left out."""
    found, begin = [], 0
    while begin + 4 <= len(data):
        size, head = data[begin + 1], 2
        if size == 126:
            size, head = int.from_bytes(data[begin + 2 : begin + 4], "big"), 4
        if data[begin] != 0x81 or size == 127:
            raise WrongAnswer(f"not a text message: {data[begin : begin + 40]!r}")
        if begin + head + size > len(data):
            break
        found.append(data[begin + head : begin + head + size])
        begin += head + size
    return found


class Connection(asyncio.Protocol):
    """One socket.

    Args:
        job: What it asks for.
        number: Its number, from 0.
        tally: Where calls that ended are counted.
        failed: Called with what is wrong.
    """

    def __init__(self, job: Job, number: int, tally: Tally, failed: Callable[[Exception], None]) -> None:
        self._job = job
        self._calls = range(number * job.calls, (number + 1) * job.calls)  # no name is used twice at a time
        self._tally = tally
        self._failed = failed
        self._stopping = False
        self._running = 0
        self._open = False
        self._tail = b""
        self._items = 0  # that have come, and not been matched with an end
        self._sent_at: dict[int, float] = {}
        self._waiting: set[int] = set()  # calls whose first item has not come
        self._first: list[bytes] | None = []  # all that came until each call has ended once
        self._transport: Any = None
        self._begun = False
        self.answered = asyncio.get_running_loop().create_future()  # and the first calls read
        self.closed = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Ask, now and as soon as there are answers; of a socket that is not open yet, once it is."""
        self._begun = True
        if self._open:
            self._ask_all()

    def stop(self) -> None:
        """Close the socket behind the calls that are under way."""
        self._stopping = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(HANDSHAKE.encode())

    def connection_lost(self, error: Exception | None) -> None:
        if not self._stopping or self._running:
            self._failed(WrongAnswer(f"the server closed a socket: {error}"))
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            if self._open:
                self._count(data)
            else:
                self._open_with(data)
        except (WrongAnswer, ValueError, KeyError) as error:
            self._failed(error)

    def _open_with(self, data: bytes) -> None:
        self._tail += data
        if b"\r\n\r\n" in self._tail:
            if not self._tail.startswith(b"HTTP/1.1 101 ") or not self._tail.endswith(b"\r\n\r\n"):
                raise WrongAnswer(f"no WebSocket: {self._tail[:300]!r}")
            self._open, self._tail = True, b""
            if self._begun:
                self._ask_all()

    def _ask_all(self) -> None:
        for call in self._calls:
            self._ask(call, 0)

    def _ask(self, call: int, turn: int) -> None:
        self._running += 1
        self._sent_at[call] = now()
        self._waiting.add(call)
        self._transport.write(self._job.request(call, turn))

    def _count(self, data: bytes) -> None:
        self._tally.received += len(data)
        if self._first is not None:
            self._first.append(data)
        seam = len(self._tail)
        data = self._tail + data
        # What begins before the seam, and was whole, was counted with the piece before.
        came = data.count(ITEM_MARK, max(0, seam - len(ITEM_MARK) + 1))
        self._items += came
        self._tally.items += came
        if ERROR in data:
            raise WrongAnswer(f"an error: {data[data.index(ERROR) :][:300]!r}")
        if self._waiting:
            self._note_first_items(data)
        cut = 0
        for match in ENDED.finditer(data):
            cut = match.end()
            self._end(*map(int, match.groups()))
        self._tail = data[max(cut, len(data) - TAIL) :]

    def _note_first_items(self, data: bytes) -> None:
        for match in BEGUN.finditer(data):
            call = int(match[1])
            if call in self._waiting:
                self._waiting.discard(call)
                self._tally.first_item_s.append(now() - self._sent_at[call])

    def _end(self, call: int, turn: int, seq: int) -> None:
        if seq != self._job.items + 1:
            raise WrongAnswer(f"a stream ends with frame {seq}, not {self._job.items + 1}")
        self._items -= self._job.items
        if self._items < 0 or self._items > self._job.items * self._job.calls:
            raise WrongAnswer(f"{self._items} items more than the calls that ended have")
        self._running -= 1
        self._tally.requests += 1
        self._tally.total_s.append(now() - self._sent_at.pop(call))
        if self._first is not None and turn == 1:
            self._check_first()
        if not self._stopping:
            self._ask(call, turn + 1)
        elif not self._running:
            if self._items:
                raise WrongAnswer(f"{self._items} items of no call")
            self._transport.close()

    def _check_first(self) -> None:
        """Read all calls of the first turn, one of which has ended a second time."""
        streams: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for message in messages(b"".join(self._first or ())):
            frame = json.loads(message)
            streams[frame["task_id"]].append(frame)
        whole = [frames for frames in streams.values() if frames[-1]["status"] == "completed"]
        if not whole:
            raise WrongAnswer("no call of the first turn is whole")
        for frames in whole:
            check_stream(frames, self._job.items)
        self._first = None
        self.answered.set_result(None)


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Warm up, measure, and let every call end."""
    job, tally = Job(args.command, args.items, args.calls), Tally()
    return await run_load(
        lambda number, failed: Connection(job, number, tally, failed), tally, job.items, args
    )


if __name__ == "__main__":
    tell(measure, arguments(__doc__).parse_args())
