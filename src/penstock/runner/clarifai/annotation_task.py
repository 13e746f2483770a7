"""One task of annotation, from its first frame to its last report."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress

import anyio
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock.calls.clock import Clock
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.names import ACTIVE, COMPLETED, DETAILS, FAILED, NOTICE
from penstock.runner.clarifai.annotating import Looked, Plan
from penstock.runner.clarifai.posting import Annotation, Poster, PostFailed
from penstock.runner.clarifai.task_metrics import Metrics
from penstock.runner.clarifai.uploads import Uploads
from penstock.runner.pausing import pause

REPORT_S = 5.0  # how often it is told how it goes
LAST_S = 5.0  # how long what is told at the end may take
MAX_WHY = 2000  # characters

_log = logging.getLogger("penstock.runner")


class AnnotationTask:
    """Annotates the media of a task, and posts what is found.

    It is told to the server as annotations, too: when it begins, and how it ended.  One that is cancelled
    only has a last report.

    Args:
        request: What the server asks for.
        plan: How it is done.
        poster: Takes what is found; closed at the end.
        clock: Tells the time.
    """

    def __init__(
        self, request: service_pb2.AutoAnnotationRequest, plan: Plan, poster: Poster, clock: Clock
    ) -> None:
        self._request = request
        self._plan = plan
        self._poster = poster
        self._clock = clock
        self._tasks = TaskOwner()
        self._metrics = Metrics(request.task.id, clock)
        self._over = asyncio.Event()
        self._frames = self._failed = 0

    async def run(self) -> None:
        """Do it to its end; whoever cancels this ends it within a frame."""
        uploads = Uploads(self._poster, self._metrics, self._clock)
        self._tasks.start(self._report_often(), name="reports")
        try:
            await self._do(uploads)
        finally:
            self._over.set()
            with anyio.CancelScope(shield=True):
                await uploads.aclose()
                with anyio.move_on_after(LAST_S):
                    await self._report()
                await self._tasks.aclose()
                await self._poster.aclose()

    async def _do(self, uploads: Uploads) -> None:
        name = self._request.task.id
        try:
            await uploads.put([self._notice(ACTIVE, "")])
            async with aclosing(self._plan.frames()) as frames:
                async for looked in frames:
                    self._count(looked)
                    await uploads.put(looked.annotations)
            await uploads.flush()
            self._check_any()
            await uploads.put([self._notice(COMPLETED, f"{self._frames} frames")])
            await uploads.flush()
            _log.info("annotation task %s is done: %d frames", name, self._frames)
        except PostFailed as error:
            _log.warning("annotation task %s has failed: %s", name, error.message)
        except CallError as error:
            await self._fail(uploads, error.message)
        except Exception:  # noqa: BLE001 - the top of a task: its server is told that it failed
            _log.exception("annotation task %s failed", name)
            await self._fail(uploads, "a fault of the runner; see its log")

    async def _fail(self, uploads: Uploads, why: str) -> None:
        _log.warning("annotation task %s has failed: %s", self._request.task.id, why)
        with suppress(PostFailed):
            await uploads.flush()
            await uploads.put([self._notice(FAILED, why)])
            await uploads.flush()

    def _count(self, looked: Looked) -> None:
        self._frames += 1
        self._failed += bool(looked.failed)
        self._metrics.looked(looked.time_ms, failed=bool(looked.failed))

    def _check_any(self) -> None:
        if self._failed and self._failed == self._frames:
            text = f"the model failed on each of {self._frames} frames; see the runner's log"
            raise CallError(text, ErrorCode.COMMAND_FAILED)

    def _notice(self, what: str, details: str) -> Annotation:
        given = self._request.post_model_outputs_request
        made = Annotation(input_id=given.inputs[0].id, task_id=self._request.task.id)
        made.status.code = codes.ANNOTATION_SUCCESS
        made.worker.CopyFrom(
            resources_pb2.Worker(
                model=resources_pb2.Model(model_version=resources_pb2.ModelVersion(id=given.version_id))
            )
        )
        made.data.metadata[NOTICE] = what
        made.data.metadata[DETAILS] = details[:MAX_WHY]
        return made

    # -- reports -------------------------------------------------------------------------------------

    async def _report_often(self) -> None:
        while True:
            await pause(REPORT_S, self._over, self._clock, self._tasks)
            if self._over.is_set():
                return
            await self._report()

    async def _report(self) -> None:
        try:
            await self._poster.metrics(self._metrics.report())
        except PostFailed as error:
            _log.info("annotation task %s: %s", self._request.task.id, error.message)
