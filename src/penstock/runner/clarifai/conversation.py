"""What a server says on one stream for work: at most one item, and what belongs to it.

Pure: messages in, steps out.  Who holds the stream says when the item is over (``finish``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock.protocol.clarifai.statuses import MAX_SAID, name_of

SERVED = frozenset(
    (resources_pb2.UNARY_UNARY, resources_pb2.UNARY_STREAMING, resources_pb2.STREAMING_STREAMING)
)
"""The ways of calling a method that an item may ask for."""

_ID = re.compile(r"[!-~]{1,128}\Z")
_REQUEST = "post_model_outputs_request"
_TASK = "auto_annotation_request"
_UNSERVED = {
    None: "it has no request",
    _TASK: "auto-annotation is not served by this runner",
    "sync_state_request": "this is no agent: it runs models only",
}


class Work(NamedTuple):
    """Process an item.

    Attributes:
        request_id: What the server calls the request; may be empty.
    """

    item: service_pb2.RunnerItem
    request_id: str


class Annotate(NamedTuple):
    """Begin a task of annotation: the item is over with its answer, and the task goes on."""

    item: service_pb2.RunnerItem


class More(NamedTuple):
    """Take a further item of the input."""

    request: service_pb2.PostModelOutputsRequest


class EndOfInput(NamedTuple):
    """No more input comes."""


class Cancelled(NamedTuple):
    """Stop."""


class Refused(NamedTuple):
    """Answer that this cannot be processed, and say no more; the id is empty where there is not one."""

    item_id: str
    why: str


class Wrong(NamedTuple):
    """End the item with an error: what belongs to it makes no sense."""

    why: str


class Again(NamedTuple):
    """There is no work: open another stream."""


class Unwelcome(NamedTuple):
    """The server wants no stream now: open another one later."""

    why: str


class Passed(NamedTuple):
    """Nothing is done with this, besides telling of it."""

    why: str


_LAST = (Annotate, Refused, Wrong, Again, Unwelcome, Cancelled)

Step: TypeAlias = (
    Work | Annotate | More | EndOfInput | Cancelled | Refused | Wrong | Again | Unwelcome | Passed
)


class Conversation:
    """Reads what comes on one stream.

    Args:
        annotates: Whether tasks of annotation are served.
    """

    def __init__(self, *, annotates: bool = False) -> None:
        self._annotates = annotates
        self._item_id: str | None = None
        self._takes_input = False
        self._over = False

    @property
    def waiting(self) -> bool:
        """Whether an item may still come."""
        return self._item_id is None and not self._over

    def finish(self) -> None:
        """Say that the item is over, or that the stream is."""
        self._over = True

    def heard(self, message: service_pb2.MultiRunnerItemResponse) -> list[Step]:
        """Return what is to be done, in order; behind what ends the item nothing is done any more."""
        steps: list[Step] = []
        if not self._over:
            for step in (self._first(message),) if self._item_id is None else self._further(message):
                steps.append(step)
                if isinstance(step, _LAST):
                    self._over = True
                    break
        return steps

    # -- before there is an item ---------------------------------------------------------------------

    def _first(self, message: service_pb2.MultiRunnerItemResponse) -> Step:
        code, items = message.status.code, message.runner_items
        if code == codes.RUNNER_NEEDS_RETRY:
            return Again()
        if code == codes.RUNNER_STREAM_END:
            return Refused("", "the input ends, and there is no item it belongs to")
        if code != codes.SUCCESS:
            return Unwelcome(_told(message))
        if not items:
            return Again()
        if len(items) > 1:
            return Refused("", f"{len(items)} items came in one message; a stream carries one item")
        return self._begin(items[0], message.status.req_id)

    def _begin(self, item: service_pb2.RunnerItem, request_id: str) -> Step:
        if not _ID.match(item.id):
            return Refused(
                "", f"an item's id has 1 to 128 printable ASCII characters (not {item.id[:200]!r})"
            )
        kind = item.WhichOneof("request")
        if kind == _TASK and self._annotates:
            return Annotate(item)
        if kind != _REQUEST:
            return Refused(item.id, _UNSERVED.get(kind, f"it has a {kind}, which is not known here"))
        method_type = item.processing_info.runner_method_type
        if method_type not in SERVED:
            name = resources_pb2.RunnerMethodType.Name(method_type) if method_type else "no"
            return Refused(item.id, f"it has {name} method type; a method is called as {_served()}")
        self._item_id = item.id
        self._takes_input = method_type == resources_pb2.STREAMING_STREAMING
        return Work(item, request_id)

    # -- while there is one --------------------------------------------------------------------------

    def _further(self, message: service_pb2.MultiRunnerItemResponse) -> Iterator[Step]:
        code = message.status.code
        if code == codes.RUNNER_ITEM_CANCELLED:
            yield Cancelled()
        elif code == codes.RUNNER_STREAM_END:
            if self._takes_input:
                self._takes_input = False
                yield EndOfInput()
        elif code == codes.SUCCESS:
            yield from map(self._belonging, message.runner_items)
        elif self._takes_input:
            yield Cancelled()
        else:
            yield Passed(_told(message))

    def _belonging(self, item: service_pb2.RunnerItem) -> Step:
        if item.id != self._item_id:
            return Passed(f"item {item.id[:128]!r} came on the stream of {self._item_id!r}")
        if item.processing_info.status.code == codes.RUNNER_ITEM_CANCELLED:
            return Cancelled()
        if not self._takes_input:
            return Passed(f"item {self._item_id!r} takes no more input")
        if item.WhichOneof("request") != _REQUEST:
            return Wrong("a further item of the input has no request; the end of the input is a status")
        return More(item.post_model_outputs_request)


def cancelled_ids(message: service_pb2.MultiRunnerItemResponse) -> list[str]:
    """Return the ids that a message on the control stream cancels."""
    return [
        item.id
        for item in message.runner_items
        if item.processing_info.status.code == codes.RUNNER_ITEM_CANCELLED and _ID.match(item.id)
    ]


def _told(message: service_pb2.MultiRunnerItemResponse) -> str:
    status = message.status
    text = status.details or status.description
    return f"{name_of(status.code)}: {text[:MAX_SAID]}" if text else name_of(status.code)


def _served() -> str:
    return ", ".join(sorted(resources_pb2.RunnerMethodType.Name(number) for number in SERVED))
