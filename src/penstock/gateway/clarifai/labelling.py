"""The RPCs of tasks that a model works at, and of what these have found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from google.protobuf import json_format

from penstock.calls.ids import new_id
from penstock.calls.live import Live
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.control_plane import MAX_POSTED, Work, missing, paged, serve
from penstock.gateway.clarifai.entering import Context, Entrance, answered
from penstock.gateway.clarifai.inputs import input_key, url_of
from penstock.gateway.clarifai.outcomes import outcomes
from penstock.gateway.clarifai.records import Key, Records
from penstock.gateway.clarifai.targets import MODEL, Targets, absent, model_labels
from penstock.gateway.hub import Hub
from penstock.protocol.clarifai.names import ANNOTATE, command_name
from penstock.protocol.clarifai.statuses import success
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import CancelReason, OnDisconnect, Route, Start

MAX_KEPT = 256 * 1024 * 1024
"""Bytes of annotations, of all tasks."""

Task = resources_pb2.Task
Annotation = resources_pb2.Annotation
Answer = service_pb2.MultiTaskResponse


@dataclass
class _Work:
    """A task that is done, or was."""

    live: Live
    annotations: list[Annotation] = field(default_factory=list)
    size: int = 0


class Labelling:
    """Serves ``PostTasks``, ``GetTask``, ``ListTasks``, ``DeleteTasks`` and ``ListAnnotations``.

    Each task is a call of the hub's, which nobody has to wait for; what it finds is kept until the task is
    deleted.

    Args:
        hub: Runs the calls.
        records: Where tasks are kept, and their inputs.
        targets: Finds the runners.
        entrance: Says who asks.
    """

    def __init__(self, hub: Hub, records: Records, targets: Targets, entrance: Entrance) -> None:
        self._hub = hub
        self._records = records
        self._targets = targets
        self._entrance = entrance
        self._work: dict[Key, _Work] = {}
        self._size = 0
        self._rpcs: Mapping[str, Work] = {
            "GetTask": self._get,
            "ListTasks": self._list,
            "DeleteTasks": self._delete,
            "ListAnnotations": self._annotations,
        }

    def __getattr__(self, rpc: str) -> Callable[[Any, Context], Awaitable[Any]]:
        if rpc.startswith("_") or rpc not in self._rpcs:
            raise AttributeError(rpc)
        return partial(serve, self._entrance, rpc, self._rpcs[rpc])

    async def PostTasks(self, request: service_pb2.PostTasksRequest, context: Context) -> Answer:
        """Begin tasks; those that make no sense are refused, and with them all of a request."""
        return await answered(self._post(request, context), lambda status: Answer(status=status))

    # -- beginning -----------------------------------------------------------------------------------

    async def _post(self, request: service_pb2.PostTasksRequest, context: Context) -> Answer:
        caller = self._entrance.caller(context)
        if not 1 <= len(request.tasks) <= MAX_POSTED:
            raise _refused(f"{len(request.tasks)} tasks; post 1 to {MAX_POSTED}")
        starts = [self._start(task, request, caller) for task in request.tasks]
        for task, start in zip(request.tasks, starts, strict=True):
            await self._begin(task, start, request, caller)
        return Answer(status=success(), tasks=request.tasks)

    async def _begin(self, task: Task, start: Start, request: Any, caller: Caller) -> None:
        task.id = task.id or new_id()
        key = self._key(request, caller, task.id)
        if key in self._work:
            raise CallError(f"there is a task {task.id[:100]!r} already", ErrorCode.CONFLICT)
        task.status.code, task.status.description = codes.TASK_IN_PROGRESS, "In progress"
        self._records.put(key, task, caller)
        try:
            live = await self._hub.open(start, caller)
        except CallError:
            self._records.remove(key, caller)
            raise
        work = self._work[key] = _Work(live)
        self._hub.links.start(self._collect(key, work), name=f"task {task.id}")

    def _start(self, task: Task, request: Any, caller: Caller) -> Start:
        """Return the call that a task is."""
        given = self._records.get(input_key(self._records, request, caller, task.input_source.id))
        if task.input_source.type != resources_pb2.TaskInputSource.INPUT:
            raise _refused("only tasks of one input are served: let input_source be of the type INPUT")
        if given is None:
            raise missing(codes.INPUT_DOES_NOT_EXIST, task.input_source.id)
        kind, url = url_of(given)
        command, route = self._model(task)
        fields = json_format.MessageToDict(task, preserving_proto_field_name=True)
        for unsent in ("id", "status", "input_source"):
            fields.pop(unsent, None)
        return Start(
            command=command,
            input=msgspec.json.encode({kind: url, "task": fields, "input_id": given.id}),
            is_stream=True,
            on_disconnect=OnDisconnect(None),
            route=route,
        )

    def _model(self, task: Task) -> tuple[str, Route | None]:
        if task.worker.type != resources_pb2.TaskWorker.WORKER_AUTO or len(task.worker.workers) != 1:
            raise _refused("only tasks of one model are served: a worker of the type WORKER_AUTO")
        model = task.worker.workers[0].model
        owner = resources_pb2.UserAppIDSet(user_id=model.user_id, app_id=model.app_id)
        labels = model_labels(owner, model.id, model.model_version.id)
        target = self._targets.find(labels, {})
        if target is None:
            raise absent(labels)
        if not target.model_id:
            raise _refused(f"the runner of {labels[MODEL][:100]!r} does no tasks of annotation")
        return command_name(target.model_id, ANNOTATE), target.route

    # -- what they find ------------------------------------------------------------------------------

    async def _collect(self, key: Key, work: _Work) -> None:
        status, why = codes.TASK_DONE, "Done"
        try:
            async with aclosing(outcomes(work.live)) as seen:
                async for outcome in seen:
                    if outcome.status == "streaming" and key in self._work:
                        self._keep(work, key[-1], outcome.data)
        except CallError as error:
            status, why = codes.TASK_FAILED, error.message
        task = self._records.get(key)
        if task is not None:
            task.status.code, task.status.description = status, why[:2000]

    def _keep(self, work: _Work, task_id: str, text: msgspec.Raw) -> None:
        fields = msgspec.json.decode(text).get("annotation")
        if fields is None:
            return
        annotation = json_format.ParseDict(fields, Annotation())
        annotation.task_id = task_id
        size = annotation.ByteSize()
        if self._size + size > MAX_KEPT:
            full = "more annotations are kept here than there is room for; delete tasks that are done"
            raise CallError(full, ErrorCode.RESOURCE_EXHAUSTED)
        work.size += size
        self._size += size
        work.annotations.append(annotation)

    # -- what is there -------------------------------------------------------------------------------

    def _get(self, request: Any, caller: Caller) -> dict[str, Any]:
        found = self._records.get(self._key(request, caller, request.task_id))
        if found is None:
            raise missing(codes.TASK_MISSING, request.task_id)
        return {"task": found}

    def _list(self, request: Any, caller: Caller) -> dict[str, Any]:
        found = self._records.within(self._key(request, caller))
        wanted = [task for task in found if not request.ids or task.id in request.ids]
        return {"tasks": paged(wanted, request)}

    def _delete(self, request: Any, caller: Caller) -> dict[str, Any]:
        for task_id in request.ids:
            key = self._key(request, caller, task_id)
            if not self._records.remove(key, caller):
                raise missing(codes.TASK_MISSING, task_id)
            work = self._work.pop(key, None)
            if work is not None:
                self._size -= work.size
                work.live.cancel(CancelReason.CALLER)
        return {}

    def _annotations(self, request: Any, caller: Caller) -> dict[str, Any]:
        start = self._key(request, caller, *([request.task_id] if request.task_id else []))
        wanted = [one for one in self._found(start) if _is_asked(one, request)]
        return {"annotations": paged(wanted, request)}

    def _found(self, start: Key) -> Iterator[Annotation]:
        for key, work in self._work.items():
            if key[: len(start)] == start:
                yield from work.annotations

    def _key(self, request: Any, caller: Caller, *task_id: str) -> Key:
        user_app = request.user_app_id
        return ("task", self._records.user(user_app.user_id, caller), user_app.app_id, *task_id)


def _is_asked(one: Annotation, request: Any) -> bool:
    if request.ids and one.id not in request.ids:
        return False
    if request.input_ids and one.input_id not in request.input_ids:
        return False
    statuses = [status.code for status in request.statuses]
    return not statuses or one.status.code in statuses


def _refused(text: str) -> CallError:
    return CallError(text, ErrorCode.INVALID_ARGUMENT)
