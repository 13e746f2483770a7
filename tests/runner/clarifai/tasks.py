"""Tasks of annotation, and a project whose commands detect what ``films`` show."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock import CommandError, Runtime
from penstock.annotate import Picture

ALL = 0.0, True, 1.0, True
TOKEN = "the-tasks-own-token"


class Watched:
    """What happens in the project's code."""

    def __init__(self) -> None:
        self.looked = 0
        self.going = asyncio.Event()
        self.cancelled = 0
        self.blocks_at: int | None = None


def detectors(seen: Watched) -> Runtime:
    """Return the project."""
    rt = Runtime()

    @rt.command("predict")
    async def predict(image: Picture) -> dict[str, Any]:
        seen.looked += 1
        if image.frame == seen.blocks_at:
            seen.going.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.cancelled += 1
        x = image.frame % 5
        return {
            "regions": [
                {"label": "square", "score": 0.75, "box": [10 + x, 20, 50 + x, 80], "track": "t1"},
                {"label": "spot", "score": 0.5, "box": [100, 10, 120, 30]},
                {"label": "else", "score": 0.9, "box": [0, 0, 9, 9]},
            ],
            "labels": [{"label": "indoors", "score": 0.5}],
        }

    @rt.command("shapes")
    async def shapes(image: Picture) -> dict[str, Any]:
        hole = [[[20, 20], [100, 20], [100, 100], [20, 100]], [[40, 40], [60, 40], [60, 60], [40, 60]]]
        runs = {"size": [120, 160], "counts": [120 * 10, 120 * 5, 120 * 145]}
        return {
            "regions": [
                {"label": "boxed", "score": 0.9, "box": [16, 12, 80, 60]},
                {"label": "holed", "score": 0.9, "polys": [hole]},
                {"label": "masked", "score": 0.9, "rle": runs},
                {"label": "nose", "score": 0.9, "kp": [[80, 30, 2]]},
                {"label": "body", "score": 0.9, "kp": [[40, 30, 2], [80, 60, 1], [1, 1, 0]]},
                {"label": "sign", "score": 0.9, "box": [0, 0, 32, 24], "text": "EXIT"},
            ],
            "labels": [{"label": "scene", "score": 0.9}],
        }

    @rt.command("picky")
    async def picky(image: Picture) -> dict[str, Any]:
        raise CommandError("not this one")

    @rt.command("words")
    async def words(text: str) -> str:
        return text

    return rt


def concept(
    name: str,
    bits: int = resources_pb2.BOUNDING_BOX,
    scores: tuple[float, bool, float, bool] | None = ALL,
    *,
    status: int = codes.ANNOTATION_SUCCESS,
    value: float = 1.0,
    polygon: list[tuple[float, float]] | None = None,
) -> resources_pb2.TaskConcept:
    """Return a concept of a task: its range is where it begins, whether with that, and where it ends."""
    made = resources_pb2.TaskConcept()
    made.concept.id, made.concept.name, made.concept.value = name, name.title(), value
    config = made.auto_annotation_config
    config.annotation_data_types, config.status_code = bits, status
    if scores is not None:
        lower, with_lower, upper, with_upper = scores
        config.threshold_range.lower, config.threshold_range.is_lower_inclusive = lower, with_lower
        config.threshold_range.upper, config.threshold_range.is_upper_inclusive = upper, with_upper
    for x, y in polygon or ():
        config.polygon.points.add(col=x, row=y)
    return made


def request(
    *concepts: resources_pb2.TaskConcept,
    url: str = "",
    image: bytes = b"",
    method: str = "predict",
    sample_ms: int = 100,
    task_id: str = "T1",
) -> service_pb2.AutoAnnotationRequest:
    """Return what a server asks for."""
    made = service_pb2.AutoAnnotationRequest(authorization_value=TOKEN)
    made.task.id, made.task.sample_ms = task_id, sample_ms
    made.task.concepts.extend(concepts)
    predict = made.post_model_outputs_request
    predict.user_app_id.user_id, predict.user_app_id.app_id = "u1", "a1"
    predict.model_id, predict.version_id = "toy", "v1"
    given = predict.inputs.add(id="i1")
    given.data.metadata["_method_name"] = method
    if url:
        given.data.video.url = url
    if image:
        given.data.image.base64 = image
    return made


def item(made: service_pb2.AutoAnnotationRequest) -> service_pb2.RunnerItem:
    """Return the item of a task."""
    return service_pb2.RunnerItem(id=f"task-{made.task.id}", auto_annotation_request=made)


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder over HTTP; gives the URL of it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
