"""A task of annotation, as Clarifai's servers hand it to a runner, read as settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock.annotate.concepts import Concept, DataType
from penstock.annotate.media.messages import Limits
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.records import Ring
from penstock.annotate.refine import Refining
from penstock.annotate.settings import Model, Settings
from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.misfits import Misfit
from penstock.protocol.clarifai.shapes import single

USUAL_MS = 1000
"""Between two frames that are looked at, where the task does not say."""
MAX_CONCEPTS = 10_000
DAY = 24 * 3600 * 1_000_000  # microseconds
STATUSES = (
    codes.ANNOTATION_SUCCESS,
    codes.ANNOTATION_PENDING,
    codes.ANNOTATION_AWAITING_REVIEW,
    codes.ANNOTATION_AWAITING_CONSENSUS_REVIEW,
)
"""What annotations may be written as."""

_TYPES: Mapping[int, DataType] = {
    resources_pb2.TAG: "tag",
    resources_pb2.BOUNDING_BOX: "box",
    resources_pb2.POLYGON: "polygon",
    resources_pb2.POINT: "point",
    resources_pb2.SPAN: "text",
    resources_pb2.MASK: "mask",
}
Config = resources_pb2.TaskConceptAutoAnnotationConfig


@dataclass(frozen=True)
class Task:
    """What is to be annotated, and how.

    Attributes:
        task_id: The server's.
        user_app: Whose annotations they are.
        input_id: What they are of.
        version_id: Of the model that makes them.
        url: Where the media are; empty: they are ``data``.
        moving: Whether they are a video: annotations are then of frames, else of the input as a whole.
        settings: For ``annotate``.
        concepts: What is written of each concept, by the label that the model gives it.
        types: What may be said of it; none of these: anything.
        statuses: What its annotations are written as.
    """

    task_id: str
    user_app: resources_pb2.UserAppIDSet
    input_id: str
    version_id: str
    url: str
    data: bytes
    moving: bool
    settings: Settings
    concepts: Mapping[str, resources_pb2.Concept]
    types: Mapping[str, tuple[DataType, ...]]
    statuses: Mapping[str, str]


def read_task(
    request: service_pb2.AutoAnnotationRequest, model: Model, begins: datetime, limits: Limits
) -> Task:
    """Return what a request asks for.

    Args:
        model: Is asked about each frame.
        begins: When the first frame counts as taken, for the hours of concepts; UTC.
        limits: What the media may cost.

    Raises:
        CallError: ``invalid_argument``.
    """
    predict, task = request.post_model_outputs_request, request.task
    if len(predict.inputs) != 1:
        raise _refused(f"it has {len(predict.inputs)} inputs; a task of annotation is of one")
    given = predict.inputs[0]
    media, moving = _media(given.data)
    named = {"task.id": task.id, "the id of its input": given.id}
    for name, value in named.items():
        if not value:
            raise _refused(f"{name} is missing, so nobody could say what its annotations are of")
    kept = _concepts(task)
    refining = Refining(concepts=tuple(kept.values()), others=False, begins=begins.isoformat())
    settings = Settings(
        models=(model,),
        sampling=Sampling(fps=f"1000/{task.sample_ms or USUAL_MS}"),
        form="raw" if model.style == "penstock" else "jpeg",
        quality=95,
        refining=refining,
        on_error="skip",
        limits=limits,
    )
    return Task(
        task_id=task.id,
        user_app=predict.user_app_id,
        input_id=given.id,
        version_id=predict.version_id,
        url=media.url,
        data=media.base64,
        moving=moving,
        settings=settings,
        concepts={one.concept.id: one.concept for one in task.concepts},
        types={label: concept.types for label, concept in kept.items()},
        statuses={label: concept.status for label, concept in kept.items()},
    )


def _media(data: resources_pb2.Data) -> tuple[Any, bool]:
    for media, moving in ((data.video, True), (data.image, False)):
        if media.url and not media.url.startswith(("http://", "https://")):
            raise _refused("the URL of its input is neither http nor https")
        if media.url or media.base64:
            return media, moving
    raise _refused("its input is no video and no image: neither has a URL or bytes")


# -- concepts ------------------------------------------------------------------------------------------


def _concepts(task: resources_pb2.Task) -> dict[str, Concept]:
    """Return what is kept of each concept; those of which nothing can pass are not among them."""
    if not 1 <= len(task.concepts) <= MAX_CONCEPTS:
        raise _refused(f"the task has {len(task.concepts)} concepts; it needs 1 to {MAX_CONCEPTS}")
    found: dict[str, Concept] = {}
    seen: set[str] = set()
    for one in task.concepts:
        label = one.concept.id
        if not label or label in seen:
            why = "is there twice" if label else "has no id"
            raise _refused(f"a concept of the task {why} ({label or one.concept.name!r})")
        seen.add(label)
        try:
            concept = _concept(label, one.auto_annotation_config)
        except (ValueError, Misfit) as error:
            raise _refused(f"the configuration of concept {label!r}: {error}") from error
        if concept is not None:
            found[label] = concept
    return found


def _concept(label: str, config: Config) -> Concept | None:
    hours = _hours(config) if config.HasField("time_of_day_range") else ()
    scores = config.threshold_range
    lower, upper = single(scores.lower), single(scores.upper)
    closed = scores.is_lower_inclusive and scores.is_upper_inclusive
    # A range that is not set is from 0 to 0 without its ends, as servers count on.
    if hours is None or lower > upper or (lower == upper and not closed):
        return None
    types = _types(config)
    return Concept(
        label=label,
        types=types,
        lower=lower,
        upper=upper,
        lower_open=not scores.is_lower_inclusive,
        upper_open=not scores.is_upper_inclusive,
        status=_status(config),
        hours=hours or None,
        roi=_roi(config),
    )


def _types(config: Config) -> tuple[DataType, ...]:
    bits = config.annotation_data_types
    unknown = bits & ~sum(_TYPES)
    if unknown:
        raise ValueError(f"annotation_data_types has bits that are not known here ({unknown})")
    types = tuple(name for bit, name in _TYPES.items() if bits & bit)
    if not config.HasField("polygon"):
        return types
    # What is said of a whole frame is nowhere in particular, so it is in no polygon.
    left = tuple(name for name in types or _TYPES.values() if name != "tag")
    if not left:
        raise ValueError("it asks for tags within a polygon, and a tag is of the whole frame")
    return left


def _status(config: Config) -> str:
    code = config.status_code or codes.ANNOTATION_SUCCESS
    if code not in STATUSES:
        raise ValueError(f"status_code {code} is none that an annotation can be written with")
    return str(codes.StatusCode.Name(code))


def _roi(config: Config) -> Ring:
    return tuple((single(point.col), single(point.row)) for point in config.polygon.points)


def _hours(config: Config) -> tuple[str, str] | tuple[()] | None:
    """Return from when until when, the second no part of it; nothing for the whole day, None for never."""
    given = config.time_of_day_range
    first = _moment(given.start) + (0 if given.is_start_inclusive else 1)
    last = _moment(given.end) + (1 if given.is_end_inclusive else 0)
    if last - first >= DAY:
        return ()
    if (last - first) % DAY == 0:
        return None
    return _clock(first), _clock(last)


def _moment(given: Any) -> int:
    """Return a time of day in microseconds."""
    fits = 0 <= given.hours <= 24 and 0 <= given.minutes < 60 and 0 <= given.seconds < 60
    at = ((given.hours * 60 + given.minutes) * 60 + given.seconds) * 1_000_000 + given.nanos // 1000
    if not fits or not 0 <= given.nanos < 10**9 or at > DAY:
        raise ValueError("its time_of_day_range has a time that is none")
    return int(at)


def _clock(at: int) -> str:
    seconds, rest = divmod(at % DAY, 1_000_000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:06}"


def _refused(text: str) -> CallError:
    return CallError(text, ErrorCode.INVALID_ARGUMENT)
