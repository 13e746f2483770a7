"""The part of Clarifai's API that annotations and metrics are posted to, written from the published protos.
It answers as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import grpc
import grpc.aio
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

WAIT_S = 20
Annotation = resources_pb2.Annotation
Answer = service_pb2.MultiAnnotationResponse


class FakeApi:
    """Takes what is posted."""

    def __init__(self) -> None:
        self.posts: asyncio.Queue[service_pb2.PostAnnotationsRequest] = asyncio.Queue()
        self.tried = 0
        """Posts, those that were refused with them."""
        self.tokens: set[str] = set()
        self.metrics: list[resources_pb2.RunnerReplicaTaskMetrics] = []
        self.trouble: list[grpc.StatusCode | int] = []
        """What the next posts are refused with: codes of gRPC, or statuses."""
        self.refused: Callable[[Annotation], bool] = lambda _: False

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return its RPCs."""
        return {
            "PostAnnotations": grpc.unary_unary_rpc_method_handler(
                self._annotations,
                request_deserializer=service_pb2.PostAnnotationsRequest.FromString,
                response_serializer=Answer.SerializeToString,
            ),
            "PostRunnerReplicaTaskMetrics": grpc.unary_unary_rpc_method_handler(
                self._take_metrics,
                request_deserializer=service_pb2.PostRunnerReplicaTaskMetricsRequest.FromString,
                response_serializer=status_pb2.BaseResponse.SerializeToString,
            ),
        }

    async def until(self, notice: str) -> list[Annotation]:
        """Return what is posted up to a notice, with it."""
        found: list[Annotation] = []
        with anyio.fail_after(WAIT_S):
            while not found or notice_of(found[-1]) != notice:
                found += (await self.posts.get()).annotations
        return found

    def total(self, name: str) -> int:
        """Return the sum of a count in the metrics."""
        return sum(getattr(metrics, name) for metrics in self.metrics)

    async def _annotations(self, request: service_pb2.PostAnnotationsRequest, context: Any) -> Answer:
        self.tried += 1
        self.tokens.add(dict(context.invocation_metadata()).get("authorization", ""))
        if self.trouble:
            trouble = self.trouble.pop(0)
            if isinstance(trouble, grpc.StatusCode):
                await context.abort(trouble, "so says the test")
            return Answer(status=status_pb2.Status(code=trouble, description="so says the test"))
        self.posts.put_nowait(request)
        answer = Answer(status=status_pb2.Status(code=codes.SUCCESS), annotations=request.annotations)
        for one in answer.annotations:
            if self.refused(one):
                one.status.code = codes.ANNOTATION_INVALID_ARGUMENT
                answer.status.code = codes.MIXED_STATUS
        return answer

    async def _take_metrics(
        self, request: service_pb2.PostRunnerReplicaTaskMetricsRequest, context: Any
    ) -> status_pb2.BaseResponse:
        self.metrics += request.runner_replica_task_metrics
        return status_pb2.BaseResponse(status=status_pb2.Status(code=codes.SUCCESS))


def notice_of(annotation: Annotation) -> str:
    """Return what an annotation says of its task; empty where it is one of media."""
    return str(dict(annotation.data.metadata).get("runner_notice", ""))
