"""Files that pages are made of, as they are answered: the same for everybody, asked for again each time."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from penstock.server.exchange import Exchange, Header

KINDS: Mapping[str, bytes] = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
"""Content types, by how a name ends."""
_ALWAYS: tuple[Header, ...] = (
    (b"cache-control", b"no-cache"),  # kept, and asked for again: files of two versions would not fit
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class File(NamedTuple):
    """What is answered."""

    kind: Header
    headers: tuple[Header, ...]
    etag: bytes
    body: bytes


def make_file(body: bytes, kind: bytes, policy: bytes) -> File:
    """Return a file.

    Args:
        body: What is in it.
        kind: Its content type.
        policy: The content security policy of a page.
    """
    etag = b'"' + sha256(body).hexdigest()[:32].encode() + b'"'
    headers = ((b"etag", etag), (b"vary", b"accept"), *_ALWAYS, (b"content-security-policy", policy))
    return File((b"content-type", kind), headers, etag, body)


async def answer_file(exchange: Exchange, file: File) -> None:
    """Answer with a file, or that the client has it."""
    known = exchange.headers.get(b"if-none-match", b"")
    if file.etag in known:
        await exchange.start(304, file.headers)
        await exchange.outlet.write(b"", more=False)
    else:
        await exchange.reply(200, file.body, file.headers, file.kind)
