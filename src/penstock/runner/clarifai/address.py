"""Where a server of Clarifai's runners is, and the channel there."""

from __future__ import annotations

import logging
from typing import NamedTuple
from urllib.parse import urlsplit

import grpc
import grpc.aio

from penstock.runner.dialling import is_loopback

KEEPALIVE_S = 310.0
"""How often a connection is tried on which nothing comes: servers that have not been told otherwise take
pings more often than every 300 seconds for an attack, and hang up."""
ANSWER_S = 10.0  # how long a ping may go unanswered
MAX_MESSAGE = 1024 * 1024 * 1024
"""Bytes of a message, either way: what the SDK's own clients may send."""

_CLARIFAI = ".clarifai.com"
_PORTS = {"http": 80, "https": 443}
_log = logging.getLogger("penstock.runner")


class Address(NamedTuple):
    """A server.

    Attributes:
        tls: Whether what is said there is encrypted.
        ca: Certificates, PEM, that are trusted instead of the machine's.
        keepalive_s: How often a silent connection is tried, in seconds.
    """

    host: str
    port: int
    tls: bool
    ca: bytes | None = None
    keepalive_s: float = KEEPALIVE_S

    def __str__(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self._joined()}"

    def channel(self) -> grpc.aio.Channel:
        """Return a channel of its own: it shares no connection with others to the same place."""
        target, options = f"dns:///{self._joined()}", self._options()
        if not self.tls:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(self.ca), options=options)

    def _joined(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),  # an item is never to be begun twice
            ("grpc.enable_http_proxy", 0 if is_loopback(self.host) else 1),
            ("grpc.keepalive_time_ms", int(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", int(min(self.keepalive_s, ANSWER_S) * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.ping_timeout_ms", int(min(self.keepalive_s, ANSWER_S) * 1000)),
        ]


def read_address(
    url: str, token: str | None, *, ca: bytes | None = None, keepalive_s: float = KEEPALIVE_S
) -> Address:
    """Read the URL of a server, such as ``https://api.clarifai.com``.

    Args:
        token: What is sent there, if anything; it is only looked whether somebody else could read it.
        ca: As for ``Address``.
        keepalive_s: As for ``Address``.

    Raises:
        ValueError: It is none.
    """
    text = url if "://" in url or not url.partition(":")[0].endswith(_CLARIFAI) else f"https://{url}"
    parts = urlsplit(text)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{url[:100]!r} is no server's URL; write it like https://api.clarifai.com")
    if parts.path.strip("/"):
        raise ValueError(f"{url[:100]!r} has a path, and gRPC knows none; write the host and the port only")
    if keepalive_s <= 0:
        raise ValueError("the seconds between two keepalives are more than 0")
    tls = parts.scheme == "https"
    if token is not None and not tls and not is_loopback(parts.hostname):
        _log.warning("the token goes to %s without encryption; use https:// where others can listen", url)
    return Address(parts.hostname, parts.port or _PORTS[parts.scheme], tls, ca, keepalive_s)
