"""Which files are meant: by name, folder, pattern, URL, or from standard input."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from penstock.annotate.errors import MediaError
from penstock.annotate.media.fetch import fetch, spool
from penstock.annotate.media.messages import Feed, Kind, Limits
from penstock.annotate.storage import kept

STDIN = "-"

_CHUNK = 1024 * 1024
_HEAD = 16
_IMAGES = {"jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif", "ppm", "pgm", "pbm", "pnm", "avif"}
_VIDEOS = {
    *("mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "flv", "ogv", "wmv"),
    *("3gp", "h264", "264", "h265", "265", "hevc", "ivf", "obu", "mjpeg", "mjpg", "mxf", "nut", "y4m"),
}
_STILL = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")
_PAGED = (b"GIF8", b"II*\0", b"MM\0*")
_AVIF = (b"avif", b"avis")


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """A file to annotate.

    Args:
        name: What it is called in the log; unique.
        path: Where it is.
        kind: By what it is read.
        digest: ``sha256:`` and the hex digits of its bytes.
        bytes: Its size.
        copy: How many files with the same bytes stand before it.
        live: Where it comes from, if it is no file.
    """

    name: str
    path: Path
    kind: Kind
    digest: str
    bytes: int
    copy: int = 0
    live: Feed | None = None


def find(specs: Sequence[str], folder: Path, limits: Limits, stdin: BinaryIO | None = None) -> list[Media]:
    """Return the files that are meant, in the order given; those of a folder by their names.

    Args:
        specs: Files, folders, patterns, http(s) URLs; ``-`` is standard input.
        folder: Where what is not a file here is put.
        limits: What a file may have.
        stdin: Is read for ``-``.

    Raises:
        MediaError: There is none, it cannot be read, or it is too large.
        StorageError: What is not a file here cannot be made one.
    """
    if not specs:
        raise MediaError("no source is given; name a file, a folder, a pattern or a URL")
    found: list[tuple[str, Path]] = []
    for number, spec in enumerate(specs):
        some = _expand(spec, folder, limits, stdin)
        taken = {name for name, _ in found}
        found += [(f"{number + 1}/{name}" if name in taken else name, path) for name, path in some]
    media: list[Media] = []
    copies: dict[str, int] = {}
    for name, path in found:
        one = _look(name, path, limits)
        media.append(msgspec.structs.replace(one, copy=copies.get(one.digest, 0)))
        copies[one.digest] = copies.get(one.digest, 0) + 1
    return media


def _expand(spec: str, folder: Path, limits: Limits, stdin: BinaryIO | None) -> list[tuple[str, Path]]:
    if spec == STDIN:
        if stdin is None:
            raise MediaError("there is no standard input to read")
        with kept(folder):
            return [("stdin", spool(stdin, folder / "stdin", limits.bytes))]
    if spec.startswith(("http://", "https://")):
        with kept(folder):
            path = fetch(spec, folder, limits.bytes)
        return [(path.name, path)]
    if "://" in spec:
        raise MediaError(f"{spec}: only http and https URLs can be read; download it, and name the file")
    path = Path(spec)
    if path.is_dir():
        return _in_folder(path)
    if path.exists() and not path.is_file():
        raise MediaError(f"{spec} is no file; if it is a named pipe or a device, read it with --live")
    if path.exists():
        return [(path.name, path)]
    return _matching(spec)


def _in_folder(folder: Path) -> list[tuple[str, Path]]:
    found = [
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.suffix.lstrip(".").lower() in _IMAGES | _VIDEOS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not found:
        raise MediaError(f"{folder} has no images and no videos in it")
    return sorted(found)


def _matching(spec: str) -> list[tuple[str, Path]]:
    if not glob.has_magic(spec):
        raise MediaError(f"{spec} is not there")
    fixed = Path(*Path(spec).parts[: _first_magic(spec)])
    paths = [Path(found) for found in glob.glob(spec, recursive=True)]
    found = sorted((path.relative_to(fixed).as_posix(), path) for path in paths if path.is_file())
    if not found:
        raise MediaError(f"{spec}: no file is called so")
    return found


def _first_magic(spec: str) -> int:
    return next(at for at, part in enumerate(Path(spec).parts) if glob.has_magic(part))


def _look(name: str, path: Path, limits: Limits) -> Media:
    """Return what is known of a file without decoding it."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            size = path.stat().st_size
            if size > limits.bytes:
                raise MediaError(f"{name} has {size} bytes, more than the {limits.bytes} allowed")
            file.seek(0)
            digest = _digest(file)
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror or error}") from error
    return Media(name=name, path=path, kind=_kind(head), digest=digest, bytes=size)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _kind(head: bytes) -> Kind:
    if head.startswith(_PAGED) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "pages"
    if head.startswith(_STILL) or (head[4:8] == b"ftyp" and head[8:12] in _AVIF):
        return "image"
    return "video"
