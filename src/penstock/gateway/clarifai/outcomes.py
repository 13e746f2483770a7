"""What becomes of a call, as those see it who answer a client with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.statuses import StatusError
from penstock.protocol.dispatch import LiveCall
from penstock.protocol.messages import CancelReason


class Outcome(msgspec.Struct, frozen=True):
    """An item or an answer.

    Attributes:
        data: JSON; empty at the end of a stream.
        metrics: What was measured, at the end.
    """

    status: str
    data: msgspec.Raw = msgspec.Raw()
    metrics: dict[str, Any] = {}
    error: str = ""
    code: str = ""
    reason: str = ""


async def outcomes(live: LiveCall) -> AsyncGenerator[Outcome, None]:
    """Yield the items of a call, and how it completed; one that is read no longer is cancelled.

    Raises:
        CallError: It failed, or was cancelled.
    """
    try:
        async with live.reader() as reader:
            async for batch in reader:
                for line in batch.lines:
                    outcome = _read(line)
                    if outcome.status in ("streaming", "completed"):
                        yield outcome
                    elif outcome.status in ("error", "cancelled"):
                        raise _failure(outcome)
    finally:
        live.cancel(CancelReason.DISCONNECT)  # one that has ended is not changed


def _failure(outcome: Outcome) -> CallError:
    if outcome.status == "cancelled":
        code = ErrorCode.DEADLINE_EXCEEDED if outcome.reason == "deadline" else ErrorCode.CANCELLED
        return CallError(f"the call was cancelled ({outcome.reason})", code)
    if outcome.code == ErrorCode.UNAVAILABLE.value:
        # How far it came nobody knows, so this is none of those that the SDK asks for again by itself.
        return StatusError(outcome.error, ErrorCode.UNAVAILABLE, codes.RUNNER_PROCESSING_FAILED)
    return CallError(outcome.error, outcome.code)


_read = msgspec.json.Decoder(Outcome).decode
