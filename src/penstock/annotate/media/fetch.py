"""What is not a file here is made one, so that it has a digest and can be read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import unquote, urlsplit

import httpx

from penstock.annotate.errors import MediaError
from penstock.annotate.media.vetting import Vetting

CHUNK = 256 * 1024
REDIRECTS = 5
TIMEOUT_S = 30.0

Hooks: TypeAlias = Mapping[str, list[Callable[..., Any]]] | None


def fetch(
    url: str,
    folder: Path,
    most: int,
    transport: httpx.BaseTransport | None = None,
    vetting: Vetting | None = None,
) -> Path:
    """Download a file, unless that was done before; return where it is.

    Args:
        url: http or https; it is never given to a decoder.
        folder: Where downloads are.
        most: Bytes that it may have.
        transport: Of httpx, instead of the network.
        vetting: Watches it, where somebody else named the URL; then no proxy is asked.

    Raises:
        MediaError: It cannot be had, or is too large.
    """
    base = Path(unquote(urlsplit(url).path)).name or "download"
    target = folder / hashlib.sha256(url.encode()).hexdigest()[:12] / base
    if target.exists():
        return target
    hooks: Hooks = (
        None if vetting is None else {"request": [vetting.check_url], "response": [vetting.check_peer]}
    )
    try:
        with (
            httpx.Client(
                follow_redirects=True,
                max_redirects=REDIRECTS,
                timeout=TIMEOUT_S,
                transport=transport,
                trust_env=vetting is None,
                event_hooks=hooks,
            ) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise MediaError(f"{url} answers HTTP {response.status_code}")
            with _whole(target) as file:
                chunks = response.iter_bytes(CHUNK)
                _copy(chunks if vetting is None else _watched(chunks, vetting), file, most, url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MediaError(f"{url} cannot be had: {str(error) or type(error).__name__}") from error
    return target


def spool(stdin: BinaryIO, target: Path, most: int) -> Path:
    """Write what comes from standard input to a file; if nothing comes, an earlier one is taken.

    Raises:
        MediaError: There is nothing, or too much.
    """
    with _whole(target, keep=True) as file:
        _copy(iter(lambda: stdin.read(CHUNK), b""), file, most, "standard input")
    if not target.exists():
        raise MediaError("standard input is empty")
    return target


def _watched(chunks: Iterator[bytes], vetting: Vetting) -> Iterator[bytes]:
    for chunk in chunks:
        vetting.check_going()
        yield chunk


def _copy(chunks: Iterator[bytes], file: BinaryIO, most: int, name: str) -> None:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise MediaError(f"{name} has more than the {most} bytes allowed")
        file.write(chunk)


@contextmanager
def _whole(target: Path, *, keep: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write that gets its name when it is whole; with ``keep``, only if it is not empty."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        with open(part, "wb") as file:
            yield file
            empty = not file.tell()
        if not (empty and keep):
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
