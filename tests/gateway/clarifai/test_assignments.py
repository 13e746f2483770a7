"""Tasks of annotation: items for a replica's main thread, and calls of which the items are posted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from gateway.clarifai.replicas import FakeReplica, Stream, Visitor, replicas_of, text_of
from gateway.fakes import World, turns
from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.annotation_form import AT_ONCE
from penstock.gateway.clarifai.annotations import Annotations, TasksGuard
from penstock.gateway.clarifai.assignments import LAST_S, MAX_OVER, MAX_SEEN, Assignments
from penstock.gateway.clarifai.binding import NoBindings
from penstock.gateway.clarifai.replica_tasks import LAST_WORDS_S
from penstock.gateway.clarifai.replicas import Replicas
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import CancelReason
from penstock.testing import FakeClock

pytestmark = pytest.mark.anyio

INPUT = {
    "video": "https://example.com/a.mp4",
    "method": "predict",
    "task": {"sample_ms": 100, "concepts": [{"concept": {"id": "cat"}}]},
}
TEXT = json.dumps(INPUT).encode()


class Context:
    """An RPC of who has a token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def invocation_metadata(self) -> Any:
        return (("authorization", f"Key {self._token}"),)

    def time_remaining(self) -> float | None:
        return None

    async def write(self, message: Any) -> None:
        raise AssertionError("it answers once")


class Desk:
    """A gateway with one replica that does tasks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.assignments = Assignments(world.clock)
        self.replicas = Replicas(world.hub, LinkSettings(), NoBindings(), world.clock, self.assignments)
        self.runner = FakeReplica(self.replicas, world.clock, annotates=True)
        self.rpcs = Annotations(self.assignments)

    async def come(self, streams: int = 1) -> Stream:
        """Have the replica come; returns the stream of its main thread, which opens last."""
        await self.runner.come(streams)
        primary = self.runner.open(primary=True)
        self.world.clock.advance(1)
        await turns()
        return primary

    async def begin(self, primary: Stream) -> tuple[Live, service_pb2.AutoAnnotationRequest]:
        """Have a task begun; returns its call, and what the replica got."""
        live = await self.world.call("toy.AutoAnnotate", input=TEXT)
        await turns()
        request = primary.item.auto_annotation_request
        primary.answer("")
        await turns()
        return live, request

    async def post(
        self, token: str, *annotations: resources_pb2.Annotation
    ) -> service_pb2.MultiAnnotationResponse:
        posted = service_pb2.PostAnnotationsRequest(annotations=annotations)
        return await self.rpcs.PostAnnotations(posted, Context(token))

    async def measure(self, token: str, task_id: str, frames: int) -> int:
        metrics = resources_pb2.RunnerReplicaTaskMetrics(task_id=task_id, frames_processed=frames)
        posted = service_pb2.PostRunnerReplicaTaskMetricsRequest(runner_replica_task_metrics=[metrics])
        return int((await self.rpcs.PostRunnerReplicaTaskMetrics(posted, Context(token))).status.code)


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def annotation(name: str, task_id: str = "") -> resources_pb2.Annotation:
    return resources_pb2.Annotation(id=name, input_id="i1", task_id=task_id)


def notice(what: str, details: str = "") -> resources_pb2.Annotation:
    made = resources_pb2.Annotation()
    made.data.metadata["runner_notice"], made.data.metadata["details"] = what, details
    return made


async def told(desk: Desk, live: Live) -> list[Any]:
    frames = await desk.world.frames(live)
    return [frame.data for frame in frames if frame.status == "streaming"]


async def test_a_task_goes_to_the_main_thread_with_a_token_of_its_own(desk: Desk) -> None:
    primary = await desk.come(2)
    live = await desk.world.call("toy.AutoAnnotate", input=TEXT)
    await turns()
    assert [stream for stream in desk.runner.streams if stream.has_item] == [primary]
    request = primary.item.auto_annotation_request
    assert primary.item.id == f"task-{request.task.id}"
    assert len(request.authorization_value) >= 32
    given = request.post_model_outputs_request
    assert given.inputs[0].data.video.url == "https://example.com/a.mp4"
    assert all((given.user_app_id.user_id, given.user_app_id.app_id, given.version_id, given.inputs[0].id))
    scores = request.task.concepts[0].auto_annotation_config.threshold_range
    assert (scores.lower, scores.upper, scores.is_lower_inclusive, scores.is_upper_inclusive) == (
        0,
        1,
        True,
        True,
    )
    primary.answer("")
    await turns()
    assert live.ending is None


async def test_it_waits_for_the_main_thread_and_takes_no_other(desk: Desk) -> None:
    primary = await desk.come(0)
    await desk.begin(primary)
    other = desk.runner.open()
    live = await desk.world.call("toy.AutoAnnotate", input=TEXT)
    await turns()
    assert not other.has_item
    again = desk.runner.open(primary=True, tasks=frozenset({primary.item.id}))
    await turns()
    assert again.has_item
    assert live.ending is None


async def test_a_task_takes_no_place_of_other_calls(desk: Desk) -> None:
    primary = await desk.come(0)
    await desk.begin(primary)
    again = desk.runner.open(primary=True, tasks=frozenset({primary.item.id}))
    await turns()
    live = await desk.world.call("toy.predict", input=text_of("a"))
    await turns()
    again.answer("aa")
    assert (await desk.world.last(live)).data == "aa"


async def test_more_tasks_than_a_replica_does_at_once_wait(desk: Desk) -> None:
    primary, lives = await desk.come(0), []
    running: set[str] = set()
    for _ in range(AT_ONCE):
        live, request = await desk.begin(primary)
        lives.append(live)
        running.add(f"task-{request.task.id}")
        primary = desk.runner.open(primary=True, tasks=frozenset(running))
        await turns()
    waiting = await desk.world.call("toy.AutoAnnotate", input=TEXT)
    await turns()
    assert not primary.has_item
    lives[3].cancel(CancelReason.CALLER)
    await turns()
    assert primary.has_item
    assert waiting.ending is None


async def test_what_is_posted_comes_as_items_each_once(desk: Desk) -> None:
    live, request = await desk.begin(await desk.come())
    token, task_id = request.authorization_value, request.task.id
    await desk.post(token, notice("task-active"), annotation("a", task_id), annotation("b"))
    answer = await desk.post(token, annotation("b"), annotation("c", "another"), annotation("d"))
    assert answer.status.code == codes.MIXED_STATUS
    assert [one.status.code for one in answer.annotations] == [0, codes.ANNOTATION_INVALID_ARGUMENT, 0]
    await desk.post(token, notice("task-completed"))
    assert await desk.measure(token, task_id, 7) == codes.SUCCESS
    items = await told(desk, live)
    assert [one["annotation"]["id"] for one in items[:-1]] == ["a", "b", "d"]
    assert items[-1] == {"metrics": {"task_id": task_id, "frames_processed": 7}}
    assert (await desk.world.last(live)).status == "completed"


async def test_what_is_no_json_is_refused_alone(desk: Desk) -> None:
    live, request = await desk.begin(await desk.come())
    odd = [annotation(name) for name in ("nan", "none", "deep")]
    odd[0].data.metadata["x"] = float("nan")
    odd[1].data.metadata.fields["x"].SetInParent()
    value = odd[2].data.metadata.fields["x"]
    for _ in range(40):
        value = value.list_value.values.add()
    value.bool_value = True
    answer = await desk.post(request.authorization_value, *odd, annotation("fine"))
    refused = codes.ANNOTATION_INVALID_ARGUMENT
    assert [one.status.code for one in answer.annotations] == [refused, 0, 0, 0]
    await desk.post(request.authorization_value, notice("task-completed"))
    await desk.measure(request.authorization_value, request.task.id, 1)
    assert [one["annotation"]["id"] for one in (await told(desk, live))[:-1]] == ["none", "deep", "fine"]


async def test_ids_are_forgotten_in_the_end(desk: Desk) -> None:
    live, request = await desk.begin(await desk.come())
    task = desk.assignments.of(request.authorization_value)
    assert task is not None
    for number in range(MAX_SEEN + 10):
        task.annotated(annotation(str(number)))
    assert len(task._seen) == MAX_SEEN
    live.cancel(CancelReason.CALLER)


@pytest.mark.parametrize(
    ("what", "status", "text"),
    [("task-completed", "completed", None), ("task-failed", "error", "the task has failed: no film")],
)
async def test_the_notice_ends_the_call_where_no_metrics_follow(
    desk: Desk, what: str, status: str, text: str | None
) -> None:
    live, request = await desk.begin(await desk.come())
    await desk.post(request.authorization_value, notice(what, "no film"))
    await turns()
    assert live.ending is None
    desk.world.clock.advance(LAST_S)
    last = await desk.world.last(live)
    assert (last.status, last.error) == (status, text)


async def test_what_the_replica_refuses_ends_the_call(desk: Desk) -> None:
    primary = await desk.come()
    live = await desk.world.call("toy.AutoAnnotate", input=TEXT)
    await turns()
    token = primary.item.auto_annotation_request.authorization_value
    primary.say(code=codes.MODEL_INVALID_ARGUMENT)
    assert (await desk.world.last(live)).code == "invalid_argument"
    assert desk.assignments.of(token) is None


async def test_a_cancel_goes_to_the_replica_and_nothing_is_taken_any_more(desk: Desk) -> None:
    primary = await desk.come()
    live, request = await desk.begin(primary)
    live.cancel(CancelReason.CALLER)
    assert (await desk.world.last(live)).status == "cancelled"
    assert desk.runner.cancelled() == [f"task-{request.task.id}"]
    answer = await desk.post(request.authorization_value, annotation("late"))
    assert answer.status.code == codes.CONN_KEY_INVALID
    assert await desk.measure(request.authorization_value, request.task.id, 1) == codes.SUCCESS
    assert await desk.measure("guessed", request.task.id, 1) == codes.CONN_KEY_INVALID


async def test_one_that_waits_is_cancelled_without_a_word(desk: Desk) -> None:
    primary = await desk.come(0)
    await desk.begin(primary)
    desk.runner.open()
    live = await desk.world.call("toy.AutoAnnotate", input=TEXT)
    await turns()
    live.cancel(CancelReason.CALLER)
    assert (await desk.world.last(live)).status == "cancelled"
    assert desk.runner.cancelled() == []


async def test_a_task_that_the_replica_names_no_more_is_lost(desk: Desk) -> None:
    primary = await desk.come(0)
    live, request = await desk.begin(primary)
    named = desk.runner.open(primary=True, tasks=frozenset({primary.item.id, "task-other"}))
    desk.world.clock.advance(2 * LAST_WORDS_S)
    await turns()
    assert live.ending is None
    named.half_close()
    desk.runner.open(primary=True)
    await turns()
    await desk.post(request.authorization_value, annotation("late"))  # what is on its way still comes
    desk.world.clock.advance(LAST_WORDS_S)
    last = await desk.world.last(live)
    assert (last.status, last.code) == ("error", "unavailable")
    assert len(await told(desk, live)) == 1


async def test_who_is_behind_has_posts_wait(world: World) -> None:
    desk = Desk(world)
    owner, tasks = Owner(), TaskOwner()
    task = desk.assignments.open(owner, "r1", 100)
    task.annotated(annotation("a" * 200))
    waiting = tasks.start(desk.post(task.token, annotation("b")), awaited=True)
    await turns()
    assert len(owner.outputs) == 1
    task.credit(len(owner.outputs[0]))
    assert (await waiting).status.code == codes.SUCCESS
    assert len(owner.outputs) == 2
    task.annotated(annotation("c" * 200))
    waiting = tasks.start(desk.post(task.token, annotation("d")), awaited=True)
    await turns()
    desk.assignments.close(task)  # a call that is over keeps nobody
    assert (await waiting).status.code == codes.SUCCESS
    assert len(owner.outputs) == 3


class Owner:
    """A replica that only listens."""

    def __init__(self) -> None:
        self.outputs: list[bytes] = []

    def output_of(self, request_id: str, text: bytes) -> None:
        self.outputs.append(text)

    def end_call(self, request_id: str, end: Any) -> None:
        raise AssertionError("nothing ends here")


class Closed:
    """A guard that lets nobody in."""

    def enter(self, token: str | None, asked: Caller) -> Caller:
        raise CallError("no", ErrorCode.UNAUTHENTICATED)

    def enter_host(self, token: str | None) -> Visitor:
        raise CallError("no", ErrorCode.UNAUTHENTICATED)

    def still(self, caller: Caller) -> bool:
        return False


def test_tokens_of_tasks_are_looked_at_where_they_are_good() -> None:
    assignments = Assignments(FakeClock())
    guard = TasksGuard(Closed(), assignments)
    task = assignments.open(Owner(), "r1", 100)
    assert guard.enter(task.token, Caller(key="me")).key == "me"
    for token in (None, "", "guessed"):
        with pytest.raises(CallError):
            guard.enter(token, Caller())
    assignments.close(task)
    guard.enter(task.token, Caller())  # its last metrics may come yet
    for _ in range(MAX_OVER):
        assignments.close(assignments.open(Owner(), "r1", 100))
    with pytest.raises(CallError):
        guard.enter(task.token, Caller())


async def test_a_runner_without_such_a_thread_is_given_no_tasks(world: World) -> None:
    runner = FakeReplica(replicas_of(world.hub, world.clock), world.clock)
    await runner.come(1)
    assert "toy.AutoAnnotate" not in (await world.hub.describe()).commands
