"""The RPCs by which runners post what their tasks of annotation find."""

from __future__ import annotations

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.assignments import Assignment, Assignments
from penstock.gateway.clarifai.entering import Context, answered
from penstock.gateway.clarifai.guard import Guard, metadata_of, token_in
from penstock.gateway.door import Visitor
from penstock.protocol.clarifai.statuses import success
from penstock.protocol.dispatch import Caller

Answer = service_pb2.MultiAnnotationResponse


class Annotations:
    """Serves ``PostAnnotations`` and ``PostRunnerReplicaTaskMetrics``, to who has the token of a task.

    Args:
        assignments: The tasks.
    """

    def __init__(self, assignments: Assignments) -> None:
        self._assignments = assignments

    async def PostAnnotations(self, request: service_pb2.PostAnnotationsRequest, context: Context) -> Answer:
        """Hand annotations to the caller of their task."""
        return await answered(self._take(request, context), lambda status: Answer(status=status))

    async def PostRunnerReplicaTaskMetrics(
        self, request: service_pb2.PostRunnerReplicaTaskMetricsRequest, context: Context
    ) -> status_pb2.BaseResponse:
        """Hand on how a task goes."""
        work = self._measure(request, context)
        return await answered(work, lambda status: status_pb2.BaseResponse(status=status))

    async def _take(self, request: service_pb2.PostAnnotationsRequest, context: Context) -> Answer:
        task = self._task(context)
        if task is None:
            text = "this token lets nobody post: its task is over"
            raise CallError(text, ErrorCode.UNAUTHENTICATED)
        await task.room()
        answer = Answer(status=success(), annotations=request.annotations)
        for one, told in zip(request.annotations, answer.annotations, strict=True):
            why = _handed_on(one, task)
            if why:
                told.status.code, told.status.details = codes.ANNOTATION_INVALID_ARGUMENT, why
                answer.status.code, answer.status.description = codes.MIXED_STATUS, "Mixed Status"
        return answer

    async def _measure(
        self, request: service_pb2.PostRunnerReplicaTaskMetricsRequest, context: Context
    ) -> status_pb2.BaseResponse:
        task = self._task(context)
        if task is not None:
            await task.room()
            for metrics in request.runner_replica_task_metrics:
                if metrics.task_id == task.task_id:
                    task.measured(metrics)
        return status_pb2.BaseResponse(status=success())

    def _task(self, context: Context) -> Assignment | None:
        """Return the task of who posts; None if it is over."""
        token = token_in(metadata_of(context.invocation_metadata()))
        task = self._assignments.of(token)
        if task is None and not self._assignments.was(token):
            raise CallError("this token is that of no task", ErrorCode.UNAUTHENTICATED)
        return task


def _handed_on(one: resources_pb2.Annotation, task: Assignment) -> str:
    """Hand an annotation to the caller of its task; returns why that is not done."""
    if one.task_id not in ("", task.task_id):
        return "it is of another task"
    try:
        task.annotated(one)
    except CallError as error:
        return error.message
    return ""


class TasksGuard:
    """Has the tokens of tasks looked at by who serves the RPCs that these are good for, and no others.

    Args:
        guard: Knows the keys.
        assignments: The tasks.
    """

    def __init__(self, guard: Guard, assignments: Assignments) -> None:
        self._guard = guard
        self._assignments = assignments

    def enter(self, token: str | None, asked: Caller) -> Caller:
        """See ``Guard.enter``."""
        return asked if self._assignments.knows(token) else self._guard.enter(token, asked)

    def enter_host(self, token: str | None) -> Visitor:
        """See ``Guard.enter_host``."""
        return self._guard.enter_host(token)

    def still(self, caller: Caller) -> bool:
        """See ``Guard.still``."""
        return self._guard.still(caller)
