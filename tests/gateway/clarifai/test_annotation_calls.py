"""Tasks of annotation as calls of a gateway: done by our runner, and by Clarifai's own."""

from __future__ import annotations

import json
import re
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
from google.protobuf import json_format, message_factory

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
def our_runner(at: Gateway, key: str = "none") -> Iterator[RealRunner]:
    dialled = ("--clarifai", at.clarifai_url, *IDS, "--threads", 2, "--private-media")
    with started("runner", FINDER, *dialled, CLARIFAI_PAT=key) as process:
        found = RealRunner(process)
        try:
            found.until_printed("offers")
            yield found
        finally:
            found.end()


@pytest.fixture(scope="module")
def ours(front: Gateway) -> Iterator[RealRunner]:
    with our_runner(front) as found:
        front.until_there(2)
        yield found


def asked(**given: Any) -> dict[str, Any]:
    return {"command": "finder.AutoAnnotate", "is_stream": True, "input": given}


def frames(at: Gateway, key: str = "none", /, **given: Any) -> Iterator[dict[str, Any]]:
    """Yield the frames of a task's call; whoever leaves disconnects."""
    url, headers = f"{at.url}/v2/execute", {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", url, json=asked(**given), headers=headers, timeout=PATIENCE_S) as response:
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


def annotated(at: Gateway, command: str, url: str, out: Path) -> list[dict[str, Any]]:
    """Return the frames that `penstock annotate` writes of a model behind a gateway."""
    words = ("--model", at.url, "--command", command, "--every", 10, "--clarifai", "--out", out)
    with started("annotate", f"{url}/a.mp4", *words) as process:
        assert process.wait(PATIENCE_S) == 0, process.communicate()
    *found, _ = map(json.loads, (out / "annotations.jsonl").read_text().splitlines())
    return found


def check_finds(found: list[dict[str, Any]]) -> None:
    """See that two frames have what the model finds in each."""
    assert [frame["frame"] for frame in found] == [0, 10]
    for frame in found:
        boxes = [(region["label"], region["score"], region["box"]) for region in frame["regions"]]
        cat = [40.0, 60.0, 120.0, 120.0]
        assert boxes == [("cat", 0.75, cat), ("animal", 0.9, cat), ("dog", 0.5, [0.0, 0.0, 40.0, 30.0])]


def test_a_model_is_asked_frame_by_frame_as_well(
    front: Gateway, ours: RealRunner, url: str, tmp_path: Path
) -> None:
    check_finds(annotated(front, "finder.predict", url, tmp_path / "out"))


def test_a_runner_that_dies_ends_its_tasks(url: str) -> None:
    soon = {"PENSTOCK_CLARIFAI_KEEPALIVE_S": "1", "PENSTOCK_GATEWAY_RESUME_S": "1"}
    with gateway(**soon) as at, our_runner(at) as runner:
        at.until_there(2)
        task = {"sample_ms": 100, "concepts": [concept("cat")]}
        reading = frames(at, video=f"{url}/long.mp4", task=task, method="slowly")
        assert any(frame["status"] == "streaming" for frame in reading)
        runner.process.send_signal(signal.SIGKILL)
        *_, last = reading
        assert (last["status"], last["code"]) == ("error", "unavailable")


def rpc(at: Gateway, name: str, request: Any, key: str = "mine") -> Any:
    """Return the answer of an RPC of Clarifai's API."""
    method = service_pb2.DESCRIPTOR.services_by_name["V2"].methods_by_name[name]
    answer = message_factory.GetMessageClass(method.output_type)
    with grpc.insecure_channel(at.clarifai_url.removeprefix("http://")) as channel:
        call = channel.unary_unary(
            f"/clarifai.api.V2/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call(request, metadata=(("authorization", f"Key {key}"),), timeout=PATIENCE_S)


def test_only_the_token_of_a_task_lets_somebody_post(front: Gateway) -> None:
    posted = service_pb2.PostAnnotationsRequest(annotations=[resources_pb2.Annotation(task_id="x")])
    assert rpc(front, "PostAnnotations", posted, "guessed").status.code == codes.CONN_KEY_INVALID


def test_where_keys_are_needed_a_runner_posts_with_none_of_them(url: str, tmp_path: Path) -> None:
    keys, file = {}, tmp_path / "keys.txt"
    for scope in ("runner", "caller"):
        with started("keys", "new", scope, "--scope", scope, "--file", file) as process:
            out, _ = process.communicate(timeout=PATIENCE_S)
            (keys[scope],) = re.findall(r"penstock_\S+", out)
    with gateway("--auth-keys", file) as at, our_runner(at, keys["runner"]):
        until(lambda: list(frames(at, keys["caller"], video="x", task={}))[-1]["code"] == "invalid_argument")
        task = {"sample_ms": 1000, "concepts": [concept("cat")]}
        *found, last = frames(at, keys["caller"], video=f"{url}/a.mp4", task=task)
        assert last["status"] == "completed"
        assert sum("annotation" in frame.get("data", {}) for frame in found) == 2
        posted = service_pb2.PostAnnotationsRequest(annotations=[resources_pb2.Annotation(task_id="x")])
        for key in keys.values():
            assert rpc(at, "PostAnnotations", posted, key).status.code == codes.CONN_KEY_INVALID


# -- as Clarifai's clients ask for it ------------------------------------------------------------------

APP = resources_pb2.UserAppIDSet(user_id="u1", app_id="a1")


def labelling(name: str, sample_ms: int = 200) -> resources_pb2.Task:
    """Return a task for Clarifai's API."""
    made = resources_pb2.Task(id=name, sample_ms=sample_ms)
    made.input_source.type, made.input_source.id = resources_pb2.TaskInputSource.INPUT, "film"
    made.worker.type = resources_pb2.TaskWorker.WORKER_AUTO
    made.worker.workers.add().model.id = "finder"
    return json_format.ParseDict({"concepts": [concept("cat")]}, made)


def post_tasks(at: Gateway, *tasks: resources_pb2.Task) -> Any:
    return rpc(at, "PostTasks", service_pb2.PostTasksRequest(user_app_id=APP, tasks=tasks))


def post_input(at: Gateway, url: str) -> Any:
    made = resources_pb2.Input(id="film")
    made.data.video.url = url
    return rpc(at, "PostInputs", service_pb2.PostInputsRequest(user_app_id=APP, inputs=[made]))


def state_of(at: Gateway, name: str) -> Any:
    return rpc(at, "GetTask", service_pb2.GetTaskRequest(user_app_id=APP, task_id=name)).task.status


def found_by(at: Gateway, name: str, **more: Any) -> list[resources_pb2.Annotation]:
    asked = service_pb2.ListAnnotationsRequest(user_app_id=APP, task_id=name, **more)
    return list(rpc(at, "ListAnnotations", asked).annotations)


def test_a_task_of_clarifais_api_is_done_and_kept(front: Gateway, ours: RealRunner, url: str) -> None:
    assert post_input(front, f"{url}/a.mp4").status.code == codes.SUCCESS
    answer = post_tasks(front, labelling("one"), labelling("two", 1000))
    assert answer.status.code == codes.SUCCESS
    assert [task.status.code for task in answer.tasks] == [codes.TASK_IN_PROGRESS] * 2
    for name in ("one", "two"):
        until(lambda name=name: state_of(front, name).code != codes.TASK_IN_PROGRESS)  # type: ignore[misc]
        assert state_of(front, name).code == codes.TASK_DONE
    found = found_by(front, "one")
    assert [one.data.frames[0].frame_info.time for one in found] == list(range(0, 2000, 200))
    assert {(one.task_id, one.input_id) for one in found} == {("one", "film")}
    assert len(found_by(front, "two")) == 2
    assert found_by(front, "one", page=2, per_page=4) == found[4:8]
    assert found_by(front, "one", input_ids=["other"]) == []
    listed = rpc(front, "ListTasks", service_pb2.ListTasksRequest(user_app_id=APP))
    assert [task.id for task in listed.tasks] == ["one", "two"]
    gone = service_pb2.DeleteTasksRequest(user_app_id=APP, ids=["one", "two"])
    assert rpc(front, "DeleteTasks", gone).status.code == codes.SUCCESS
    assert found_by(front, "one") == []


def test_a_task_that_is_deleted_ends(front: Gateway, ours: RealRunner, url: str) -> None:
    post_input(front, f"{url}/long.mp4")
    slow = labelling("slow", 100)
    assert post_tasks(front, slow).status.code == codes.SUCCESS
    assert post_tasks(front, slow).status.code == codes.CONN_INVALID_REQUEST  # it is there already
    until(lambda: len(found_by(front, "slow")) > 0)
    gone = service_pb2.DeleteTasksRequest(user_app_id=APP, ids=["slow"])
    assert rpc(front, "DeleteTasks", gone).status.code == codes.SUCCESS
    until(lambda: all(one["calls"] == 0 for one in front.runners()))
    assert rpc(front, "DeleteTasks", gone).status.code == codes.TASK_MISSING


def test_a_task_that_fails_says_why(front: Gateway, ours: RealRunner) -> None:
    post_input(front, "http://127.0.0.1:1/none.mp4")
    assert post_tasks(front, labelling("bad")).status.code == codes.SUCCESS
    until(lambda: state_of(front, "bad").code == codes.TASK_FAILED)
    assert "cannot be had" in state_of(front, "bad").description
    rpc(front, "DeleteTasks", service_pb2.DeleteTasksRequest(user_app_id=APP, ids=["bad"]))


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"input_source": {"id": "nothing"}}, codes.INPUT_DOES_NOT_EXIST),
        ({"input_source": {"type": "DATASET"}}, codes.MODEL_INVALID_ARGUMENT),
        ({"worker": {"type": "WORKER_HUMAN"}}, codes.MODEL_INVALID_ARGUMENT),
        (
            {"worker": {"workers": [{"model": {"id": "a"}}, {"model": {"id": "b"}}]}},
            codes.MODEL_INVALID_ARGUMENT,
        ),
        ({"concepts": [concept("cat", 64)]}, codes.SUCCESS),  # the runner refuses it, and so the task fails
    ],
)
def test_tasks_that_are_not_served_are_refused(
    front: Gateway, ours: RealRunner, url: str, changed: dict[str, Any], status: int
) -> None:
    post_input(front, f"{url}/a.mp4")
    made = labelling("odd")
    if "concepts" in changed:
        del made.concepts[:]
    json_format.ParseDict(changed, made)
    answer = post_tasks(front, made)
    assert answer.status.code == status, answer.status
    if status == codes.SUCCESS:
        until(lambda: state_of(front, "odd").code == codes.TASK_FAILED)
        rpc(front, "DeleteTasks", service_pb2.DeleteTasksRequest(user_app_id=APP, ids=["odd"]))
    else:
        assert state_of(front, "odd").code == codes.ZERO


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
def test_clarifais_own_runner_is_asked_frame_by_frame_as_well(url: str, tmp_path: Path) -> None:
    with gateway() as at, clarifais_runner(at, tmp_path):
        check_finds(annotated(at, "finder.predict", url, tmp_path / "out"))


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
