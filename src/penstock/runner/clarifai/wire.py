"""One stream of `V2/ProcessRunnerItems`, whatever gRPC makes of its end."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
from clarifai_grpc.grpc.api import service_pb2

from penstock.runner.clarifai.identity import Metadata, Said

METHOD = "/clarifai.api.V2/ProcessRunnerItems"

Heard = service_pb2.MultiRunnerItemResponse
_GONE = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)


class StreamLost(Exception):
    """The stream has ended, by whatever; ``why`` is for people."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Stream:
    """Messages out and in; made, it is being opened.

    Args:
        channel: Where to.
        metadata: Sent at its opening.

    Raises:
        StreamLost: The channel is closed.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self._cancelled = False
        opening = channel.stream_stream(
            METHOD, request_serializer=Said.SerializeToString, response_deserializer=Heard.FromString
        )
        try:
            self._call: Any = opening(metadata=metadata)
        except _GONE as error:
            raise StreamLost(_reason(error)) from error

    async def send(self, said: Said) -> None:
        """Send a message; waits while the server is behind.

        Raises:
            StreamLost: It has ended.
        """
        try:
            await self._call.write(said)
        except _GONE as error:
            raise StreamLost(_reason(error)) from error
        except asyncio.CancelledError:
            raise self._lost_or_cancelled() from None

    async def receive(self) -> Heard | None:
        """Return the next message; None when the server has ended the stream in good order.

        Raises:
            StreamLost: It has ended otherwise.
        """
        try:
            message = await self._call.read()
        except _GONE as error:
            raise StreamLost(_reason(error)) from error
        except asyncio.CancelledError:
            raise self._lost_or_cancelled() from None
        return message if isinstance(message, Heard) else None

    async def half_close(self) -> None:
        """Say that nothing more is sent.

        Raises:
            StreamLost: It has ended.
        """
        try:
            await self._call.done_writing()
        except _GONE as error:
            raise StreamLost(_reason(error)) from error
        except asyncio.CancelledError:
            raise self._lost_or_cancelled() from None

    def cancel(self) -> None:
        """End it now; nothing if it has ended."""
        self._cancelled = True
        self._call.cancel()

    def _lost_or_cancelled(self) -> BaseException:
        """Tell a stream that was ended here from a task that was cancelled: gRPC makes them one."""
        return StreamLost("it was ended here") if self._cancelled else asyncio.CancelledError()


def _reason(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"[:500]
    return str(error)[:500] or type(error).__name__
