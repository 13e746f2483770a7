"""Routes about calls that were opened already: list, look, cancel, read again."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Dispatcher
from penstock.protocol.messages import CancelReason
from penstock.server.exchange import Exchange
from penstock.server.pump import Pump
from penstock.server.requests import stream_form


class TaskRoutes:
    """`/tasks` and below.

    Args:
        dispatcher: Where the calls are.
        pump: Writes their frames.
    """

    def __init__(self, dispatcher: Dispatcher, pump: Pump) -> None:
        self._dispatcher = dispatcher
        self._pump = pump

    async def list(self, exchange: Exchange) -> None:
        """`GET /tasks`: this caller's calls."""
        records = self._dispatcher.tasks(exchange.caller)
        body = {"tasks": records, "timestamp": round(exchange.wall(), 3)}
        await exchange.reply(200, msgspec.json.encode(body))

    async def show(self, exchange: Exchange, task_id: str) -> None:
        """`GET /tasks/{id}`: one call's status, result and times."""
        record = self._dispatcher.find(task_id, exchange.caller).record()
        await exchange.reply(200, msgspec.json.encode(record))

    async def cancel(self, exchange: Exchange, task_id: str) -> None:
        """`POST /tasks/{id}/cancel` and `DELETE /tasks/{id}`; idempotent."""
        outcome = await self._dispatcher.cancel(task_id, CancelReason.CALLER, exchange.caller)
        status = self._dispatcher.find(task_id, exchange.caller).record().status
        body = {"task_id": task_id, "outcome": outcome, "status": status}
        await exchange.reply(200, msgspec.json.encode(body))

    async def events(self, exchange: Exchange, task_id: str) -> None:
        """`GET /tasks/{id}/events?after=N`: the frames behind number N (or all), then live ones."""
        live = self._dispatcher.find(task_id, exchange.caller)
        form, after = stream_form(exchange), asked_after(exchange)
        if exchange.scope["method"] == "HEAD":
            live.reader(after)  # refused as a GET would be, but nobody reads, and nobody leaves
            await exchange.start(200, form.headers)
            await exchange.outlet.write(b"", more=False)
        else:
            await self._pump.stream(exchange, live, form, after)


def asked_after(exchange: Exchange) -> int:
    """Return the number behind which a stream is to be read, -1 for all of it.

    Raises:
        CallError: ``invalid_argument``: it is no number.
    """
    query = parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    text = query["after"][-1] if "after" in query else exchange.header(b"last-event-id")
    if text is None:
        return -1
    # int() would take '1_000' and digits of other scripts.
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) < 16):
        raise CallError(f"after is the number of a frame, not {text[:40]!r}", ErrorCode.INVALID_ARGUMENT)
    return int(text)
