"""The keys of a running server: read from a file, and read again when that changes."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from penstock.calls.clock import Clock, SystemClock, Timer
from penstock.errors import PenstockError
from penstock.protocol.keys import Key, KeyTable, parse_keys

LOOK_S = 2.0  # between two looks whether the file has changed

_log = logging.getLogger("penstock.server")


def read_keys(path: Path) -> KeyTable:
    """Read a file of keys.

    Raises:
        PenstockError: It cannot be read, others may write it, or it has mistakes or no keys.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PenstockError(
            f"the keys in {path} cannot be read: {error.strerror}; make one with "
            f"`penstock keys new NAME --scope caller --file {path}`"
        ) from error
    except UnicodeDecodeError as error:
        raise PenstockError(f"{path} is no text in UTF-8, and so no file of keys") from error
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PenstockError(
            f"{path} can be written by others, who could add keys of their own: chmod 600 {path}"
        )
    try:
        table = parse_keys(text)
    except PenstockError as error:
        raise PenstockError(f"{path} has mistakes:\n{error}") from error
    if not len(table):
        raise PenstockError(
            f"{path} has no keys: make one with `penstock keys new NAME --scope caller --file {path}`"
        )
    return table


def open_to_others(path: Path) -> str | None:
    """Return words about a file that others can read: it tells no key, but who has one."""
    if os.name != "posix" or not path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return None
    return f"{path} can be read by others; better: chmod 600 {path}"


class Keys:
    """The keys of a file as it stands now.

    Args:
        path: The file.
        clock: Tells the time.

    Raises:
        PenstockError: See ``read_keys``.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._mark = _mark(path)
        self._table = read_keys(path)
        self._timer: Timer | None = None
        if (words := open_to_others(path)) is not None:
            _log.warning("%s", words)

    def find(self, token: str) -> Key | None:
        """Return the key that ``token`` is; None if it is unknown, revoked or expired."""
        return self._table.find(token, self._clock.wall())

    def get(self, key_id: str) -> Key | None:
        """Return the key of this id, as it is now; None if it was revoked or has expired."""
        return self._table.get(key_id, self._clock.wall())

    def knows(self, key_id: str) -> bool:
        """Whether the key of this id is still good."""
        return self.get(key_id) is not None

    def watch(self) -> None:
        """Look from now on, every ``LOOK_S`` seconds, whether the file has changed."""
        self._timer = self._clock.call_later(LOOK_S, self._look)

    def close(self) -> None:
        """Look no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reload(self) -> None:
        """Read the file again; one that has mistakes, or is gone, changes nothing but the log."""
        self._mark = _mark(self._path)
        try:
            self._table = read_keys(self._path)
        except PenstockError as error:
            _log.error("the keys stay as they were: %s", error)
        else:
            _log.info("%d keys read from %s", len(self._table), self._path)

    def _look(self) -> None:
        self.watch()
        if _mark(self._path) != self._mark:
            self.reload()


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what differs once a file was written."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
