"""Live sources made by the tests: what is written is a film, and the test decides when."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from annotate import films

H264 = {"preset": "ultrafast", "tune": "zerolatency", "g": "20", "crf": "18"}
PATIENCE_S = 50
TS = 188  # bytes of a packet
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=film\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"


def film(path: Path, frames: int) -> Path:
    """Write a film as it is streamed."""
    return films.write(path, frames, form="mpegts", options=H264)


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[threading.Event]:
    """Do something in a thread; the event says that it is done.  A reader that goes away ends it."""
    done = threading.Event()

    def run() -> None:
        try:
            work()
        except (BrokenPipeError, ConnectionError):
            pass
        finally:
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def fill(pipe: Path, data: bytes) -> None:
    """Write to a named pipe, and close it."""
    with pipe.open("wb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def write_paced(file: Any, frames: int, first: int, step: int, may: Callable[[], bool]) -> None:
    """Encode a film into a stream: the first frames at once, then so many more whenever they may be."""
    with av.open(file, "w", format="mpegts", container_options={"flush_packets": "1"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = films.WIDTH, films.HEIGHT, "yuv420p"
        stream.options = {"threads": "1", **H264}
        for number in range(frames):
            if number >= first and (number - first) % step == 0 and not may():
                return
            frame = av.VideoFrame.from_ndarray(films.pixels(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    """Give a socket that takes connections, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener, listener.getsockname()[1]


def reset(connection: socket.socket) -> None:
    """Close a connection as a machine does that has lost it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Rtsp:
    """Answers one who asks for a stream by RTSP, and sends it between the answers (RFC 2326, 10.12).

    Args:
        listener: Where it is asked.
        data: MPEG-TS.
        may: Called before each part of it, with how much was sent; False ends the stream.
    """

    def __init__(self, listener: socket.socket, data: bytes, may: Callable[[int], bool]) -> None:
        self._listener = listener
        self._data = data
        self._may = may
        self.asked: list[str] = []

    def serve(self) -> None:
        """Serve one connection, until it is closed."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE_S)
        with connection, connection.makefile("rb") as file:
            while (method := self._answer(connection, file)) not in ("", "PLAY"):
                pass
            if method == "PLAY":
                self._stream(connection)

    def _answer(self, connection: socket.socket, file: Any) -> str:
        head = [line.decode().strip() for line in iter(file.readline, b"\r\n") if line]
        if not head:
            return ""
        method, address, _ = head[0].split(" ")
        self.asked.append(f"{method} {address}")
        number = next(line.split(":")[1].strip() for line in head if line.lower().startswith("cseq"))
        extra, body = "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = SDP
            extra = f"Content-Type: application/sdp\r\nContent-Base: {address}/\r\n"
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "PLAY":
            extra = "Session: 1\r\n"
        connection.sendall(
            f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        return method

    def _stream(self, connection: socket.socket) -> None:
        size = 7 * TS
        for number, at in enumerate(range(0, len(self._data), size)):
            if not self._may(at):
                break
            part = (
                struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, number * 3000, 1)
                + self._data[at : at + size]
            )
            connection.sendall(struct.pack(">cBH", b"$", 0, len(part)) + part)
