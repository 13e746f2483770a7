"""Which names a server goes by, and which web pages may speak to it.

A page that a browser has from elsewhere must not use a server that its user can reach: neither by asking it
straight (the browser then says the page's `Origin`), nor by a name of its own that it lets point to the
server (DNS rebinding; the browser then says that name as `Host`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from penstock.errors import CallError, ErrorCode

ANY = "*"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_STANDARD_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:,@/\[\]]+))(?::\d{0,5})?", re.ASCII)
_OWN_SITE = (None, b"same-origin", b"none")


class Sites:
    """Checks `Host` and `Origin`.

    Args:
        hosts: More names that the server goes by; ``*`` is any.
        origins: Other sites whose pages may use it, such as ``https://example.com``; ``*`` is any.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = {_bare(host) or host.lower() for host in hosts} | set(_LOOPBACK_NAMES)
        self._named = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._ports: frozenset[int] = frozenset()
        self._any_address = False
        self._origins = self._named
        self._known: frozenset[bytes] = frozenset()

    def listen_at(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Take the addresses the server listens on for its own."""
        for host, port in addresses:
            self._hosts.add(host)
            self._ports |= {port}
            # By a number nobody is led astray: only names can be made to point here.
            self._any_address |= ipaddress.ip_address(host.partition("%")[0]).is_unspecified
        own = [
            (scheme, host, port) for scheme in _STANDARD_PORTS for host in self._hosts for port in self._ports
        ]
        self._origins = self._named | {spelt for parts in own for spelt in _spell(*parts)}
        self._known = frozenset(
            f"{_bracketed(host)}:{port}".encode() for host in self._hosts for port in self._ports
        )

    def check(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        """Return the `Origin` of a request that may come from there; None where a request has none.

        Raises:
            CallError: ``permission_denied``.
        """
        host = headers.get(b"host")
        if host not in self._known and host is not None and not self._goes_by(host.decode("latin-1")):
            raise CallError(
                "this server does not go by the name that Host says; --allow-host adds one",
                ErrorCode.PERMISSION_DENIED,
            )
        origin = headers.get(b"origin")
        if origin is not None:
            if not self._welcomes(origin.decode("latin-1").lower(), host):
                raise CallError(
                    "pages of this Origin may not use this server; --allow-origin lets them",
                    ErrorCode.PERMISSION_DENIED,
                )
        elif headers.get(b"sec-fetch-site") not in _OWN_SITE and not _followed_link(headers):
            # Browsers say no Origin with what a page embeds, such as an image.
            raise CallError("pages of other sites may not embed this", ErrorCode.PERMISSION_DENIED)
        return origin

    def _goes_by(self, host: str) -> bool:
        name = _bare(host)
        return name in self._hosts or ANY in self._hosts or (self._any_address and _is_address(name))

    def _welcomes(self, origin: str, host: bytes | None) -> bool:
        if origin in self._origins or ANY in self._named:
            return True
        if not self._any_address or host is None:
            return False
        # Which of the machine's addresses is meant is known by the request only.
        name = _bare(host.decode("latin-1"))
        return _is_address(name) and any(
            origin in _spell(scheme, name, port) for scheme in _STANDARD_PORTS for port in self._ports
        )


def check_origin(text: str) -> str:
    """Return ``text`` if a browser could say it as an Origin, or it is ``*``.

    Raises:
        ValueError: It could not.
    """
    if text in (ANY, "null"):
        return text
    parts = urlsplit(text.rstrip("/"))
    if not parts.scheme or not parts.hostname or parts.path or parts.query or parts.fragment or "@" in text:
        raise ValueError(f"{text[:80]!r} is no origin; write it like https://example.com")
    return text


def _followed_link(headers: Mapping[bytes, bytes]) -> bool:
    return (headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")) == (b"navigate", b"document")


def _bare(host: str) -> str:
    """Return a Host without its port, brackets, capitals and the root's dot; empty if it is none."""
    found = _HOST.fullmatch(host)
    return "" if found is None else (found[1] or found[2]).lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _spell(scheme: str, host: str, port: int) -> tuple[str, ...]:
    """Return how browsers spell an origin: without the port that goes without saying."""
    site = f"{scheme}://{_bracketed(host)}"
    return (site,) if _STANDARD_PORTS[scheme] == port else (f"{site}:{port}",)
