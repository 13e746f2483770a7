"""One server that is reached over HTTP: how it is asked, and what is done when it does not answer."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

import anyio

from penstock.calls.tasks import TaskOwner
from penstock.engines.upstream import faults
from penstock.engines.upstream.clients import Lane, Lanes, http_client, tls
from penstock.engines.upstream.patience import Deadlines, Patience, spent
from penstock.errors import CallError, ErrorCode

if TYPE_CHECKING:
    import httpx

    from penstock.engines.upstream.exchange import Exchange

_log = logging.getLogger("penstock.engines")

T = TypeVar("T")

Send = Callable[[T], Awaitable[object]]
"""Makes one streamed request; the answer is seen where it arrives, so what this returns does not matter."""

_MOST_OF_A_REFUSAL = 64 * 1024
_MOST_OF_AN_ANSWER = 4 * 1024 * 1024
_MARGIN_S = 5.0


class Attempt:
    """One request on its way: what came back, and whether it may be sent again."""

    __slots__ = ("again_s", "may_again", "response")

    def __init__(self) -> None:
        self.response: httpx.Response | None = None
        self.may_again = False
        self.again_s: float | None = None


_attempt: ContextVar[Attempt | None] = ContextVar("penstock_upstream_attempt", default=None)


class Upstream(Generic[T]):
    """A server, its clients, and everything under way with it.

    Args:
        name: What callers read of it, such as ``openai:gpt-oss``; no address.  May be changed later.
        url: Where it is; told to the log only.
        sdk: Builds what adapters ask with, such as a vendor's client, on an HTTP client; for each event loop.
        capacity: Generations at the same time, on one loop.
        patience: How long it is waited for.
        library: ``httpx``, or ``httpx2`` for a vendor's client that insists on it.
        secrets: What no caller may read: keys.
        sdk_errors: What the vendor's client raises.
    """

    def __init__(
        self,
        name: str,
        url: str,
        sdk: Callable[[httpx.AsyncClient], T],
        *,
        capacity: int,
        patience: Patience,
        library: str = "httpx",
        secrets: Sequence[str] = (),
        sdk_errors: Sequence[type[Exception]] = (),
    ) -> None:
        self.name = name
        self.patience = patience
        parts = urlsplit(url)
        self._where = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self.secrets = (*secrets, parts.netloc, parts.hostname or "")
        self._url = url
        self._sdk = sdk
        self._capacity = capacity
        self._library = import_module(library)
        self.broken: tuple[type[Exception], ...] = (
            *(self._library.HTTPError, self._library.StreamError),
            *_BROKEN,
            *sdk_errors,
        )
        """What a connection raises when it breaks; ``sorted`` makes a ``CallError`` of it."""
        self._known: tuple[type[Exception], ...] = (CallError, *self.broken)
        self._lanes: Lanes[T] = Lanes(self._lane)
        self._live: set[Exchange[T]] = set()
        # Now, as no event loop should wait for it at the first call.
        tls()
        self._closed = False
        self.tasks = TaskOwner()

    # -- asking -------------------------------------------------------------------------------------

    async def lane(self) -> Lane[T]:
        """Return what the running loop has of this server.

        Raises:
            CallError: ``unavailable``: this was closed.
        """
        if self._closed:
            raise self.closed_error()
        return await self._lanes.here()

    async def respond(self, lane: Lane[T], send: Send[T], deadlines: Deadlines) -> httpx.Response:
        """Send a request until it is answered with a stream, or need not be sent again.

        Only what computed nothing is repeated: a connection that could not be made or broke before a status,
        and the statuses 429, 502, 503 and 529.

        Raises:
            CallError: It could not be sent, or was refused.
        """
        for number in range(self.patience.retries + 1):
            attempt = Attempt()
            try:
                return await self._once(lane, send, attempt)
            except CallError:
                pause_s = self._pause(number, attempt, deadlines)
                if pause_s is None:
                    raise
            _log.info("%s (%s) is asked again in %.2f s", self.name, self._where, pause_s)
            await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    async def ask(self, send: Send[T], limit_s: float | None = None) -> bytes:
        """Ask a short question, such as for the list of models; one attempt.

        Args:
            send: Makes the request, streamed.
            limit_s: Seconds it may take; by default as long as connecting may, and 5 more.

        Raises:
            CallError: It was not answered in time, or refused.
        """
        limit_s = self.patience.connect_s + _MARGIN_S if limit_s is None else limit_s
        lane = await self.lane()
        with anyio.move_on_after(limit_s):
            response = await self._once(lane, send, Attempt())
            try:
                return await _body(response, _MOST_OF_AN_ANSWER)
            except self.broken as error:
                raise self.sorted(error, begun=True) from None
            finally:
                await response.aclose()
        raise spent(self.name, "first_token", limit_s)

    async def _once(self, lane: Lane[T], send: Send[T], attempt: Attempt) -> httpx.Response:
        token = _attempt.set(attempt)
        sent = False
        try:
            await send(lane.sdk)
            sent = True
        except self._known as error:
            raise self._failed(error, attempt) from None
        finally:
            _attempt.reset(token)
            # A vendor's client may fail between the answer and us; its connection must not stay behind.
            if not sent and attempt.response is not None:
                with anyio.CancelScope(shield=True):
                    await attempt.response.aclose()
        if attempt.response is None:
            raise CallError(f"{self.name}: its adapter made no request", ErrorCode.INTERNAL)
        return attempt.response

    def _pause(self, number: int, attempt: Attempt, deadlines: Deadlines) -> float | None:
        """Seconds until the next attempt; None when there is none."""
        if number >= self.patience.retries or not attempt.may_again or self._closed:
            return None
        pause_s = self.patience.first_pause_s * 2**number * random.uniform(0.5, 1.5)
        if attempt.again_s is not None:
            pause_s = max(pause_s, attempt.again_s)
        within = pause_s <= self.patience.longest_wait_s and deadlines.allows(pause_s)
        return pause_s if within else None

    # -- what comes back ----------------------------------------------------------------------------

    async def _on_response(self, response: Any) -> None:
        """Look at an answer before anybody else does: only a plain 200 goes on."""
        attempt = _attempt.get()
        if attempt is not None:
            attempt.response = response
        if response.status_code != 200:
            raise await self._refusal(response, attempt)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise faults.garbled(self.name, "answered in a compression it was asked not to use")

    async def _refusal(self, response: Any, attempt: Attempt | None) -> CallError:
        body = b""
        with suppress(*self._known):
            body = await _body(response, _MOST_OF_A_REFUSAL)
        told = faults.told_in(body)
        status = response.status_code
        if status >= 500 and told is not None and told.status is not None:
            status = told.status
        after_s = faults.retry_after(response.headers.get("retry-after"), time.time())
        if attempt is not None:
            attempt.may_again = faults.may_try_again(response.status_code, told)
            attempt.again_s = after_s
        _log.warning(
            "%s (%s) answered %d (%s; its id %s)",
            self.name,
            self._where,
            response.status_code,
            told.kind[:64] if told else "no error object",
            response.headers.get("x-request-id", "-")[:64],
        )
        return faults.of_status(self.name, status, told, retry_after_s=after_s, secrets=self.secrets)

    def sorted(self, error: Exception, *, begun: bool) -> CallError:
        """Turn what a library raised (see ``broken``) into what is raised here, and log where it happened.

        Args:
            begun: An answer had begun.
        """
        chain = _chain(error)
        for link in chain:
            if isinstance(link, CallError):
                return link
        for link in chain:
            if isinstance(link, self._library.ConnectTimeout):
                return spent(self.name, "connect", self.patience.connect_s)
            if isinstance(link, self._library.ConnectError):
                _log.warning("%s (%s): %s", self.name, self._where, link)
                return faults.unreachable(self.name)
        _log.warning("%s (%s): %s: %s", self.name, self._where, type(chain[-1]).__name__, chain[-1])
        return faults.lost(self.name, begun=begun)

    def _failed(self, error: Exception, attempt: Attempt) -> CallError:
        sorted_ = self.sorted(error, begun=attempt.response is not None)
        if attempt.response is None:
            # No status came: either no connection was made, or it broke before the server said anything.
            attempt.may_again = True
        return sorted_

    # -- the end ------------------------------------------------------------------------------------

    def closed_error(self) -> CallError:
        """What calls end with when the engine is closed."""
        return CallError(f"{self.name} is closed", ErrorCode.UNAVAILABLE)

    def could_not_stop(self, error: CallError) -> None:
        """Log that a server may still work on an answer that nobody wants."""
        _log.warning("%s (%s) could not be told to stop: %s", self.name, self._where, error.message)

    def enter(self, exchange: Exchange[T]) -> None:
        """Keep a generation, to be cut when this is closed."""
        if self._closed:
            raise self.closed_error()
        self._live.add(exchange)

    def leave(self, exchange: Exchange[T]) -> None:
        """A generation is over."""
        self._live.discard(exchange)

    async def aclose(self) -> None:
        """Cut what is under way and close the connections, on whatever loop they are."""
        self._closed = True
        here = asyncio.get_running_loop()
        for loop in self._lanes.loops():
            if loop is here:
                await self._close_here()
            else:
                await asyncio.to_thread(self._close_on, loop)

    def close(self) -> None:
        """Like ``aclose``; from inside an event loop it does not wait for that loop's own connections."""
        self._closed = True
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        for loop in self._lanes.loops():
            if loop is here:
                self.tasks.start(self._close_here(), name=f"close {self.name}")
            else:
                self._close_on(loop)

    def _close_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what belongs to a loop that is not this thread's."""
        if not loop.is_running():
            loop.run_until_complete(self._close_here())
            return
        closing = asyncio.run_coroutine_threadsafe(self._close_here(), loop)
        try:
            closing.result(self.patience.close_s * 2)
        except FutureTimeout:
            closing.cancel()
            _log.warning("%s: connections of another event loop did not close in time", self.name)

    async def _close_here(self) -> None:
        here = asyncio.get_running_loop()
        with anyio.move_on_after(self.patience.close_s):
            for exchange in [live for live in tuple(self._live) if live.loop is here]:
                await exchange.stop(self.closed_error())
        await self._lanes.close_here()

    def _lane(self) -> Lane[T]:
        http = http_client(
            self._url,
            self.patience,
            self._capacity,
            self._library.__name__,
            on_response=self._on_response,
            user_agent="penstock",
        )
        return Lane(http, self._sdk(http), self._capacity)


# What a connection may raise that the library does not dress.
_BROKEN = (OSError, ssl.SSLError, anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and what it was raised from, innermost last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


async def _body(response: Any, most: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > most:
            raise CallError("the answer is too long", ErrorCode.UPSTREAM_FAILED)
    return bytes(body)
