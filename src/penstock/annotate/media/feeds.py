"""Live sources, on this side: which they are, what of an address is allowed, and how they are opened."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

from penstock.annotate.errors import MediaError
from penstock.annotate.media.messages import Feed
from penstock.annotate.media.sources import STDIN, Media

CONNECT_S = 10.0
BACKLOG = 8  # frames

_RTSP = ("rtsp", "rtsps")
_CAMERA = re.compile(r"/dev/video\d+")
# Of an address: what an authority and a path are written with, and nothing that FFmpeg would take for more.
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")


def is_live(spec: str) -> bool:
    """Whether a source can be nothing but live: a camera, or an address that streams."""
    return _CAMERA.fullmatch(spec) is not None or urlsplit_of(spec).scheme in (*_RTSP, "tcp")


@contextmanager
def opened_live(spec: str, backlog: int = BACKLOG, stdin: BinaryIO | None = None) -> Iterator[Media]:
    """Open a live source; what is opened here is closed at the end.

    Args:
        spec: ``rtsp://`` and ``rtsps://`` addresses; ``tcp://HOST:PORT``, where a stream such as MPEG-TS
            comes from; ``/dev/video0`` and the like; a named pipe; a file that is being written; ``-``, which
            is ``stdin``.
        backlog: How many frames may wait to be looked at.
        stdin: Standard input.

    Raises:
        MediaError: It cannot be opened, or is none of these.
    """
    if backlog < 1:
        raise ValueError(f"backlog is {backlog}; it must be at least 1")
    name, identity, feed = _opened(spec, backlog, stdin)
    try:
        digest = f"live:{hashlib.sha256(identity.encode()).hexdigest()}"
        yield Media(name=name, path=Path(), kind="video", digest=digest, bytes=0, live=feed)
    finally:
        if feed.file >= 0:
            os.close(feed.file)


def urlsplit_of(spec: str) -> SplitResult:
    """Split an address; of what is none, nothing is in it."""
    try:
        return urlsplit(spec)
    except ValueError:
        return SplitResult("", "", spec, "", "")


def _opened(spec: str, backlog: int, stdin: BinaryIO | None) -> tuple[str, str, Feed]:
    """Return what it is called, what it is known by, and how it is read."""
    if spec == STDIN:
        return "stdin", STDIN, Feed(file=_of_stdin(stdin), backlog=backlog)
    if "://" in spec:
        return _of_address(spec, backlog)
    path = os.path.abspath(spec)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) and _CAMERA.fullmatch(path):
            return Path(path).name, path, Feed(address=path, form="v4l2", backlog=backlog)
        if stat.S_ISFIFO(mode) or stat.S_ISREG(mode):
            feed = Feed(file=_of_path(path), grows=stat.S_ISREG(mode), backlog=backlog)
            return Path(path).name, path, feed
    except OSError as error:
        raise MediaError(f"{spec} cannot be read: {error.strerror or error}") from error
    raise MediaError(f"{spec} is no camera (/dev/video0), no pipe and no file")


def _of_stdin(stdin: BinaryIO | None) -> int:
    try:
        if stdin is not None:
            return os.dup(stdin.fileno())
    except OSError as error:
        raise MediaError(f"standard input cannot be read live: {error}") from error
    raise MediaError("there is no standard input to read")


def _of_path(path: str) -> int:
    # A pipe is opened at once, also where nobody writes to it yet.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(file, True)
    return file


def _of_address(spec: str, backlog: int) -> tuple[str, str, Feed]:
    parts = urlsplit_of(spec)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise MediaError(f"{where} is no address: {error}") from error
    if parts.scheme not in (*_RTSP, "tcp"):
        raise MediaError(f"{where}: live sources are rtsp, rtsps and tcp addresses, cameras, pipes and files")
    if not host or not _PLAIN.fullmatch(spec):
        raise MediaError(f"{where} is no address; write it like rtsp://HOST:PORT/PATH")
    name = f"{host}{parts.path}".replace(":", "_").strip("/")
    # Who is asked, and not as whom: a password can be changed.
    identity = f"{where}?{parts.query}"
    if parts.scheme in _RTSP:
        return name, identity, Feed(address=spec, form="rtsp", backlog=backlog)
    if not port:
        raise MediaError(f"{where} has no port; write it like tcp://HOST:PORT")
    try:
        connection = socket.create_connection((host, port), CONNECT_S)
    except OSError as error:
        raise MediaError(f"{where} does not answer: {error}") from error
    connection.settimeout(None)
    return name, identity, Feed(file=connection.detach(), backlog=backlog)
