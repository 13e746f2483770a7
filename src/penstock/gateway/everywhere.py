"""`initialize` and `cleanup`, which run on every runner that has them (WIRE.md section 5)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

from penstock.errors import CallError
from penstock.gateway.runner import Runner
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import End, Open
from penstock.runtime.remote import Ready, RemoteCall


class CallEverywhere:
    """One call that runs on several runners at once; ``penstock.runtime.forwarding.Forwarded``.

    Args:
        runners: At least one.
        opening: What opens it.
        over: Told once it has stopped everywhere: on which of them it ended well, and whether on all.
    """

    def __init__(
        self, runners: Sequence[Runner], opening: Open, over: Callable[[Sequence[Runner], bool], None]
    ) -> None:
        self._calls: dict[Runner, RemoteCall] = {}
        self._refusals: list[CallError] = []
        self._over = over
        for runner in runners:
            try:
                self._calls[runner] = runner.call(opening, movable=False)
            except CallError as error:  # those before it run all the same
                self._refusals.append(error)
        if not self._calls:
            raise self._refusals[0]

    @property
    def end(self) -> End | None:
        """How it ended on the first."""
        return next(iter(self._calls.values())).end

    async def take(self) -> list[Ready]:
        """Return nothing, once it has ended everywhere.

        Raises:
            CallError: A runner was lost, or could not be told.
        """
        faults = await asyncio.gather(*map(_finish, self._calls.values()))
        for fault in (*self._refusals, *faults):
            if fault is not None:
                raise fault
        return []

    def result(self) -> End:
        """Return how it ended on the first.

        Raises:
            CallError: It failed on one of them.
        """
        ends = [call.result() for call in self._calls.values()]
        return next((end for end in ends if end.reason is not None), ends[0])

    async def stop(self, reason: CancelReason, grace_s: float) -> None:
        """Return once it has stopped everywhere."""
        try:
            await asyncio.gather(*(call.stop(reason, grace_s) for call in self._calls.values()))
        finally:
            well = [runner for runner, call in self._calls.items() if _ended_well(call)]
            self._over(well, not self._refusals and len(well) == len(self._calls))


def _ended_well(call: RemoteCall) -> bool:
    return call.end is not None and call.end.error is None and call.end.reason is None


async def _finish(call: RemoteCall) -> CallError | None:
    """See a call to its end; returns why it has none."""
    try:
        while await call.take():
            pass
    except CallError as error:
        return error
    return None


async def prepare(runner: Runner, command: str, given: bytes, window: int) -> None:
    """Bring a runner that has come to the state that is in force.

    Raises:
        CallError: It failed there.
    """
    request_id = secrets.token_hex(16)
    opening = Open(request_id=request_id, task_id=request_id, command=command, input=given, window=window)
    call = runner.call(opening, movable=False)
    fault = await _finish(call)
    if fault is not None:
        raise fault
    call.result()
