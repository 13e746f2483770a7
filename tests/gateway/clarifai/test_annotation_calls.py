"""Tasks of annotation as calls of a gateway: done by our runner, and by Clarifai's own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from annotate import films
from cli.processes import PATIENCE_S, started
from gateway.clarifai.real_parts import HERE, PYTHON, Gateway, RealRunner, gateway, needs_clarifai, until
from gateway.clarifai.real_parts import runner as real_runner
from runner.clarifai.tasks import served

pytest.importorskip("av")

FINDER = HERE / "finder"
IDS = ("--user-id", "u1", "--compute-cluster-id", "cc1", "--nodepool-id", "np1", "--runner-id", "finder")
ALL = {"lower": 0.5, "upper": 1.0, "is_lower_inclusive": True, "is_upper_inclusive": True}


def concept(name: str, bits: int = 2, scores: dict[str, Any] | None = ALL) -> dict[str, Any]:
    """Return a concept of a task, as Clarifai's JSON."""
    config = {"annotation_data_types": bits, "threshold_range": scores, "status_code": "ANNOTATION_SUCCESS"}
    return {"concept": {"id": name, "value": 1.0}, "auto_annotation_config": config}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where films are: two seconds, and a minute, at ten frames a second."""
    folder = tmp_path_factory.mktemp("films")
    fast = {"movflags": "faststart"}
    films.write(folder / "a.mp4", 20, rate=10, container_options=fast)
    films.write(folder / "long.mp4", 600, rate=10, container_options=fast, options={"preset": "ultrafast"})
    with served(folder) as found:
        yield found


@pytest.fixture(scope="module")
def front() -> Iterator[Gateway]:
    with gateway() as found:
        yield found
        assert found.stop() == 0


@contextmanager
def our_runner(at: Gateway) -> Iterator[RealRunner]:
    dialled = ("--clarifai", at.clarifai_url, *IDS, "--threads", 2, "--private-media")
    with started("runner", FINDER, *dialled, CLARIFAI_PAT="none") as process:
        at.until_there(2)
        found = RealRunner(process)
        try:
            yield found
        finally:
            found.end()


@pytest.fixture(scope="module")
def ours(front: Gateway) -> Iterator[RealRunner]:
    with our_runner(front) as found:
        yield found


def asked(**given: Any) -> dict[str, Any]:
    return {"command": "finder.AutoAnnotate", "is_stream": True, "input": given}


def frames(at: Gateway, **given: Any) -> Iterator[dict[str, Any]]:
    """Yield the frames of a task's call; whoever leaves disconnects."""
    with httpx.stream("POST", f"{at.url}/v2/execute", json=asked(**given), timeout=PATIENCE_S) as response:
        for line in response.iter_lines():
            yield json.loads(line)


def items(at: Gateway, **given: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Return the annotations of a task, its metrics, and the last frame of its call."""
    *found, last = frames(at, **given)
    data = [frame["data"] for frame in found if frame["status"] == "streaming"]
    annotations = [one["annotation"] for one in data if "annotation" in one]
    return annotations, [one["metrics"] for one in data if "metrics" in one], last


def times(annotations: list[dict[str, Any]]) -> list[int]:
    """Return when they are, in milliseconds."""
    return [int(one["data"]["frames"][0]["frame_info"].get("time", 0)) for one in annotations]


def concepts(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    (region,) = annotation["data"]["frames"][0]["data"]["regions"]
    return list(region["data"]["concepts"])


def test_our_runner_does_a_task(front: Gateway, ours: RealRunner, url: str) -> None:
    task = {"sample_ms": 200, "concepts": [concept("cat"), concept("dog", scores={**ALL, "lower": 0.6})]}
    found, metrics, last = items(front, video=f"{url}/a.mp4", task=task, input_id="i7")
    assert last["status"] == "completed"
    assert times(found) == list(range(0, 2000, 200))
    assert {one["input_id"] for one in found} == {"i7"}
    for one in found:
        (region,) = one["data"]["frames"][0]["data"]["regions"]
        assert region["region_info"]["bounding_box"] == {
            "top_row": 0.5,
            "left_col": 0.25,
            "bottom_row": 1.0,
            "right_col": 0.75,
        }
        assert region["track_id"] == "t1"
        (said,) = concepts(one)
        assert (said["id"], said["metadata"]) == ("cat", {"prediction_score": 0.75})
    assert sum(one.get("frames_processed", 0) for one in metrics) == 10
    assert len({one["id"] for one in found}) == 10


def test_concepts_of_one_region_stay_together_and_a_range_may_be_left_out(
    front: Gateway, ours: RealRunner, url: str
) -> None:
    both = [concept("cat", scores=None), concept("animal", scores=None)]
    for one in both:
        del one["auto_annotation_config"]["threshold_range"]
    found, _, last = items(front, video=f"{url}/a.mp4", task={"sample_ms": 1000, "concepts": both})
    assert last["status"] == "completed"
    assert [[each["id"] for each in concepts(one)] for one in found] == [["cat", "animal"]] * 2


def test_who_leaves_ends_the_task_down_to_the_model(front: Gateway, ours: RealRunner, url: str) -> None:
    task = {"sample_ms": 100, "concepts": [concept("cat")]}
    for _ in range(3):  # more than it has threads: none of them stays taken
        reading = frames(front, video=f"{url}/long.mp4", task=task, method="slowly")
        assert any(frame["status"] == "streaming" for frame in reading)
        reading.close()  # type: ignore[attr-defined]
        until(lambda: all(one["calls"] == 0 for one in front.runners()))
    # Nothing is looked at any more behind a task that begins now.
    before = sum("looked" in line for line in ours.printed)
    found, _, last = items(
        front, video=f"{url}/a.mp4", task={"sample_ms": 1000, "concepts": [concept("cat")]}
    )
    assert (last["status"], len(found)) == ("completed", 2)
    assert sum("looked" in line for line in ours.printed) - before <= 2 + 4  # those that were under way


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"task": {"concepts": [concept("cat")]}}, "invalid_argument"),
        (
            {"video": "http://a/b", "image": "http://a/b", "task": {"concepts": [concept("cat")]}},
            "invalid_argument",
        ),
        ({"video": "file:///etc/passwd", "task": {"concepts": [concept("cat")]}}, "invalid_argument"),
        ({"video": "http://a/b", "task": {"concepts": []}}, "invalid_argument"),
        ({"video": "http://a/b", "task": {"nothing": 1}}, "invalid_argument"),
        ({"video": "http://a/b", "task": {"concepts": [concept("cat", 64)]}}, "invalid_argument"),
        (
            {"video": "http://a/b", "task": {"concepts": [concept("cat")]}, "method": "blind"},
            "invalid_argument",
        ),
        ({"video": "http://127.0.0.1:1/b", "task": {"concepts": [concept("cat")]}}, "command_failed"),
    ],
)
def test_what_cannot_be_done_is_told(
    front: Gateway, ours: RealRunner, given: dict[str, Any], code: str
) -> None:
    last = list(frames(front, **given))[-1]
    assert last["code"] == code, last


def test_a_runner_that_dies_ends_its_tasks(url: str) -> None:
    soon = {"PENSTOCK_CLARIFAI_KEEPALIVE_S": "1", "PENSTOCK_GATEWAY_RESUME_S": "1"}
    with gateway(**soon) as at, our_runner(at) as runner:
        task = {"sample_ms": 100, "concepts": [concept("cat")]}
        reading = frames(at, video=f"{url}/long.mp4", task=task, method="slowly")
        assert any(frame["status"] == "streaming" for frame in reading)
        runner.process.send_signal(signal.SIGKILL)
        *_, last = reading
        assert (last["status"], last["code"]) == ("error", "unavailable")


def test_only_the_token_of_a_task_lets_somebody_post(front: Gateway) -> None:
    with grpc.insecure_channel(front.clarifai_url.removeprefix("http://")) as channel:
        post = channel.unary_unary(
            "/clarifai.api.V2/PostAnnotations",
            request_serializer=service_pb2.PostAnnotationsRequest.SerializeToString,
            response_deserializer=service_pb2.MultiAnnotationResponse.FromString,
        )
        posted = service_pb2.PostAnnotationsRequest(annotations=[resources_pb2.Annotation(task_id="x")])
        for metadata in ((), (("authorization", "Key guessed"),)):
            answer = post(posted, metadata=metadata, timeout=PATIENCE_S)
            assert answer.status.code == codes.CONN_KEY_INVALID


# -- Clarifai's own runner -----------------------------------------------------------------------------


def _lacks() -> str:
    """Return what Clarifai's runner does not have of what it needs for tasks; empty if it has all."""
    missing = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    if (
        PYTHON.is_file()
        and subprocess.run([PYTHON, "-c", "import av, shapely"], capture_output=True).returncode
    ):
        missing.append("its extra auto-annotation")
    return ", ".join(missing)


needs_ffmpeg = pytest.mark.skipif(bool(_lacks()), reason=f"Clarifai's runner lacks {_lacks()}")


@contextmanager
def clarifais_runner(at: Gateway, home: Path) -> Iterator[RealRunner]:
    env = {"CLARIFAI_FFMPEG_PROTOCOL_WHITELIST": "http,tcp"}
    with real_runner(at.clarifai_url, home, model=FINDER, name="finder", **env) as found:
        at.until_there(4)
        yield found


@needs_clarifai
@needs_ffmpeg
def test_clarifais_own_runner_does_a_task(url: str, tmp_path: Path) -> None:
    with gateway() as at, clarifais_runner(at, tmp_path):
        task = {"sample_ms": 200, "concepts": [concept("cat"), concept("dog", scores={**ALL, "lower": 0.6})]}
        found, metrics, last = items(at, video=f"{url}/a.mp4", task=task, input_id="i7")
        assert last["status"] == "completed"
        assert times(found)[:10] == list(range(0, 2000, 200))  # FFmpeg repeats the last frame at the end
        assert {one["input_id"] for one in found} == {"i7"}
        assert [each["metadata"] for one in found for each in concepts(one)] == [
            {"prediction_score": 0.75}
        ] * len(found)
        assert metrics[-1]["frames_processed"] == len(found)
        # What it does not do is told as what it says, and its thread goes on.
        refused, _, last = items(at, video=f"{url}/a.mp4", task={"concepts": [concept("cat", 4)]})
        assert (refused, last["status"]) == ([], "error")
        assert "Unsupported annotation data types" in last["error"]


@needs_clarifai
@needs_ffmpeg
def test_clarifais_own_runner_stops_a_task_that_is_cancelled(url: str, tmp_path: Path) -> None:
    with gateway() as at, clarifais_runner(at, tmp_path) as runner:
        task = {"sample_ms": 100, "concepts": [concept("cat")]}
        reading = frames(at, video=f"{url}/long.mp4", task=task)
        assert any(frame["status"] == "streaming" for frame in reading)
        reading.close()  # type: ignore[attr-defined]
        runner.until_printed("Stopping auto-annotation task")
        until(lambda: all(one["calls"] == 0 for one in at.runners()))
        found, _, last = items(
            at, video=f"{url}/a.mp4", task={"sample_ms": 1000, "concepts": [concept("cat")]}
        )
        assert (last["status"], len(found) >= 2) == ("completed", True)
