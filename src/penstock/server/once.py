"""Requests that are sent again: with an ``Idempotency-Key`` they find the calls that the first one opened.

A call that failed or was cancelled is no answer to hold on to: the request then runs anew.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import State
from penstock.protocol.dispatch import Dispatcher, LiveCall
from penstock.protocol.messages import CancelReason, OnDisconnect, Start
from penstock.server.exchange import Exchange

KEPT = 10_000
"""Keys that are remembered, the latest; their calls are known for as long as any."""
MAX_KEY = 256  # characters
GRACE_S = (
    30.0  # how long a call that can be asked for again outlives its last reader, unless it says so itself
)

_HEADER = b"idempotency-key"


@dataclass(eq=False)
class _Asked:
    """A request under its key.

    Attributes:
        digest: Of all that was asked.
        opened: The ids of its calls, once they are open.
    """

    digest: bytes
    opened: asyncio.Future[list[str]]


class Once:
    """Opens the calls of requests, and those of a request that is sent again once only.

    Args:
        dispatcher: What runs the calls.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._asked: OrderedDict[tuple[str, str], _Asked] = OrderedDict()

    async def open(self, exchange: Exchange, body: bytes, *starts: Start) -> list[LiveCall]:
        """Open a call for each of ``starts``, all or none; or return those of the same request before it.

        Raises:
            CallError: One was refused; ``conflict``, the key came with another request.
        """
        key = _key_of(exchange)
        if key is None:
            return await self._open(exchange, starts)
        named = (exchange.caller.key, key)
        streams = b"".join(b"\1" if start.is_stream else b"\0" for start in starts)  # a header may say so
        digest = hashlib.sha256(exchange.scope["path"].encode() + b"\0" + streams + b"\0" + body).digest()
        while (asked := self._asked.get(named)) is not None:
            if asked.digest != digest:
                text = f"the Idempotency-Key {key[:40]!r} came with another request before"
                raise CallError(text, ErrorCode.CONFLICT)
            if (calls := await self._again(exchange, asked)) is not None:
                return calls
            if self._asked.get(named) is asked:
                del self._asked[named]
        return await self._first(exchange, named, digest, starts)

    async def _first(
        self, exchange: Exchange, named: tuple[str, str], digest: bytes, starts: Sequence[Start]
    ) -> list[LiveCall]:
        self._asked[named] = asked = _Asked(digest, asyncio.get_running_loop().create_future())
        while len(self._asked) > KEPT:
            self._asked.popitem(last=False)
        try:
            calls = await self._open(exchange, [_patient(start) for start in starts])
        except BaseException:
            del self._asked[named]
            asked.opened.cancel()
            raise
        asked.opened.set_result([call.request_id for call in calls])
        return calls

    async def _again(self, exchange: Exchange, asked: _Asked) -> list[LiveCall] | None:
        """Return the calls of a request that was sent before; None if it has to run anew."""
        await asyncio.wait((asked.opened,))
        if asked.opened.cancelled():
            return None
        try:
            calls = [self._dispatcher.find(id_, exchange.caller) for id_ in asked.opened.result()]
        except CallError:
            return None
        failed = any(call.state in (State.FAILED, State.CANCELLED) for call in calls)
        return None if failed else calls

    async def _open(self, exchange: Exchange, starts: Sequence[Start]) -> list[LiveCall]:
        calls: list[LiveCall] = []
        try:
            for start in starts:
                calls.append(await self._dispatcher.open(start, exchange.caller))
        except BaseException:
            for call in calls:
                call.cancel(CancelReason.CALLER)
            raise
        return calls


def _key_of(exchange: Exchange) -> str | None:
    key = exchange.header(_HEADER)
    if key is None:
        return None
    if not key or len(key) > MAX_KEY:
        raise CallError(f"an Idempotency-Key has 1 to {MAX_KEY} characters", ErrorCode.INVALID_ARGUMENT)
    return key


def _patient(start: Start) -> Start:
    if start.on_disconnect is not None:
        return start
    return msgspec.structs.replace(start, on_disconnect=OnDisconnect(GRACE_S))
