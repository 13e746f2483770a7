"""Tasks of annotation that runners do: each is a call, and its items are what the runner posts."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from clarifai_grpc.grpc.api import resources_pb2
from google.protobuf import json_format

from penstock.calls.clock import Clock
from penstock.calls.ids import new_id
from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.names import COMPLETED, DETAILS, FAILED, NOTICE
from penstock.protocol.session import End, Failure

MAX_SEEN = 4096
"""Ids of annotations that are remembered, of each task: what is posted a second time is not told again."""
MAX_OVER = 1024  # tasks that are over and whose tokens are remembered
LAST_S = 2.0  # how long the last metrics of a task may be on their way
MAX_WHY = 2000  # characters
PREFIX = "task-"
"""Of the ids of items that are tasks."""

Annotation = resources_pb2.Annotation


class Owner(Protocol):
    """The replica that does a task."""

    def output_of(self, request_id: str, text: bytes) -> None: ...
    def end_call(self, request_id: str, end: End) -> None: ...


class Assignment:
    """A task.

    Args:
        owner: Does it.
        request_id: Of the call.
        window: Bytes of items that the call may be ahead.
        clock: Tells the time.
    """

    def __init__(self, owner: Owner, request_id: str, window: int, clock: Clock) -> None:
        self.task_id = new_id()
        self.token = secrets.token_urlsafe(32)
        """What lets the runner post, for this task and nothing else; it is no key of the gateway's."""
        self.begun = False
        """Whether the replica has said that it does it."""
        self.over = False
        self._owner = owner
        self._request_id = request_id
        self._window = window
        self._clock = clock
        self._end: End | None = None
        self._ahead = 0
        self._room = asyncio.Event()
        self._seen: OrderedDict[str, None] = OrderedDict()

    @property
    def item_id(self) -> str:
        """The id of its item."""
        return PREFIX + self.task_id

    def credit(self, size: int) -> None:
        """So many bytes of items have been taken."""
        self._ahead -= size
        if self._ahead < self._window:
            self._room.set()

    def close(self) -> None:
        """Its call is over."""
        self.over = True
        self._room.set()

    async def room(self) -> None:
        """Return once its caller is not too far behind; nothing that is posted is ever dropped for that."""
        while self._ahead >= self._window and not self.over:
            self._room.clear()
            await self._room.wait()

    def annotated(self, annotation: Annotation) -> None:
        """Hand on an annotation, or what one says of the task.

        Raises:
            CallError: ``invalid_argument``; it cannot be said in JSON.
        """
        if self.over or self._is_known(annotation.id):
            return
        said = _as_json(annotation.data.metadata)
        notice = said.get(NOTICE)
        if notice == COMPLETED:
            self._end_soon(End(request_id=self._request_id))
        elif notice == FAILED:
            why = str(said.get(DETAILS) or "the runner does not say why")[:MAX_WHY]
            error = CallError(f"the task has failed: {why}", ErrorCode.COMMAND_FAILED)
            self._end_soon(End(request_id=self._request_id, error=Failure.of(error)))
        elif notice is None:
            self._output("annotation", annotation)

    def measured(self, metrics: resources_pb2.RunnerReplicaTaskMetrics) -> None:
        """Hand on how it goes.

        Raises:
            CallError: As for ``annotated``.
        """
        if not self.over:
            self._output("metrics", metrics)
            self._finish()

    def _end_soon(self, end: End) -> None:
        """End the call behind the last metrics, which are posted after the notice that tells of the end."""
        if self._end is None:
            self._end = end
            self._clock.call_later(LAST_S, self._finish)

    def _finish(self) -> None:
        if self._end is not None and not self.over:
            self._owner.end_call(self._request_id, self._end)

    def _output(self, name: str, message: Any) -> None:
        text = msgspec.json.encode({name: _as_json(message)})
        self._ahead += len(text)
        self._owner.output_of(self._request_id, text)

    def _is_known(self, annotation_id: str) -> bool:
        if not annotation_id:
            return False
        known = annotation_id in self._seen
        self._seen[annotation_id] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return known


def _as_json(message: Any) -> Mapping[str, Any]:
    try:
        fields: Mapping[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (json_format.Error, ValueError, RecursionError) as error:
        text = f"it cannot be said in JSON: {str(error)[:200]}"
        raise CallError(text, ErrorCode.INVALID_ARGUMENT) from error
    return fields


class Assignments:
    """The tasks of all replicas, by what lets these post.

    Args:
        clock: Tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_token: dict[str, Assignment] = {}
        self._over: OrderedDict[str, None] = OrderedDict()

    def open(self, owner: Owner, request_id: str, window: int) -> Assignment:
        """Return a new task."""
        made = Assignment(owner, request_id, window, self._clock)
        self._by_token[made.token] = made
        return made

    def close(self, assignment: Assignment) -> None:
        """Let nobody post for a task any more."""
        assignment.close()
        self._by_token.pop(assignment.token, None)
        self._over[assignment.token] = None
        if len(self._over) > MAX_OVER:
            self._over.popitem(last=False)

    def knows(self, token: str | None) -> bool:
        """Whether a token lets somebody post."""
        return token in self._by_token or token in self._over

    def was(self, token: str | None) -> bool:
        """Whether a token was for a task that is over."""
        return token in self._over

    def of(self, token: str | None) -> Assignment | None:
        """Return the task that a token is for."""
        return None if token is None else self._by_token.get(token)
