"""The log of a run: appended to line by line, and read when a run goes on.

A line counts once it is written whole.  What a run that was ended left behind it half written is cut off.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock.annotate.afterwards import afterwards
from penstock.annotate.errors import ResumeError
from penstock.annotate.records import End, Frame, Lost, decode, encode
from penstock.annotate.storage import kept, unwritable

LOG = "annotations.jsonl"
SYNC_LINES = 256
SYNC_S = 2.0


class Log:
    """A log that is open for writing; only one process can have it.

    Args:
        path: The file; made if it is not there.

    Attributes:
        written: When an earlier run wrote it last, in seconds since the epoch.

    Raises:
        ResumeError: Another process writes it.
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        with kept(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self.written = os.fstat(self._file).st_mtime
        self._hash = hashlib.sha256()
        self._size = 0
        self._unsynced, self._synced = 0, clock()
        self.frames = 0
        self.regions = 0
        self.lost = 0
        self.end: End | None = None
        self._closed = False
        try:
            _lock(self._file, path)
        except BaseException:
            os.close(self._file)
            raise

    def replay(self) -> Iterator[Frame | Lost]:
        """Read what is there; it is to be read to its end before anything is appended.

        Raises:
            ResumeError: It is damaged before its last line.
        """
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                record = _read(line)
                if record is None:
                    if file.read(1):
                        raise ResumeError(
                            f"{self.path}, line {number}: it is no line of a log, and there are others "
                            "behind it; restore the file, or begin anew with --restart"
                        )
                    break
                if isinstance(record, End):
                    self._check_end(record)
                    self.end = record
                    self._size += len(line)
                    break
                self._count(record, line)
                yield record
        os.ftruncate(self._file, self._size)

    def clear(self) -> None:
        """Begin anew."""
        os.ftruncate(self._file, 0)

    def append(self, record: Frame | Lost) -> None:
        """Write a line; when this returns, the end of this process cannot undo it.

        Raises:
            StorageError: It cannot be written; nothing of it is left.
        """
        line = encode(record)
        self._write(line)
        self._count(record, line)

    def finish(self) -> End:
        """Write the last line, or return the one that is there."""
        if self.end is None:
            end = End(frames=self.frames, regions=self.regions, digest=self.digest)
            self._write(encode(end), sync=True)
            self.end = end
        return self.end

    def close(self) -> None:
        """Let go of the file, which then goes on to the disk; once it is closed, nothing is done.

        What was written is safe from the end of this process already; a log that is finished is on the disk.
        """
        if self._closed:
            return
        self._closed = True
        _unlock(self._file)
        if self._unsynced:
            afterwards(self._settle, "writing a log to the disk")
        else:
            os.close(self._file)

    @property
    def digest(self) -> str:
        """Of all lines of frames so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def _count(self, record: Frame | Lost, line: bytes) -> None:
        self._hash.update(line)
        self._size += len(line)
        if isinstance(record, Lost):
            self.lost += record.lost
            return
        self.frames += 1
        self.regions += len(record.regions)

    def _write(self, line: bytes, *, sync: bool = False) -> None:
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
            self._unsynced += 1
            if sync or self._unsynced >= SYNC_LINES or self._clock() - self._synced > SYNC_S:
                os.fsync(self._file)
                self._unsynced, self._synced = 0, self._clock()
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise unwritable(self.path, error) from error

    def _settle(self) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def _check_end(self, end: End) -> None:
        if (end.frames, end.digest) != (self.frames, self.digest):
            raise ResumeError(
                f"{self.path} was changed since it was finished: its lines do not have the digest in its "
                "last one; restore the file, or begin anew with --restart"
            )


def _read(line: bytes) -> Frame | Lost | End | None:
    """Return what a line says; None if it is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        return decode(line)
    except ValueError:
        return None


def _lock(file: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: nobody is kept out there
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ResumeError(f"{path} is being written by another process; wait for it, or end it") from error


def _unlock(file: int) -> None:
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_UN)
