"""A journal that more than one process writes: what happens in a child is told to the test."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.runtime.context import get_request_id
from penstock.testing.journal import Journal

ADDRESS = "PENSTOCK_ZOO_JOURNAL"
"""Environment variable: the path of the Unix socket that events are told to."""


class RelayedJournal(Journal):
    """Records, and tells the process that listens at ``ADDRESS``, if the environment names one."""

    def __init__(self) -> None:
        super().__init__()
        self._address = os.environ.get(ADDRESS, "")

    def record(self, event: str, request_id: str | None = None) -> None:
        """See ``Journal.record``."""
        whose = request_id or get_request_id() or ""
        super().record(event, whose)
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
                telling.sendto(f"{whose} {event}".encode(), self._address)


@contextmanager
def listen(path: Path) -> Iterator[Journal]:
    """Return a journal that gets what relayed ones record, in processes started meanwhile.

    Args:
        path: Where the Unix socket may be made; short, as such paths are limited to about 100 characters.
    """
    journal = Journal()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.setblocking(False)
        loop.add_reader(told, _hear, told, journal)
        os.environ[ADDRESS] = str(path)
        try:
            yield journal
        finally:
            del os.environ[ADDRESS]
            loop.remove_reader(told)
            path.unlink()


def _hear(told: socket.socket, journal: Journal) -> None:
    whose, _, event = told.recv(1024).decode().partition(" ")
    journal.record(event, whose)
