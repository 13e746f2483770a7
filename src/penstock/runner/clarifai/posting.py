"""Posting what a task of annotation has found, to the API that the runner was pointed at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2
from google.protobuf.message import Message

from penstock.calls.clock import Clock
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.statuses import error_of, name_of
from penstock.runner.pausing import pause
from penstock.runtime.supervisor import Backoff

POST_S = 30.0  # how long an answer may take
ATTEMPTS = 6
BACKOFF_S = 0.5  # most before the second attempt; doubled from one to the next
BACKOFF_MOST_S = 8.0

_FINAL = frozenset(
    (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    )
)
"""After these nothing is asked again."""
_MAY_PASS = frozenset((ErrorCode.INTERNAL, ErrorCode.UPSTREAM_FAILED, ErrorCode.DEADLINE_EXCEEDED))
"""A batch does no harm that comes a second time, so it is sent again after these, too."""
_WRITTEN = frozenset((codes.ZERO, codes.SUCCESS, codes.DATABASE_DUPLICATE_KEY))

Annotation = resources_pb2.Annotation
Rpc = Callable[..., Awaitable[Any]]


class Posted(NamedTuple):
    """How many annotations of a batch were taken, and how many were not."""

    taken: int
    refused: int


class PostFailed(CallError):
    """The API did not take something, however often it was asked; the code is that of the last answer."""


class Poster:
    """Speaks to the API for one task.

    Args:
        channel: Where it is; closed with this.
        authorization: What the task may be posted with; it is sent there and nowhere else.
        user_app: Whose annotations they are.
        clock: Tells the time.
        chance: A number from 0 to 1, for the waits between attempts.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        authorization: str,
        user_app: resources_pb2.UserAppIDSet,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Key {authorization}"),)
        self._user_app = user_app
        self._clock = clock
        self._chance = chance
        self._tasks = TaskOwner()
        self._never = asyncio.Event()

    async def annotations(self, batch: Sequence[Annotation]) -> Posted:
        """Post a batch; what fails for a reason that may pass is tried again.

        Raises:
            PostFailed: Nothing of it was taken.
        """
        request = service_pb2.PostAnnotationsRequest(user_app_id=self._user_app, annotations=batch)
        answer = await self._post(self._rpc("PostAnnotations", service_pb2.MultiAnnotationResponse), request)
        statuses = [one.status.code for one in answer.annotations]
        refused = sum(not (code in _WRITTEN or _is_annotations(code)) for code in statuses)
        return Posted(len(batch) - refused, refused)

    async def metrics(self, metrics: resources_pb2.RunnerReplicaTaskMetrics) -> None:
        """Post how a task goes, once.

        Raises:
            PostFailed: It was not taken.
        """
        request = service_pb2.PostRunnerReplicaTaskMetricsRequest(
            user_app_id=self._user_app, runner_replica_task_metrics=[metrics]
        )
        await self._once(self._rpc("PostRunnerReplicaTaskMetrics", status_pb2.BaseResponse), request)

    async def aclose(self) -> None:
        """Hang up."""
        await self._tasks.aclose()
        await self._channel.close()

    def _rpc(self, name: str, answer: Any) -> Rpc:
        made: Rpc = self._channel.unary_unary(
            f"/clarifai.api.V2/{name}",
            request_serializer=_serialized,
            response_deserializer=answer.FromString,
        )
        return made

    async def _post(self, rpc: Rpc, request: Message) -> Any:
        backoff = Backoff(BACKOFF_S, BACKOFF_MOST_S, self._chance, fixed=0.0)
        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                return await self._once(rpc, request)
            except PostFailed as error:
                if not left or not error.retryable:
                    raise
            await pause(backoff.next_s(), self._never, self._clock, self._tasks)
        raise AssertionError("it is posted at least once")

    async def _once(self, rpc: Rpc, request: Message) -> Any:
        try:
            answer = await rpc(request, metadata=self._metadata, timeout=POST_S)
        except grpc.aio.AioRpcError as error:
            final = error.code() in _FINAL
            code = ErrorCode.UPSTREAM_FAILED if final else ErrorCode.UNAVAILABLE
            raise _failed(error.code().name, error.details(), code, again=not final) from error
        failure = _failure(answer.status)
        if failure is not None:
            raise failure
        return answer


def _failure(status: status_pb2.Status) -> PostFailed | None:
    error = error_of(status)
    if error is None:
        return None
    name, why = name_of(status.code), status.details or status.description
    return _failed(name, why, error.code, again=error.retryable or error.code in _MAY_PASS)


def _failed(name: str, why: str | None, code: ErrorCode, *, again: bool) -> PostFailed:
    text = f"the API does not take what is posted: {name}: {(why or '')[:300]}"
    return PostFailed(text, code, retryable=again)


def _serialized(message: Message) -> bytes:
    return bytes(message.SerializeToString())


def _is_annotations(code: int) -> bool:
    """Whether a status is one that an annotation was to be written with."""
    return code in (
        codes.ANNOTATION_SUCCESS,
        codes.ANNOTATION_PENDING,
        codes.ANNOTATION_AWAITING_REVIEW,
        codes.ANNOTATION_AWAITING_CONSENSUS_REVIEW,
    )
