"""One call on its way to a runner, and to another one if the first is lost before its first item."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from penstock.calls.inputs import MAX_WAITING
from penstock.errors import CallError, ErrorCode
from penstock.gateway.registry import Slot
from penstock.gateway.runner import Runner, Stranded
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import End, Input, InputEnd, Open
from penstock.runtime.remote import Ready, RemoteCall

_parse = msgspec.json.Decoder(msgspec.Raw).decode


class RelayedInput:
    """What a caller sends while its call runs; kept until the call has its runner."""

    def __init__(self) -> None:
        self._request_id = ""
        self._runner: Runner | None = None
        self._waiting: deque[bytes] = deque()
        self._ended = False

    def send(self, item: bytes) -> None:
        """See ``Inputs.send``; the runner sees whether it is what the command takes."""
        if self._ended:
            raise CallError("the input stream has ended", ErrorCode.FAILED_PRECONDITION)
        try:
            _parse(item)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CallError(f"data: not JSON: {error}", ErrorCode.INVALID_ARGUMENT) from error
        if self._runner is not None:
            self._runner.send(Input(request_id=self._request_id, item=item))
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(item)
        else:
            text = f"{MAX_WAITING} items wait for a runner; send more slowly"
            raise CallError(text, ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=1)

    def end(self) -> None:
        """See ``Inputs.end``."""
        if not self._ended:
            self._ended = True
            self._tell_end()

    def begin(self, runner: Runner, request_id: str) -> None:
        """Send from now on to ``runner``."""
        self._runner, self._request_id = runner, request_id
        while self._waiting:
            runner.send(Input(request_id=request_id, item=self._waiting.popleft()))
        if self._ended:
            self._tell_end()

    def _tell_end(self) -> None:
        if self._runner is not None:
            self._runner.send(InputEnd(request_id=self._request_id))


class RoutedCall:
    """A call that runs on a runner; ``penstock.runtime.forwarding.Forwarded``.

    Args:
        slot: Its place.
        opening: Returns what opens it.
        next_slot: Returns a place on another runner; None where the call must not move.
        inputs: What its caller sends while it runs.
    """

    def __init__(
        self,
        slot: Slot,
        opening: Callable[[], Open],
        next_slot: Callable[[Runner], Awaitable[Slot]] | None,
        inputs: RelayedInput | None,
    ) -> None:
        self._slot = slot
        self._opening = opening
        self._next_slot = next_slot
        self._inputs = inputs
        self._call = self._open(movable=next_slot is not None)

    @property
    def end(self) -> End | None:
        """See ``RemoteCall.end``."""
        return self._call.end

    async def take(self) -> list[Ready]:
        """See ``RemoteCall.take``."""
        while True:
            try:
                return await self._call.take()
            except Stranded:
                if self._next_slot is None:
                    raise
                next_slot, self._next_slot = self._next_slot, None  # it moves once
                former = self._slot.runner
                self._slot.release()
                self._slot = await next_slot(former)
                self._call = self._open(movable=False)

    def result(self) -> End:
        """See ``RemoteCall.result``."""
        return self._call.result()

    async def stop(self, reason: CancelReason, grace_s: float) -> None:
        """See ``RemoteCall.stop``; its place is free once it has stopped."""
        try:
            await self._call.stop(reason, grace_s)
        finally:
            self._slot.release()

    def _open(self, *, movable: bool) -> RemoteCall:
        try:
            opening = self._opening()
            call = self._slot.runner.call(opening, movable=movable)
        except BaseException:
            self._slot.release()
            raise
        if self._inputs is not None:
            self._inputs.begin(self._slot.runner, opening.request_id)
        return call
