"""HTTP clients for a server: one for each event loop that asks, closed before its loop is.

A client's connections belong to the loop they were made on; an engine is used from any.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

import anyio

from penstock.calls import ambient
from penstock.engines.upstream.patience import Patience

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
# Below the 5 s after which uvicorn and llama.cpp close an idle connection: else requests meet closed ones.
_IDLE_S = 4.0

Hook = Callable[[Any], Awaitable[None]]


class Lane(Generic[T]):
    """What one event loop has of a server: the client, what is built on it, and room for some requests."""

    def __init__(self, http: httpx.AsyncClient, sdk: T, capacity: int) -> None:
        self.http = http
        self.sdk = sdk
        self.room = anyio.Semaphore(capacity)


class Lanes(Generic[T]):
    """The lanes of one server.

    Args:
        make: Makes a lane for the running loop.
    """

    def __init__(self, make: Callable[[], Lane[T]]) -> None:
        self._make = make
        self._lanes: dict[asyncio.AbstractEventLoop, tuple[Lane[T], AsyncGenerator[None, None]]] = {}

    async def here(self) -> Lane[T]:
        """Return the lane of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._lanes.get(loop)
        return await self._add(loop) if found is None else found[0]

    async def close_here(self) -> None:
        """Close the lane of the running loop, if it has one."""
        _, resident = self._lanes.pop(asyncio.get_running_loop(), (None, None))
        if resident is not None:
            await resident.aclose()

    def loops(self) -> Sequence[asyncio.AbstractEventLoop]:
        """Return the loops that have a lane and are not closed."""
        return [loop for loop in tuple(self._lanes) if not loop.is_closed()]

    async def _add(self, loop: asyncio.AbstractEventLoop) -> Lane[T]:
        for left in [known for known in tuple(self._lanes) if known.is_closed()]:
            self._lanes.pop(left, None)
        lane = self._make()
        resident = self._reside(loop, lane)
        self._lanes[loop] = lane, resident
        await anext(resident)
        return lane

    async def _reside(self, loop: asyncio.AbstractEventLoop, lane: Lane[T]) -> AsyncGenerator[None, None]:
        # A loop that ends closes the async generators it has met: that is how it closes its client, too.
        try:
            yield
        finally:
            self._lanes.pop(loop, None)
            await lane.http.aclose()


def http_client(
    url: str, patience: Patience, capacity: int, library: str, *, on_response: Hook, user_agent: str
) -> httpx.AsyncClient:
    """Make a client: HTTP/1.1, no redirects, no compression, no proxy for this machine itself.

    Time beyond connecting is watched by whoever waits, as it changes while an answer comes.

    Args:
        url: Where the server is.
        capacity: How many requests run at the same time.
        library: ``httpx``, or ``httpx2`` for a vendor's client that insists on it; their interface is one.
        on_response: Sees every answer before anybody else.
    """
    kind: ModuleType = import_module(library)
    loopback = (urlsplit(url).hostname or "") in _LOOPBACK
    client: httpx.AsyncClient = kind.AsyncClient(
        http1=True,
        http2=False,
        follow_redirects=False,
        trust_env=not loopback,
        verify=tls(),
        timeout=kind.Timeout(None, connect=patience.connect_s),
        # Some room for the short questions beside the generations; a call never waits in the pool.
        limits=kind.Limits(
            max_connections=capacity * 2 + 8, max_keepalive_connections=capacity, keepalive_expiry=_IDLE_S
        ),
        headers={"accept-encoding": "identity", "user-agent": user_agent},
        event_hooks={"request": [_tell_for_whom], "response": [on_response]},
    )
    return client


async def _tell_for_whom(request: httpx.Request) -> None:
    """Tell a server which request, and which trace, it works for."""
    call = ambient.current.get()
    told = {} if call is None else call.metadata
    for name, header in (("x_request_id", "x-request-id"), ("traceparent", "traceparent")):
        if name in told:
            request.headers[header] = told[name]


@cache
def tls() -> ssl.SSLContext:
    """Return how servers prove who they are; made once, as reading the authorities takes 20 ms."""
    import httpx

    return httpx.create_ssl_context()
