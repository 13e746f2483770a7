"""Who asks, by the metadata of an RPC; and how an RPC is answered whatever goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from clarifai_grpc.grpc.api import service_pb2
from clarifai_grpc.grpc.api.status import status_pb2
from google.protobuf import message_factory

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.guard import Guard, metadata_of, token_in
from penstock.protocol.clarifai.statuses import status_of
from penstock.protocol.dispatch import Caller

REQUEST_IDS = ("x-request-id", "x-clarifai-request-id-prefix")
MAX_ID = 128

R = TypeVar("R")

_log = logging.getLogger("penstock.gateway")


class Context(Protocol):
    """What of an RPC's context is used here."""

    def invocation_metadata(self) -> Any:
        """Return pairs of names and values, or None."""
        ...

    def time_remaining(self) -> float | None:
        """Return the seconds to the RPC's deadline; None where it has none."""
        ...

    async def write(self, message: Any) -> None:
        """Send a message of a stream."""
        ...


class ClientGone(Exception):
    """Nobody listens to an RPC any more."""


class Entrance:
    """Says who asks.

    Args:
        guard: Lets them in.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def caller(self, context: Context) -> Caller:
        """Return who may run commands.

        Raises:
            CallError: ``unauthenticated`` or ``permission_denied``.
        """
        metadata = metadata_of(context.invocation_metadata())
        return self._guard.enter(token_in(metadata), _asked(metadata))

    def member(self, context: Context) -> Caller:
        """Return who may look at models, and make them: a caller or a runner.

        Raises:
            CallError: ``unauthenticated`` or ``permission_denied``.
        """
        metadata = metadata_of(context.invocation_metadata())
        token, asked = token_in(metadata), _asked(metadata)
        try:
            return self._guard.enter(token, asked)
        except CallError as error:
            if error.code is not ErrorCode.PERMISSION_DENIED:
                raise
        return Caller(key=self._guard.enter_host(token).key, correlation_id=asked.correlation_id)


async def answered(work: Awaitable[R], fail: Callable[[status_pb2.Status], R]) -> R:
    """Return what comes of ``work``, or what ``fail`` makes of its failure: an error that got out would be
    told as UNKNOWN, which says nothing."""
    try:
        return await work
    except ClientGone:
        raise
    except CallError as error:
        return fail(status_of(error))
    except Exception:  # noqa: BLE001  the top of a link: what is a bug here is told as one
        _log.exception("an RPC of Clarifai's failed")
        return fail(status_of(CallError("internal error; the gateway's log says more")))


async def written(context: Context, message: Any) -> None:
    """Send a message of a stream.

    Raises:
        ClientGone: It cannot be sent; the task of the RPC is about to be cancelled.
    """
    try:
        await context.write(message)
    except Exception as error:  # grpc raises what its core gives, under no public name
        raise ClientGone from error


def answer_of(rpc: str) -> Any:
    """Return the type of an RPC's answer."""
    method = service_pb2.DESCRIPTOR.services_by_name["V2"].methods_by_name[rpc]
    return message_factory.GetMessageClass(method.output_type)


def _asked(metadata: dict[str, str]) -> Caller:
    given = next((metadata[name] for name in REQUEST_IDS if name in metadata), "")
    fits = given.isascii() and given.isprintable() and len(given) <= MAX_ID
    return Caller(correlation_id=given if fits else "", trace_parent=metadata.get("traceparent"))
