"""What may be downloaded because somebody else names it: from addresses that are everybody's, and not for
ever."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx

from penstock.annotate.errors import MediaError

SECONDS = 3600.0
_IPv6 = ipaddress.IPv6Network
# Addresses that hold one of IPv4, at which bit it begins (RFC 6052, RFC 8215, RFC 3056, RFC 4291 2.5.5.1).
_HOLDERS = (
    (_IPv6("64:ff9b::/96"), 96),
    (_IPv6("64:ff9b:1::/48"), 96),
    (_IPv6("2002::/16"), 16),
    (_IPv6("::/96"), 96),
    (_IPv6("::ffff:0:0/96"), 96),
)
_SITE_LOCAL = _IPv6("fec0::/10")


class Vetting:
    """Watches one download.

    Args:
        private: Whether addresses of this machine and of private networks will do.
        seconds: How long it may take.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self, *, private: bool = False, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._private = private
        self._clock = clock
        self._until = clock() + seconds
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the download, from whichever thread."""
        self._stopped.set()

    def pinned(self, request: httpx.Request) -> Iterator[httpx.Request]:
        """Yield a request with each address of its host in the place of the name: what is asked is what was
        looked at, wherever the name leads a moment later.

        Raises:
            MediaError: Nothing of it is to be asked.
        """
        self.check_going()
        host = request.url.host
        for address in self._addresses(request.url):
            asked = httpx.Request(
                request.method, request.url.copy_with(host=address), headers=request.headers
            )
            asked.extensions = {**request.extensions, "sni_hostname": host}
            yield asked

    def check_going(self) -> None:
        """See that it may go on.

        Raises:
            MediaError: It was stopped, or takes too long.
        """
        if self._stopped.is_set():
            raise MediaError("the download was stopped")
        if self._clock() > self._until:
            raise MediaError("the download takes too long")

    def _addresses(self, url: httpx.URL) -> list[str]:
        if url.scheme not in ("http", "https"):
            raise MediaError(f"{url.copy_with(query=None)}: only http and https URLs can be read")
        try:
            found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise MediaError(f"{url.host} cannot be found ({error})") from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        for address in addresses:
            if not (self._private or is_public(address)):
                raise MediaError(
                    f"{url.host} is at {address}, an address of this machine or of a private network; if "
                    "media are to be read from there, start the runner with --private-media"
                )
        return addresses


def is_public(text: str) -> bool:
    """Return whether an address is one of the internet at large, also where it is written within another."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        for network, begin in _HOLDERS:
            if address in network:
                held = int(address) >> (128 - 32 - begin) & 0xFFFFFFFF
                return is_public(str(ipaddress.IPv4Address(held)))
        if address in _SITE_LOCAL or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast
