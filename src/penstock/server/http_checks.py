"""What is refused of a request's head: what two parsers might read differently (RFC 9112 sections 2.3, 3.2,
6.1 and 6.3), and what the WebSocket library would stumble over."""

from __future__ import annotations

from typing import NamedTuple

from penstock.errors import CallError, ErrorCode
from penstock.server.door import OPEN

_PROBES = frozenset(path.encode() for path in OPEN)


class Head(NamedTuple):
    """The head of a request.

    Attributes:
        headers: All of them, names in small letters.
        single: The same by name; of a name that stands several times, the last.
        upgrades: It asks for another protocol.
        websocket: ... which is WebSocket.
    """

    version: str
    method: bytes
    url: bytes
    headers: list[tuple[bytes, bytes]]
    single: dict[bytes, bytes]
    upgrades: bool
    websocket: bool

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of a header."""
        return [value for other, value in self.headers if other == name]


def check_head(head: Head) -> None:
    """Refuse a request by its head.

    Raises:
        CallError: It is refused.
    """
    if head.version not in ("1.0", "1.1"):
        raise bad_request("only HTTP/1.0 and HTTP/1.1 are spoken")
    if b"host" not in head.single:
        if head.version == "1.1":
            raise bad_request("it has no Host header")
    elif len(head.single) < len(head.headers) and len(head.all(b"host")) > 1:
        raise bad_request("it has several Host headers")
    if b"#" in head.url:
        raise bad_request("its target has a fragment")
    if b"transfer-encoding" in head.single:
        _check_coding(head)
    if head.upgrades:
        _check_upgrade(head)


def check_probe(url: bytes, most_connections: int) -> None:
    """Refuse what is no probe, on a connection beyond those that a server takes.

    Raises:
        CallError: ``unavailable``.
    """
    if url.partition(b"?")[0] not in _PROBES:
        said = f"{most_connections} connections are open, as many as this server takes; try again later"
        raise CallError(said, ErrorCode.UNAVAILABLE, retry_after_s=1)


def _check_coding(head: Head) -> None:
    if head.version == "1.0":
        raise bad_request("HTTP/1.0 has no Transfer-Encoding")
    if [coding.lower() for coding in head.all(b"transfer-encoding")] != [b"chunked"]:
        raise CallError("the only Transfer-Encoding is chunked", ErrorCode.NOT_IMPLEMENTED)


def _check_upgrade(head: Head) -> None:
    # RFC 6455 sections 4.1 and 11.3: some releases of the WebSocket library say nothing at all to other
    # methods, and some break over bytes that are no ASCII.
    if head.websocket and head.method != b"GET":
        raise bad_request("a WebSocket is opened with GET")
    if not all(value.isascii() for name, value in head.headers if name.startswith(b"sec-websocket-")):
        raise bad_request("its Sec-WebSocket headers are not all ASCII")
    if b"transfer-encoding" in head.single or head.single.get(b"content-length", b"").strip(b"0"):
        raise bad_request("it has a body, and asks for an upgrade; leave out Upgrade")


def bad_request(why: str) -> CallError:
    """Return what a client is told that sent what cannot be read."""
    return CallError(f"the request cannot be read: {why}", ErrorCode.INVALID_ARGUMENT)
