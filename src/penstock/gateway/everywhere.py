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
        done: Told when it has ended well on all of them.
    """

    def __init__(self, runners: Sequence[Runner], opening: Open, done: Callable[[], None]) -> None:
        self._calls = [runner.call(opening, movable=False) for runner in runners]
        self._done = done

    @property
    def end(self) -> End | None:
        """How it ended on the first."""
        return self._calls[0].end

    async def take(self) -> list[Ready]:
        """Return nothing, once it has ended everywhere.

        Raises:
            CallError: A runner was lost.
        """
        faults = await asyncio.gather(*map(_finish, self._calls))
        for fault in faults:
            if fault is not None:
                raise fault
        return []

    def result(self) -> End:
        """Return how it ended on the first.

        Raises:
            CallError: It failed on one of them.
        """
        ends = [call.result() for call in self._calls]
        cut = next((end for end in ends if end.reason is not None), None)
        if cut is None:
            self._done()
        return cut or ends[0]

    async def stop(self, reason: CancelReason, grace_s: float) -> None:
        """Return once it has stopped everywhere."""
        await asyncio.gather(*(call.stop(reason, grace_s) for call in self._calls))


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
