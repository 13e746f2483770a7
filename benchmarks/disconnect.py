"""How long it takes from a client's close to the author's code: `python benchmarks/disconnect.py`.

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
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

APP = Path(__file__).parent / "apps" / "leaving.py"
SERVER_CORE, LOAD_CORE = 0, 1
AHEAD = (0, 1, 50, 500)
BUSY_STREAMS = 32
FULL_S = 0.05  # in which a client that does not read is written to until nothing more goes


@contextmanager
def running() -> Iterator[int]:
    """Run the server until the block is left; give its port."""
    command = [sys.executable, str(APP), "--core", str(SERVER_CORE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["port"]
        finally:
            process.terminate()


def request(command: str, tell: int) -> bytes:
    """Return a request to stream."""
    body = json.dumps({"command": command, "input": {"tell": tell}, "is_stream": True}).encode()
    head = "POST /v2/execute HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
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


def measure(port: int, command: str, ahead: int, times: int) -> str:
    """Return one line of the report."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as told:
        told.bind(("127.0.0.1", 0))
        told.settimeout(30)
        took = sorted(leave_once(port, told, command, ahead) for _ in range(times))
    p50, p99 = took[times // 2], took[int(times * 0.99)]
    return f"{ahead:>6} | {p50 * 1000:8.2f} | {p99 * 1000:8.2f} | {took[-1] * 1000:8.2f}"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=300)
    times = parser.parse_args().times
    os.sched_setaffinity(0, {LOAD_CORE})
    with running() as port:
        for name in ("silent", "flood"):
            print(f"{name}\n ahead |   p50 ms |   p99 ms |   max ms")
            for ahead in AHEAD:
                print(measure(port, name, ahead, times), flush=True)
        with busy(port):
            print(f"busy\n{measure(port, 'silent', 0, times)}")


if __name__ == "__main__":
    main()
