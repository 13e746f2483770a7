"""How long it takes from a client's close to the author's code.

Each time a client opens a stream, waits for its first item, sends other requests behind it (which nobody
answers before the stream has ended), and closes.  The command's `finally` tells the time over UDP; both
processes read the machine's one monotonic clock.  The server has core 0, the clients core 1.

- ``silent``: the model says nothing, so that no write can fail.
- ``flood``: it says more than the client reads; the write buffer is full when the client closes.
- ``busy``: as ``silent``, while 32 other streams take all that the server can give.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from load import arguments

TIMES_PER_S = 50
TOLD_S = 30.0
BUSY_STREAMS = 32
FULL_S = 0.05  # in which a client that does not read is written to until nothing more goes


def request(command: str, tell: int) -> bytes:
    """Return a request to stream."""
    body = json.dumps({"command": command, "input": {"tell": tell}, "is_stream": True}).encode()
    head = "POST /v2/execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def leave_once(port: int, told: socket.socket, command: str, ahead: int) -> float:
    """Open a stream and leave; return the seconds until its code felt it."""
    tell = told.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(request(command, tell))
        seen = b""
        while b'"streaming"' not in seen:
            seen += client.recv(65536)
        client.sendall(request("silent", tell) * ahead)
        if command == "flood":
            time.sleep(FULL_S)
        left = time.monotonic()
    (felt,) = struct.unpack("d", told.recv(8))
    return felt - left


@contextmanager
def busy(port: int) -> Iterator[None]:
    """Read other streams meanwhile, as fast as they come."""
    over = threading.Event()

    def read() -> None:
        clients = []
        for _ in range(BUSY_STREAMS):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(request("flood", 9))  # the discard port: nobody needs to know
            clients.append(client)
        while not over.is_set():
            for client in clients:
                client.recv(1 << 20)
        for client in clients:
            client.close()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()


def measure(port: int, command: str, ahead: int, times: int) -> dict[str, Any]:
    """Leave ``times`` times."""
    around = busy(port) if command == "busy" else nullcontext()
    with around, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as told:
        told.bind(("127.0.0.1", 0))
        told.settimeout(TOLD_S)
        name = "flood" if command == "flood" else "silent"
        took = [leave_once(port, told, name, ahead) for _ in range(times)]
    return {"command": command, "items": 0, "felt_ms": [round(one * 1000, 3) for one in took]}


def main(args: argparse.Namespace) -> None:
    """Print what was measured as JSON."""
    os.sched_setaffinity(0, {args.core})
    times = max(1, round(args.seconds * TIMES_PER_S))
    print(json.dumps(measure(args.port, args.command, args.connections, times)))


if __name__ == "__main__":
    main(arguments(__doc__).parse_args())
