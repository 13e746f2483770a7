"""One call on its way to a runner, and to another one if the first is lost before its first item."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from penstock.calls.inputs import MAX_WAITING
from penstock.errors import CallError, ErrorCode, LocalProtocolError
from penstock.gateway.registry import Slot
from penstock.gateway.runner import Runner, Stranded
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import Cancel, End, Input, InputEnd, Open
from penstock.runtime.remote import Ready, RemoteCall

_parse = msgspec.json.Decoder(msgspec.Raw).decode


class RelayedInput:
    """What a caller sends while its call runs; kept until the call has its runner."""

    def __init__(self) -> None:
        self._request_id = ""
        self._runner: Runner | None = None
        self._waiting: deque[bytes] = deque()
        self._behind = 0  # items that the command has not taken
        self._counted = True
        self._ended = False

    def send(self, item: bytes) -> None:
        """See ``Inputs.send``; the runner sees whether it is what the command takes."""
        if self._ended:
            raise CallError("the input stream has ended", ErrorCode.FAILED_PRECONDITION)
        try:
            _parse(item)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CallError(f"data: not JSON: {error}", ErrorCode.INVALID_ARGUMENT) from error
        if self._counted and self._behind >= MAX_WAITING:
            raise _too_fast(f"{MAX_WAITING} items wait to be taken")
        if self._runner is None:
            self._waiting.append(item)
        else:
            self._pass_on(self._runner, item)
        self._behind += 1

    def end(self) -> None:
        """See ``Inputs.end``."""
        if not self._ended:
            self._ended = True
            self._tell_end()

    def begin(self, runner: Runner, opening: Open) -> None:
        """Send from now on to ``runner``.

        Raises:
            CallError: It takes no more now.
        """
        self._runner, self._request_id = runner, opening.request_id
        self._counted = runner.offers[opening.command].counts_input
        while self._waiting:
            self._pass_on(runner, self._waiting.popleft())
        if self._ended:
            self._tell_end()

    def taken(self, count: int) -> None:
        """Hear that the command has taken so many more."""
        self._behind = max(0, self._behind - count)

    def _pass_on(self, runner: Runner, item: bytes) -> None:
        try:
            runner.send(Input(request_id=self._request_id, item=item))
        except LocalProtocolError as error:
            raise _too_fast(f"too much waits for the runner {runner.name}") from error

    def _tell_end(self) -> None:
        if self._runner is not None:
            self._runner.send(InputEnd(request_id=self._request_id))


def _too_fast(why: str) -> CallError:
    return CallError(f"{why}; send more slowly", ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=1)


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
            call.on_input_taken = self._inputs.taken
            try:
                self._inputs.begin(self._slot.runner, opening)
            except CallError as error:
                self._slot.runner.send(Cancel(request_id=opening.request_id, reason=CancelReason.RUNNER_LOST))
                call.lose(error)
        return call
