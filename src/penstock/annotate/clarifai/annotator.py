"""Does the tasks of annotation that a runner is handed: by ``annotate``, over the runner's own app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from clarifai_grpc.grpc.api import service_pb2

from penstock.annotate.annotating import annotate
from penstock.annotate.clarifai.tasks import Task, read_task
from penstock.annotate.clarifai.written import Annotation, annotations_of, time_ms
from penstock.annotate.errors import AnnotateError
from penstock.annotate.media.fetch import fetch
from penstock.annotate.media.messages import Limits
from penstock.annotate.media.vetting import Vetting
from penstock.annotate.records import Frame
from penstock.annotate.settings import Model
from penstock.errors import CallError, ErrorCode
from penstock.protocol.marks import CLARIFAI
from penstock.protocol.runners import Offer
from penstock.runner.clarifai.annotating import Looked, Plan
from penstock.runtime.app import App

LIMITS = Limits(bytes=8 * 1024**3)
WINDOW = 4
TIMEOUT_S = 300.0
"""Of the model, for one frame."""

_PICTURE = {"data", "form", "width", "height"}


class TaskAnnotator:
    """See ``penstock.runner.clarifai.annotating.Annotator``.

    Args:
        private: Whether media are read from addresses of this machine and of private networks.
        limits: What the media of a task may cost.
        window: Frames that the model is asked about at once, as far as it takes so many calls.
        now: Tells the time of day, in UTC.
    """

    def __init__(
        self,
        *,
        private: bool = False,
        limits: Limits = LIMITS,
        window: int = WINDOW,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._private = private
        self._limits = limits
        self._window = window
        self._now = now

    def plan(self, request: service_pb2.AutoAnnotationRequest, offer: Offer, app: App) -> Plan:
        """See ``Annotator.plan``."""
        task = read_task(request, model_of(offer), self._now().replace(tzinfo=None), self._limits)
        return _Plan(task, app, Vetting(private=self._private), min(self._window, offer.concurrency))


class _Plan:
    def __init__(self, task: Task, app: App, vetting: Vetting, window: int) -> None:
        self._task = task
        self._app = app
        self._vetting = vetting
        self._window = window

    async def frames(self) -> AsyncGenerator[Looked, None]:
        """See ``Plan.frames``."""
        with TemporaryDirectory(prefix="penstock-task-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            try:
                path = await self._media(folder)
                run = annotate(
                    path,
                    self._app,
                    self._task.settings,
                    out=folder / "log",
                    window=self._window,
                    timeout_s=TIMEOUT_S,
                )
                async with run as frames:
                    async for frame in frames:
                        failed = "" if frame.error is msgspec.UNSET else frame.error
                        yield Looked(time_ms(frame), await self._written(frame), failed)
            except AnnotateError as error:
                raise CallError(str(error).replace(name, ""), ErrorCode.FAILED_PRECONDITION) from error

    async def _written(self, frame: Frame) -> list[Annotation]:
        # Masks become files, and holes are cut: that takes its time where there are some.
        if any(region.rle or region.polys for region in frame.regions):
            return await asyncio.to_thread(annotations_of, frame, self._task)
        return annotations_of(frame, self._task)

    async def _media(self, folder: Path) -> Path:
        if not self._task.url:
            path = folder / "media"
            await asyncio.to_thread(path.write_bytes, self._task.data)
            return path
        most = self._task.settings.limits.bytes
        try:
            return await asyncio.to_thread(
                fetch, self._task.url, folder / "media", most, vetting=self._vetting
            )
        finally:
            self._vetting.stop()  # a thread is not cancelled with who waits for it


def model_of(offer: Offer) -> Model:
    """Return how a command is asked about frames, as its schema says which form it takes.

    Raises:
        CallError: ``invalid_argument``; no parameter of it takes a picture, or it streams.
    """
    if offer.streaming:
        raise CallError(f"{offer.name} streams; frames are shown to a method that answers once", _REFUSED)
    fields: Mapping[str, Any] = offer.input_schema.get("properties", {})
    shapes = {name: _resolved(schema, offer.input_schema) for name, schema in fields.items()}
    for name, shape in shapes.items():
        if shape.get(CLARIFAI) == "image":
            return Model(command=offer.name, param=name, style="clarifai-ids")
    for name, shape in shapes.items():
        if shape.get("properties", {}).keys() >= _PICTURE:
            return Model(command=offer.name, param=name)
    raise CallError(f"{offer.name} has no parameter that takes a picture", _REFUSED)


_REFUSED = ErrorCode.INVALID_ARGUMENT


def _resolved(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    found = whole.get("$defs", {}).get(name) if name else None
    return {**(found if isinstance(found, dict) else {}), **schema}
