"""How the decoding process speaks."""

from __future__ import annotations

import base64
import mmap
import socket
import time
from collections.abc import Callable

from penstock.annotate.media.messages import PACKET, Message, Passed, write

PASSED_S = 0.2  # between two signs of life


class Unreadable(Exception):
    """The file cannot be decoded; the text says why, for a person."""


class Speaker:
    """Says what was found, and which packet is being decoded.

    Args:
        link: To the one who asked.
        packet: Shared with it.
    """

    def __init__(self, link: socket.socket, packet: mmap.mmap) -> None:
        self._link = link
        self._packet = packet
        self._spoke = time.monotonic()

    def say(self, message: Message, picture: bytes = b"") -> None:
        """Send a message; the one who asked may let this wait."""
        head, body = write(message, base64.b64encode(picture) if picture else b"")
        self._link.sendall(head)
        if body:
            self._link.sendall(body)
        self._spoke = time.monotonic()

    def passed(self, frame: int, t: Callable[[], str]) -> None:
        """Give a sign of life, if the last one is some time ago."""
        if time.monotonic() - self._spoke > PASSED_S:
            self.say(Passed(frame=frame, t=t()))

    def at(self, packet: int) -> None:
        """Note which packet is decoded next; it can be read when this process is gone."""
        PACKET.pack_into(self._packet, 0, packet)
