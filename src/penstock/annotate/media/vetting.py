"""What may be downloaded because somebody else names it: from addresses that are everybody's, and not for
ever."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from penstock.annotate.errors import MediaError

SECONDS = 3600.0


class Vetting:
    """Watches one download.

    A host is looked up before it is asked, and the address that then answers is looked at as well, as a name
    may lead elsewhere the second time.

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

    def check_url(self, request: httpx.Request) -> None:
        """Look at what is about to be asked; of redirects, at each.

        Raises:
            MediaError: It is not to be.
        """
        self.check_going()
        url = request.url
        if url.scheme not in ("http", "https"):
            raise MediaError(f"{url.copy_with(query=None)}: only http and https URLs can be read")
        if self._private:
            return
        try:
            found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise MediaError(f"{url.host} cannot be found ({error})") from error
        for *_, address in found:
            self._check_address(url.host, str(address[0]))

    def check_peer(self, response: httpx.Response) -> None:
        """Look at who has answered.

        Raises:
            MediaError: It is nobody who should have been asked.
        """
        stream: Any = response.extensions.get("network_stream")
        address = None if stream is None else stream.get_extra_info("server_addr")
        if address is not None and not self._private:
            self._check_address(response.url.host, str(address[0]))

    def check_going(self) -> None:
        """See that it may go on.

        Raises:
            MediaError: It was stopped, or takes too long.
        """
        if self._stopped.is_set():
            raise MediaError("the download was stopped")
        if self._clock() > self._until:
            raise MediaError("the download takes too long")

    def _check_address(self, host: str, text: str) -> None:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if not (mapped or address).is_global or address.is_multicast:
            raise MediaError(
                f"{host} is at {text}, an address of this machine or of a private network; if media are to "
                "be read from there, start the runner with --private-media"
            )
