"""A disk that is full, or takes nothing for another reason: what that means for a run, in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.annotate.errors import StorageError

_FULL = {
    errno.ENOSPC: "the disk is full; make room on it, or move the folder to one that has room",
    errno.EDQUOT: "the quota is used up; free some of it, or move the folder elsewhere",
    errno.EFBIG: "a file may not become so large; raise the limit (ulimit -f), or move the folder elsewhere",
    errno.EROFS: "it can only be read there; move the folder elsewhere",
    errno.EACCES: "that is not permitted; change who may write there, or name another folder with --out",
}


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Say what is to be done where a file cannot be written.

    Raises:
        StorageError: It cannot.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> StorageError:
    """Return what is said of a file that cannot be written."""
    why = _FULL.get(error.errno or 0, f"{error.strerror or error}; mend that")
    return StorageError(
        f"{path} cannot be written: {why}. What is written is kept, and the same command goes on"
    )
