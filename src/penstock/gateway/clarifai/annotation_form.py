"""Tasks of annotation as a command: what a caller says of one, and the request that a runner gets."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from google.protobuf import json_format

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.binding import ServedModel
from penstock.gateway.clarifai.forms import UNARY, Request, Response
from penstock.protocol.clarifai.names import ANNOTATE, METHOD_KEY, command_name
from penstock.protocol.clarifai.statuses import error_of
from penstock.protocol.runners import Offer

UNNAMED = "unknown"
"""Of an app or a version that nobody has announced: Clarifai's runner takes no task without."""
STARTED = b"null"
AT_ONCE = 16
"""Tasks of one replica; more wait at the gateway, as penstock's own runner refuses them."""
INPUT = resources_pb2.TaskInputSource.INPUT

_MEDIA: dict[str, Any] = {"type": "string", "maxLength": 8192, "pattern": "^https?://"}


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    task: dict[str, Any]
    video: str = ""
    image: str = ""
    method: str = ""
    input_id: str = ""


class AnnotationForm:
    """How the command speaks: the item is over when the task has begun.

    Args:
        model: Whose it is.
    """

    kind: int = UNARY

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def open(self, text: bytes) -> list[Request]:
        """See ``Form.open``; it only looks whether the input makes sense."""
        self.request(text, "0", "0")
        return []

    def further(self, text: bytes, opening: bytes | None) -> Request:
        """See ``Form.further``; there is none."""
        raise CallError("a task of annotation takes no stream of input", ErrorCode.INVALID_ARGUMENT)

    def read(self, response: Response) -> bytes:
        """See ``Form.read``: whether the task has begun."""
        if (error := error_of(response.status)) is not None:
            raise error
        return STARTED

    def request(self, text: bytes, task_id: str, token: str) -> service_pb2.AutoAnnotationRequest:
        """Return what a runner gets.

        Args:
            text: The call's input.
            task_id: Never used before.
            token: What lets it post what it finds, and nothing else.

        Raises:
            CallError: ``invalid_argument``.
        """
        given = _read(text)
        made = service_pb2.AutoAnnotationRequest(authorization_value=token, task=_task(given.task))
        made.task.id = task_id
        predict, model = made.post_model_outputs_request, self._model
        predict.user_app_id.user_id = made.task.user_id = model.user_id or UNNAMED
        predict.user_app_id.app_id = made.task.app_id = model.app_id or UNNAMED
        predict.model_id, predict.version_id = model.model_id, model.version_id or UNNAMED
        url = given.video or given.image
        one = predict.inputs.add(id=given.input_id or hashlib.sha256(url.encode()).hexdigest()[:32])
        (one.data.video if given.video else one.data.image).url = url
        # Clarifai's runner takes no task from another source, and none that no model works at.
        made.task.input_source.type, made.task.input_source.id = INPUT, one.id
        made.task.worker.type = resources_pb2.TaskWorker.WORKER_AUTO
        worker = (
            made.task.worker.workers.add() if not made.task.worker.workers else made.task.worker.workers[0]
        )
        worker.model.id, worker.model.model_version.id = predict.model_id, predict.version_id
        worker.model.user_id, worker.model.app_id = predict.user_app_id.user_id, predict.user_app_id.app_id
        if given.method:
            one.data.metadata[METHOD_KEY] = given.method
        return made


def annotation_command(model: ServedModel) -> tuple[Offer, AnnotationForm]:
    """Return the command by which callers have a runner annotate media."""
    properties = {
        "video": {**_MEDIA, "description": "The URL of a video."},
        "image": {**_MEDIA, "description": "The URL of an image, instead."},
        "task": {"type": "object", "description": "A Task of Clarifai's, as JSON: concepts, sample_ms."},
        "method": {"type": "string", "description": "The method that is asked about frames."},
        "input_id": {"type": "string", "description": "What annotations say they are of."},
    }
    offer = Offer(
        name=command_name(model.model_id, ANNOTATE),
        description="Annotate a video or an image; items are annotations and metrics, as Clarifai's JSON.",
        streaming=True,
        input_schema={
            "type": "object",
            "properties": properties,
            "required": ["task"],
            "additionalProperties": False,
        },
        item_schema={"type": "object"},
        concurrency=AT_ONCE,
    )
    return offer, AnnotationForm(model)


def _read(text: bytes) -> _Given:
    try:
        given = msgspec.json.decode(text, type=_Given)
    except msgspec.MsgspecError as error:
        raise _refused(str(error)) from error
    urls = [url for url in (given.video, given.image) if url]
    if len(urls) != 1:
        raise _refused("name a video or an image, by its URL")
    if not urls[0].startswith(("http://", "https://")) or not urls[0].isprintable():
        raise _refused("only http and https URLs are handed to runners")
    return given


def _task(fields: dict[str, Any]) -> resources_pb2.Task:
    try:
        task: resources_pb2.Task = json_format.ParseDict(fields, resources_pb2.Task())
    except (json_format.ParseError, RecursionError) as error:
        raise _refused(f"task: {str(error)[:500]}") from error
    if not task.concepts:
        raise _refused("task: it has no concepts, so nothing would be annotated")
    for one in task.concepts:
        config = one.auto_annotation_config
        if not config.HasField("threshold_range"):
            # For a runner that is from 0 to 0 without its ends, and nobody who leaves it out means that.
            scores = config.threshold_range
            scores.is_lower_inclusive = scores.is_upper_inclusive = True
            scores.upper = 1.0
    return task


def _refused(text: str) -> CallError:
    return CallError(f"input: {text}", ErrorCode.INVALID_ARGUMENT)
