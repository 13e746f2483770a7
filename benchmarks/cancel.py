"""How long a cancel takes, from what causes it to who does the work.

Each time a client opens a stream, waits for its first item, and cancels it: by request (``api``), by a
message on the WebSocket that asked (``message``), by leaving (``rst``, ``fin``), or by having given it a
deadline that passes now.  Who feels it tells the time: the code of the command, a coroutine or a generator in
a thread, over UDP; or the upstream of its engine, which is in the load's process: an SGLang server by the
abort it receives, a server that speaks OpenAI's protocol by the end of its connection.  All read the same
monotonic clock of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import WrongAnswer, arguments
from load_ws import HANDSHAKE

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # has the servers that play upstreams

from engines.upstreams.openai import OpenAIServer
from engines.upstreams.server import Connection, Seen
from engines.upstreams.sglang import SGLangServer

TIMES_PER_S = 50
TOLD_S = 30.0
PRACTICE = 5
TIMEOUT_S = 0.1
LINGER_NOT = struct.pack("ii", 1, 0)
Moments = "queue.SimpleQueue[float]"


class SGLang(SGLangServer):
    """Tells when an abort comes."""

    def __init__(self, felt: Moments) -> None:
        super().__init__()
        self._felt = felt

    async def _abort(self, seen: Seen) -> None:
        self._felt.put(time.monotonic())
        await super()._abort(seen)


class OpenAI(OpenAIServer):
    """Tells when a connection ends on which it works."""

    def __init__(self, felt: Moments) -> None:
        super().__init__()
        self._felt = felt

    async def _stream(self, asked: Any, worker: Any, connection: Connection) -> None:
        connection.on_lost.append(lambda: self._felt.put(time.monotonic()))
        await super()._stream(asked, worker, connection)


class Upstream:
    """Runs a server in a thread of its own; it says one token and is silent.

    Args:
        kind: Which.
    """

    def __init__(self, kind: Callable[[Moments], SGLang | OpenAI]) -> None:
        self._kind = kind
        self.felt: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Upstream:
        self._thread.start()
        self.port = self._ready.get(timeout=TOLD_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = self._kind(self.felt)
        server.gate.hold(after=1)
        async with server.running():
            self._ready.put(server.port)
            await self._over.wait()

    def when(self) -> float:
        """Return when it was told to stop."""
        return self.felt.get(timeout=TOLD_S)


class Code:
    """The code of the command, which tells by itself."""

    port = 0

    def __init__(self, told: socket.socket) -> None:
        self._told = told

    def when(self) -> float:
        """Return when it felt its cancel."""
        return moment(self._told)


def moment(told: socket.socket) -> float:
    """Return a time that was told."""
    (when,) = struct.unpack("d", told.recv(8))
    return float(when)


class Caller:
    """Opens calls of a command, and cancels them in one way.

    Args:
        port: The server's.
        trigger: The way.
        command: What is called.
        told: Where it tells the time.
        below: Who tells of the end.
    """

    def __init__(
        self, port: int, trigger: str, command: str, told: socket.socket, below: Upstream | Code
    ) -> None:
        self._address = ("127.0.0.1", port)
        self._trigger = trigger
        self._command = command
        self._told = told
        self._below = below
        self._asking = socket.create_connection(self._address)

    def cancel_once(self, number: int, trigger: str = "") -> float:
        """Return the seconds from the trigger to its being felt."""
        trigger = trigger or self._trigger
        with socket.create_connection(self._address) as client:
            self._open(client, number, trigger)
            until(client, b'"streaming"')
            due = moment(self._told)
            began = due or time.monotonic()
            self._cancel(client, number, trigger)
            took = self._below.when() - began
            if trigger not in ("rst", "fin"):
                until(client, b'"cancelled"' if not due else b'"deadline_exceeded"')
        return took

    def close(self) -> None:
        """Close what calls are cancelled over."""
        self._asking.close()

    def _open(self, client: socket.socket, number: int, trigger: str) -> None:
        given = {"tell": self._told.getsockname()[1], "upstream": self._below.port}
        body: dict[str, Any] = {"command": self._command, "input": given, "is_stream": True}
        body["task_id"] = name(number)
        if trigger == "deadline":
            body["timeout"] = TIMEOUT_S
        if trigger == "message":
            client.sendall(HANDSHAKE.encode())
            until(client, b"\r\n\r\n")
            client.sendall(message(type="command", **body))
        else:
            client.sendall(post("/v2/execute", json.dumps(body).encode()))

    def _cancel(self, client: socket.socket, number: int, trigger: str) -> None:
        if trigger == "api":
            self._asking.sendall(post(f"/tasks/{name(number)}/cancel", b""))
            until(self._asking, b'"outcome":"cancelled"')
        elif trigger == "message":
            client.sendall(message(type="cancel", task_id=name(number)))
        elif trigger == "rst":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            client.close()
        elif trigger == "fin":
            client.close()


def name(number: int) -> str:
    """Return the task id of a call."""
    return f"cancelled-{os.getpid()}-{number}"


def post(path: str, body: bytes) -> bytes:
    """Return a request."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def message(**fields: Any) -> bytes:
    """Return a message as a WebSocket frame; its mask is zero."""
    text = json.dumps(fields).encode()
    return bytes((0x81, 0xFE)) + len(text).to_bytes(2, "big") + bytes(4) + text


def until(client: socket.socket, mark: bytes) -> None:
    """Read until there is ``mark``.

    Raises:
        WrongAnswer: The call has failed, or the server has closed.
    """
    client.settimeout(TOLD_S)
    seen = b""
    while mark not in seen:
        if b'"status":"error"' in seen or not (piece := client.recv(65536)):
            raise WrongAnswer(f"{mark!r} did not come behind {seen[-500:]!r}")
        seen += piece


def measure(port: int, command: str, times: int) -> dict[str, Any]:
    """Cancel ``times`` times."""
    trigger, _, where = command.partition(":")
    if trigger == "deadline":
        times = times // 4 + 1  # each takes as long as that
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as told:
        told.bind(("127.0.0.1", 0))
        told.settimeout(TOLD_S)
        if where in UPSTREAMS:
            with Upstream(UPSTREAMS[where]) as upstream:
                took = cancel(Caller(port, trigger, where, told, upstream), times)
        else:
            took = cancel(Caller(port, trigger, where, told, Code(told)), times)
    return {"command": command, "items": 0, "felt_ms": [round(one * 1000, 3) for one in took]}


UPSTREAMS: dict[str, Callable[[Moments], SGLang | OpenAI]] = {"sglang": SGLang, "openai": OpenAI}


def cancel(caller: Caller, times: int) -> list[float]:
    """Return how long each cancel took."""
    try:
        for number in range(PRACTICE):  # an engine connects, and makes what it makes once
            caller.cancel_once(number, "fin")
        return [caller.cancel_once(number) for number in range(PRACTICE, PRACTICE + times)]
    finally:
        caller.close()


def main(args: argparse.Namespace) -> None:
    """Print what was measured as JSON."""
    os.sched_setaffinity(0, {args.core})
    try:
        print(json.dumps(measure(args.port, args.command, max(1, round(args.seconds * TIMES_PER_S)))))
    except (WrongAnswer, OSError, queue.Empty) as error:
        sys.exit(f"load: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(arguments(__doc__).parse_args())
