"""One item, as the app processes it: a call, or for a batch one call after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock.calls.clock import Clock
from penstock.calls.live import Live
from penstock.calls.waiting import wait_stopped
from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import State
from penstock.protocol.clarifai import values
from penstock.protocol.clarifai.old_format import is_old
from penstock.protocol.clarifai.statuses import status_of, success
from penstock.protocol.dispatch import Batch, Caller
from penstock.protocol.messages import CancelReason, OnDisconnect, Start
from penstock.runner.clarifai.conversation import Work
from penstock.runner.clarifai.methods import Method, Methods, asks_for_signatures
from penstock.runtime.app import App

MAX_OUTPUT = 128 * 1024 * 1024
"""Bytes of an output, as it is sent: what servers take."""
INPUT_WAIT_S = 0.02  # how often a command that is far behind with its input is asked whether it has caught up

_SUCCESS = success()

Response = service_pb2.MultiOutputResponse
Send = Callable[[Response], Awaitable[None]]


class _Tokens(msgspec.Struct, frozen=True):
    """What an output says of an engine's work."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


_NONE = _Tokens()


class _Seen(msgspec.Struct):
    """What a frame of this process's own log says to a server."""

    status: str
    data: msgspec.Raw = msgspec.Raw()
    metrics: _Tokens = _NONE


@dataclass(frozen=True)
class Workshop:
    """What items are processed with.

    Attributes:
        app: Runs the calls; it is started.
        methods: What it has.
        clock: Tells the time.
        max_output: Bytes that an output may have.
    """

    app: App
    methods: Methods
    clock: Clock
    max_output: int = MAX_OUTPUT


class Item:
    """An item that was taken.

    Args:
        workshop: Where it is processed.
        work: The item.
    """

    def __init__(self, workshop: Workshop, work: Work) -> None:
        self.item_id = work.item.id
        self._workshop = workshop
        self._request = work.item.post_model_outputs_request
        self._method_type = work.item.processing_info.runner_method_type
        self._caller = Caller(key=self.item_id, correlation_id=work.request_id)
        self._method: Method | None = None
        self._live: Live | None = None
        self._cancelled: CancelReason | None = None
        self._failure: CallError | None = None
        self._old = any(is_old(given.data) for given in self._request.inputs)

    @property
    def streams(self) -> bool:
        """Whether its outputs come one by one."""
        return bool(self._method_type != resources_pb2.UNARY_UNARY)

    def cancel(self, reason: CancelReason) -> None:
        """Cut it short; the first reason stays."""
        if self._cancelled is None:
            self._cancelled = reason
            if self._live is not None:
                self._live.cancel(reason)

    def fail(self, error: CallError) -> None:
        """Cut it short because of what the server sent."""
        if self._failure is None and self._cancelled is None:
            self._failure = error
            self.cancel(CancelReason.CALLER)

    # -- input ---------------------------------------------------------------------------------------

    async def take(self, request: service_pb2.PostModelOutputsRequest) -> None:
        """Hand on a further item of the input; returns once the command has room for it.

        One that is refused ends the item, as nobody else would be told.
        """
        live, method = self._live, self._method
        if live is None or method is None:
            return
        try:
            await self._hand_on(live, values.item_from_request(request, method.signature))
        except CallError as error:
            if live.ending is None:
                self.fail(error)

    def end_input(self) -> None:
        """Say that no more input comes."""
        if self._live is not None and self._live.ending is None:
            self._live.end_input()

    async def _hand_on(self, live: Live, text: bytes) -> None:
        while live.ending is None and self._cancelled is None:
            try:
                live.send(text)
                return
            except CallError as error:
                if error.code is not ErrorCode.RESOURCE_EXHAUSTED:
                    raise
            room = asyncio.Event()
            self._workshop.clock.call_later(INPUT_WAIT_S, room.set)
            await room.wait()

    # -- output --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open its call if its input may follow; what is wrong with it is told by ``run``."""
        if self._cancelled is not None or asks_for_signatures(self._request):
            return
        try:
            self._method = self._workshop.methods.find(self._request, self._method_type)
            if self.streams:
                self._open(self._only_input())
        except CallError as error:
            self._failure = self._failure or error

    async def run(self, send: Send) -> None:
        """Process it, and send what comes of it, to the last message.

        Raises:
            Exception: Whatever ``send`` raises; the item is cut short.
        """
        try:
            try:
                self._raise_if_cut()
                await self._process(send)
            except CallError as error:
                told = self._failure or error
                await send(Response(status=status_of(told)))
        except BaseException:
            self.cancel(CancelReason.DISCONNECT)
            raise

    async def stopped(self) -> None:
        """Return once nothing of it runs any more."""
        if self._live is not None:
            await self._finish(self._live)

    async def _process(self, send: Send) -> None:
        if asks_for_signatures(self._request):
            await send(self._workshop.methods.describe())
        elif self._live is not None:
            await self._stream(self._live, send)
        else:
            await self._answer(send)

    async def _answer(self, send: Send) -> None:
        response = Response(status=_SUCCESS)
        for given in self._request.inputs:
            self._raise_if_cut()
            live = self._open(given)
            async with aclosing(self._frames(live)) as frames:
                async for seen in frames:
                    if seen.status == "completed":
                        self._add_output(response, seen)
            self._raise_unless_completed(live)
            await self._finish(live)  # before the next of a batch: it goes by the same id
        self._check_size(response)
        await send(response)

    async def _stream(self, live: Live, send: Send) -> None:
        async with aclosing(self._frames(live)) as frames:
            async for seen in frames:
                if seen.status == "streaming" or not self._method_streams:
                    self._raise_if_cut()  # what is dropped here may be the rest of a call that has completed
                    response = Response(status=_SUCCESS)
                    self._add_output(response, seen)
                    self._check_size(response)
                    await send(response)
        self._raise_unless_completed(live)

    async def _frames(self, live: Live) -> AsyncGenerator[_Seen, None]:
        """Yield the frames that say something of outputs."""
        async with live.reader() as reader:
            async for batch in reader:
                for line in batch.lines:
                    seen = _read_frame(line)
                    if seen.status in ("streaming", "completed"):
                        yield seen
                _forget_read(live, batch)

    # -- inside --------------------------------------------------------------------------------------

    @property
    def _method_streams(self) -> bool:
        return self._method is not None and self._method.offer.streaming

    def _only_input(self) -> resources_pb2.Input:
        if len(self._request.inputs) != 1:
            text = f"it has {len(self._request.inputs)} inputs; a method that streams takes exactly one"
            raise CallError(text, ErrorCode.INVALID_ARGUMENT)
        only: resources_pb2.Input = self._request.inputs[0]
        return only

    def _open(self, given: resources_pb2.Input) -> Live:
        assert self._method is not None
        method = self._method
        start = Start(
            command=method.offer.name,
            input=values.json_from_input(given, method.signature),
            task_id=None,
            is_stream=True,
            on_disconnect=OnDisconnect(None),
            more_input=self._method_type == resources_pb2.STREAMING_STREAMING,
        )
        self._live = self._workshop.app.accept(start, self._caller, self.item_id)
        return self._live

    def _add_output(self, response: Response, seen: _Seen) -> None:
        assert self._method is not None
        text, output = bytes(seen.data) or b"null", response.outputs.add()
        output.status.code = codes.SUCCESS
        output.data.CopyFrom(values.to_output(text, self._method.signature, old=self._old))
        if seen.metrics is not _NONE:
            output.prompt_tokens = seen.metrics.prompt_tokens
            output.completion_tokens = seen.metrics.completion_tokens
            output.cached_tokens = seen.metrics.cached_tokens

    def _check_size(self, response: Response) -> None:
        size, most = response.ByteSize(), self._workshop.max_output
        if size > most:
            self.cancel(CancelReason.CALLER)
            raise CallError(f"an output has {size} bytes; at most {most} are sent", ErrorCode.TOO_LARGE)

    def _raise_if_cut(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._cancelled is CancelReason.DRAIN:
            raise CallError("the runner leaves; try again", ErrorCode.UNAVAILABLE)
        if self._cancelled is not None:
            raise CallError("the item was cancelled", ErrorCode.CANCELLED)

    def _raise_unless_completed(self, live: Live) -> None:
        ending = live.ending
        if ending is None or ending.state is State.CANCELLED:
            raise CallError("the item was cancelled", ErrorCode.CANCELLED)
        if ending.error is not None:
            raise ending.error

    async def _finish(self, live: Live) -> None:
        """Return once nothing of a call runs any more, and forget it: its id may come again in a batch."""
        if live.ending is None:
            live.cancel(self._cancelled or CancelReason.DISCONNECT)
        await wait_stopped(live, however_long=True)
        self._workshop.app.forget(live)
        self._live = None


def _forget_read(live: Live, batch: Batch) -> None:
    log = live.log
    if log.ending is None:
        log.trim(log.size - log.position(batch.first_seq + len(batch.lines) - 1))


_read_frame: Any = msgspec.json.Decoder(_Seen).decode
