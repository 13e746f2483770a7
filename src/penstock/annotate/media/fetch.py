"""What is not a file here is made one, so that it has a digest and can be read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import httpx

from penstock.annotate.errors import MediaError
from penstock.annotate.media.vetting import Vetting

CHUNK = 256 * 1024
REDIRECTS = 5
TIMEOUT_S = 30.0


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
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, transport=transport, trust_env=vetting is None) as client,
            closing(_opened(client, url, vetting)) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise MediaError(f"{url} answers HTTP {response.status_code}")
            with _whole(target) as file:
                chunks = response.iter_bytes(CHUNK)
                _copy(chunks if vetting is None else _watched(chunks, vetting), file, most, url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MediaError(f"{url} cannot be had: {str(error) or type(error).__name__}") from error
    return target


def _opened(client: httpx.Client, url: str, vetting: Vetting | None) -> httpx.Response:
    """Return the answer at the end of all redirects."""
    request = client.build_request("GET", url)
    for _ in range(REDIRECTS + 1):
        response = _sent(client, request, vetting)
        if not response.has_redirect_location:
            return response
        response.close()
        to = request.url.join(response.headers["location"])
        if to.scheme not in ("http", "https"):
            raise MediaError(f"{url} leads to {to.scheme}, which is not followed")
        request = client.build_request("GET", to)
    raise MediaError(f"{url} leads elsewhere more than {REDIRECTS} times")


def _sent(client: httpx.Client, request: httpx.Request, vetting: Vetting | None) -> httpx.Response:
    if vetting is None:
        return client.send(request, stream=True)
    error: httpx.ConnectError | None = None
    for pinned in vetting.pinned(request):
        try:
            return client.send(pinned, stream=True)
        except httpx.ConnectError as failed:
            error = failed
    raise error or MediaError(f"{request.url.host} has no address")


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
