"""Pumps a call's frames into an HTTP response.

A transport reads, writes, and turns a client's departure into a detached reader; what that does to the
call is the call's own affair.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from penstock.errors import FAULTS, CallError
from penstock.protocol.call import Ending, State
from penstock.protocol.codec import SSE_KEEPALIVE, ndjson, ndjson_keepalive, sse
from penstock.protocol.dispatch import Batch, FrameReader, LiveCall
from penstock.protocol.messages import error_envelope
from penstock.server.exchange import Exchange, Header, advice
from penstock.server.keepalive import KeepAlive

ACCEPTED = 0  # number of the frame that an answer follows


class Readable(Protocol):
    """What has numbered lines: a call, or what else can be followed."""

    @property
    def task_id(self) -> str | None:
        """What the line says that it belongs to where reading breaks off."""
        ...

    def reader(self, after: int = -1) -> AbstractAsyncContextManager[FrameReader]:
        """See ``LiveCall.reader``."""
        ...


class StreamForm(NamedTuple):
    """How a stream stands on the wire."""

    headers: tuple[Header, ...]
    join: Callable[[Batch], bytes]
    envelope: Callable[[bytes], bytes]  # wraps a line that is no frame of the call
    keepalive: Callable[[float], bytes]  # a sign of life that is no frame, at a Unix time


_UNBUFFERED: tuple[Header, ...] = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
NDJSON = StreamForm(
    ((b"content-type", b"application/x-ndjson"), *_UNBUFFERED),
    lambda batch: ndjson(batch.lines),
    lambda line: line + b"\n",
    ndjson_keepalive,
)
SSE = StreamForm(
    ((b"content-type", b"text/event-stream"), *_UNBUFFERED),
    lambda batch: sse(batch.first_seq, batch.lines),
    lambda line: b"data: " + line + b"\n\n",
    lambda _: SSE_KEEPALIVE,
)


class Pump:
    """Writes calls to HTTP responses.

    Args:
        keepalive: Looks after silent streams.
    """

    def __init__(self, keepalive: KeepAlive) -> None:
        self._keepalive = keepalive

    async def stream(self, exchange: Exchange, live: Readable, form: StreamForm, after: int = -1) -> None:
        """Write the frames behind number ``after`` as they come, until the terminal one.

        Raises:
            CallError: There are no such frames, or no longer; nothing was written.
        """
        async with live.reader(after) as reader:
            exchange.outlet.on_gone(reader.close)
            try:
                await self._write(exchange, reader, form, live.task_id)
            finally:
                exchange.outlet.forget_gone()

    async def _write(
        self, exchange: Exchange, reader: FrameReader, form: StreamForm, task_id: str | None
    ) -> None:
        await exchange.start(200, form.headers)
        more = True
        try:
            with self._keepalive.watching(reader) as pulse:
                async for batch in reader:
                    pulse.quiet = 0
                    part = form.join(batch) if batch.lines else form.keepalive(exchange.wall())
                    more = batch.ending is None
                    await exchange.outlet.write(part, more=more)
            if more:  # read from behind the end: there was nothing to write
                await exchange.outlet.write(b"", more=False)
        except CallError as error:  # the log was trimmed past this reader
            line = form.envelope(error_envelope(error, exchange.wall(), task_id=task_id))
            await exchange.outlet.write(line, more=False)

    async def answer(self, exchange: Exchange, live: LiveCall) -> None:
        """Wait for the terminal frame and write it, with the status of its outcome."""
        async with live.reader(ACCEPTED) as reader:
            exchange.outlet.on_gone(reader.close)
            try:
                async for batch in reader:
                    if batch.ending is not None:
                        headers = advice(batch.ending.error)
                        await exchange.reply(status_of(batch.ending), batch.lines[-1], headers)
            finally:
                exchange.outlet.forget_gone()


def status_of(ending: Ending) -> int:
    """Return the HTTP status of a non-streaming answer."""
    if ending.error is not None:
        return FAULTS[ending.error.code].http
    return 200 if ending.state is State.COMPLETED else 499
