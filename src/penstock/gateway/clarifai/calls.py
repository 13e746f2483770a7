"""The RPCs by which the SDK's clients call models.  Every one is a call of the hub, like all others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing

from clarifai_grpc.grpc.api.status import status_pb2

from penstock.calls.clock import Clock
from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.answers import (
    Request,
    Response,
    Speech,
    described,
    failed,
    signatures_asked,
    speech_of,
    together,
)
from penstock.gateway.clarifai.entering import ClientGone, Context, Entrance, answered, written
from penstock.gateway.clarifai.outcomes import outcomes
from penstock.gateway.clarifai.records import Records
from penstock.gateway.clarifai.targets import MODEL, Target, Targets, absent, model_labels, selected
from penstock.gateway.hub import Hub
from penstock.protocol.clarifai.names import GENERATE, POST, STREAM
from penstock.protocol.clarifai.statuses import status_of
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import MAX_TIMEOUT_S, CancelReason, OnDisconnect, Start

INPUT_WAIT_S = 0.02  # how often a call that is far behind with its input is asked whether it has caught up
_log = logging.getLogger("penstock.gateway")

EMPTY = "the method ended without giving anything, and clients of the SDK can be told of that in no other way"


class Calls:
    """Serves ``PostModelOutputs``, ``GenerateModelOutputs`` and ``StreamModelOutputs``.

    Args:
        hub: Runs the calls.
        targets: Finds the runners.
        records: Knows deployments, and which models were announced.
        entrance: Says who asks.
        clock: Tells the time.
    """

    def __init__(
        self, hub: Hub, targets: Targets, records: Records, entrance: Entrance, clock: Clock
    ) -> None:
        self._hub = hub
        self._targets = targets
        self._records = records
        self._entrance = entrance
        self._clock = clock

    async def PostModelOutputs(self, request: Request, context: Context) -> Response:
        """Answer once; of a batch, each input is answered."""
        return await answered(self._post(request, context), _failure)

    async def GenerateModelOutputs(self, request: Request, context: Context) -> None:
        """Answer as a stream; it has at least one message, and the last says what went wrong, if anything."""
        await _to_the_end(self._generate(request, context), context)

    async def StreamModelOutputs(self, requests: AsyncIterator[Request], context: Context) -> None:
        """Answer a stream of input as a stream; see ``GenerateModelOutputs``."""
        await _to_the_end(self._stream(requests, context), context)

    # -- the three -----------------------------------------------------------------------------------

    async def _post(self, request: Request, context: Context) -> Response:
        caller, target = self._entrance.caller(context), self._target(request)
        if signatures_asked(target, POST, request):
            return described(target, self._targets)
        speech = speech_of(target, self._targets, POST, request)
        lives: list[Live | CallError] = []
        try:
            for given in speech.inputs(request):
                lives.append(await self._opened(speech, given, target, caller, context))
            return together([await _answer(speech, live) for live in lives])
        finally:
            for live in lives:
                if isinstance(live, Live):
                    live.cancel(CancelReason.DISCONNECT)

    async def _generate(self, request: Request, context: Context) -> status_pb2.Status | None:
        caller, target = self._entrance.caller(context), self._target(request)
        speech = speech_of(target, self._targets, GENERATE, request)
        (given,) = speech.inputs(request)
        live = await self._open(speech, given, target, caller, context)
        return await _written(speech, live, context)

    async def _stream(self, requests: AsyncIterator[Request], context: Context) -> status_pb2.Status | None:
        caller = self._entrance.caller(context)
        first = await anext(requests, None)
        if first is None:
            raise CallError("the stream of input has ended without an input", ErrorCode.INVALID_ARGUMENT)
        target = self._target(first)
        speech = speech_of(target, self._targets, STREAM, first)
        (given,) = speech.inputs(first)
        live = await self._open(speech, given, target, caller, context, more_input=True)
        tasks, refused = TaskOwner(), _Refusal()
        tasks.start(self._feed(speech, live, requests, refused), name=f"input of {live.request_id}")
        try:
            status = await _written(speech, live, context)
        finally:
            await tasks.aclose()
        return status if refused.error is None else _status(refused.error, live)

    # -- calls ---------------------------------------------------------------------------------------

    def _target(self, request: Request) -> Target:
        model = model_labels(request.user_app_id, request.model_id, request.version_id)
        where = {**self._records.labels_of(request.runner_selector.deployment), **selected(request)}
        target = self._targets.find(model, where)
        if target is not None:
            return target
        if self._records.has_model(request.user_app_id, request.model_id) or self._targets.knows(model):
            text = f"no runner of the model {model[MODEL][:100]!r} is connected that the request may go to"
            raise CallError(text, ErrorCode.UNAVAILABLE, retry_after_s=5)
        raise absent(model)

    async def _opened(
        self, speech: Speech, given: bytes, target: Target, caller: Caller, context: Context
    ) -> Live | CallError:
        """Open one call of a batch; what it is refused with is the answer to its input."""
        try:
            return await self._open(speech, given, target, caller, context)
        except CallError as error:
            return error

    async def _open(
        self,
        speech: Speech,
        given: bytes,
        target: Target,
        caller: Caller,
        context: Context,
        *,
        more_input: bool = False,
    ) -> Live:
        start = Start(
            command=speech.command,
            input=given,
            is_stream=True,
            on_disconnect=OnDisconnect(0.0),
            timeout_s=_budget(context),
            more_input=more_input,
            route=target.route,
        )
        return await self._hub.open(start, caller)

    async def _feed(
        self, speech: Speech, live: Live, requests: AsyncIterator[Request], refused: _Refusal
    ) -> None:
        """Hand a call its further input; what of it is refused ends it, as nobody else would be told."""
        try:
            async for request in requests:
                await self._hand_on(live, speech.further(request))
            if live.ending is None:
                live.end_input()
        except CallError as error:
            if live.ending is None:
                refused.error = error
                live.cancel(CancelReason.CALLER)
        except Exception:  # noqa: BLE001  a message that cannot be parsed; the call would wait for more
            refused.error = CallError("the stream of input broke", ErrorCode.INVALID_ARGUMENT)
            live.cancel(CancelReason.CALLER)

    async def _hand_on(self, live: Live, item: bytes) -> None:
        while live.ending is None:
            try:
                live.send(item)
                return
            except CallError as error:
                if error.code is not ErrorCode.RESOURCE_EXHAUSTED:
                    raise
            room = asyncio.Event()
            self._clock.call_later(INPUT_WAIT_S, room.set)
            await room.wait()


class _Refusal:
    """What of a call's input was refused."""

    error: CallError | None = None


async def _to_the_end(work: Awaitable[status_pb2.Status | None], context: Context) -> None:
    """Serve a stream, and say last what is left to be said."""
    try:
        status = await answered(work, _as_it_is)
        if status is not None:
            await written(context, Response(status=status))
    except ClientGone as error:
        _log.debug("a client of Clarifai's SDK has gone: %r", error.__cause__)


async def _answer(speech: Speech, live: Live | CallError) -> Response:
    """Return what one input is answered with."""
    if isinstance(live, CallError):
        return failed(live)
    try:
        async with aclosing(outcomes(live)) as seen:
            async for outcome in seen:
                if outcome.data:
                    return speech.response(outcome, live.request_id)
    except CallError as error:
        return failed(error, live.request_id)
    return failed(CallError(EMPTY, ErrorCode.COMMAND_FAILED), live.request_id)


async def _written(speech: Speech, live: Live, context: Context) -> status_pb2.Status | None:
    """Write what a call gives; return what is to be said after it."""
    empty = True
    try:
        async with aclosing(outcomes(live)) as seen:
            async for outcome in seen:
                if outcome.data:
                    await written(context, speech.response(outcome, live.request_id))
                    empty = False
    except CallError as error:
        return _status(error, live)
    return _status(CallError(EMPTY, ErrorCode.COMMAND_FAILED), live) if empty else None


def _status(error: CallError, live: Live) -> status_pb2.Status:
    return status_of(error, live.request_id)


def _budget(context: Context) -> float | None:
    left = context.time_remaining()
    return None if left is None or left > MAX_TIMEOUT_S else max(left, 0.001)


def _failure(status: status_pb2.Status) -> Response:
    return Response(status=status)


def _as_it_is(status: status_pb2.Status) -> status_pb2.Status | None:
    return status
