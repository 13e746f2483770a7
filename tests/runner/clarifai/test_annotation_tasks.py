"""Tasks of annotation: from a server's item over the media and the model to what is posted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from annotate import films
from penstock.annotate.clarifai.annotator import TaskAnnotator
from penstock.calls.limits import CallLimits
from penstock.runner.clarifai.address import read_address
from penstock.runner.clarifai.annotation_tasks import EARLY_S, AnnotationTasks
from penstock.runner.clarifai.methods import Methods
from penstock.runner.clarifai.runner import ClarifaiRunner
from penstock.runtime.app import App
from penstock.testing import FakeClock
from runner.clarifai.fake_api import FakeApi, notice_of
from runner.clarifai.fake_server import FakeServer, Said, Visit, cancel, fake_server, response_of, success
from runner.clarifai.one_loop import anyio_backend, one_loop
from runner.clarifai.running import running
from runner.clarifai.tasks import TOKEN, Watched, concept, detectors, item, request, served

__all__ = ["anyio_backend", "one_loop"]  # fixtures

pytest.importorskip("av")
pytestmark = pytest.mark.anyio

TAG, BOX = resources_pb2.TAG, resources_pb2.BOUNDING_BOX


class Place:
    """A server, the API behind it, and a runner that has dialled both."""

    def __init__(self, server: FakeServer, api: FakeApi, seen: Watched, runner: ClarifaiRunner) -> None:
        self.server, self.api, self.seen, self.runner = server, api, seen, runner

    async def hand(self, made: service_pb2.AutoAnnotationRequest) -> list[Said]:
        """Hand a task to the primary stream, and return what is said of it."""
        visit = await self.primary()
        return await visit.ask(success(item(made)))

    async def until(self, notice: str) -> list[Any]:
        """Return what is posted up to a notice, with it, once the task is over."""
        found = await self.api.until(notice)
        await self.runner.annotated()
        return found

    async def primary(self) -> Visit:
        """Return the next stream for tasks."""
        while True:
            visit = await self.server.visit()
            if visit.metadata["x-request-id"].endswith("-p"):
                return visit


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at ten frames a second."""
    return films.write(tmp_path_factory.mktemp("film") / "a.mp4", 20, rate=10)


@asynccontextmanager
async def place(*, private: bool = True) -> AsyncIterator[Place]:
    api, seen = FakeApi(), Watched()
    app = App(detectors(seen), limits=CallLimits(cancel_grace_s=1.0, drain_s=5.0))
    async with fake_server(more=api.handlers()) as server:
        annotator = TaskAnnotator(private=private)
        async with running(server, app=app, threads=2, annotator=annotator, chance=lambda: 0.0) as runner:
            with anyio.fail_after(60):
                yield Place(server, api, seen, runner)


async def test_a_film_is_annotated_and_posted(film: Path) -> None:
    half = 0.5, False, 1.0, True
    concepts = (
        concept("square", BOX, half, value=0.25),
        concept("spot", BOX, half),
        concept("indoors", TAG, (0.5, True, 0.5, True), status=codes.ANNOTATION_AWAITING_REVIEW),
    )
    with served(film.parent) as url:
        async with place() as at:
            (said,) = await at.hand(request(*concepts, url=f"{url}/a.mp4", sample_ms=200))
            assert response_of(said).status.code == codes.SUCCESS
            assert not response_of(said).outputs
            active, *found, completed = await at.until("task-completed")
    assert notice_of(active) == "task-active"
    assert dict(completed.data.metadata)["details"] == "10 frames"
    squares = [one for one in found if one.data.frames[0].data.regions]
    tags = [one for one in found if one.data.frames[0].data.concepts]
    assert len(found) == len(squares) + len(tags) == 20  # spots are at the open end of their range
    assert [one.data.frames[0].frame_info.time for one in squares] == list(range(0, 2000, 200))
    assert len({one.id for one in found}) == 20
    one, region = squares[1], squares[1].data.frames[0].data.regions[0]
    assert (one.input_id, one.task_id, one.worker.model.model_version.id) == ("i1", "T1", "v1")
    assert {each.status.code for each in squares} == {codes.ANNOTATION_SUCCESS}
    assert {each.status.code for each in tags} == {codes.ANNOTATION_AWAITING_REVIEW}
    box = region.region_info.bounding_box
    sides = [box.left_col * 160, box.top_row * 120, box.right_col * 160, box.bottom_row * 120]
    assert sides == pytest.approx([12, 20, 52, 80])
    assert (region.track_id, region.value) == ("t1", pytest.approx(0.75))
    (said_of_it,) = region.data.concepts
    assert (said_of_it.id, said_of_it.name, said_of_it.value) == ("square", "Square", 0.25)
    assert dict(said_of_it.metadata) == {"prediction_score": 0.75}
    assert at.api.tokens == {f"Key {TOKEN}"}
    assert (at.api.total("frames_processed"), at.api.total("frames_dropped")) == (10, 0)
    assert at.api.total("annotations_uploaded") == 22  # its notices, too
    assert at.api.metrics[-1].end_frame_time.value == 1800


async def test_it_goes_on_beside_items_and_is_named_in_hellos(film: Path) -> None:
    with served(film.parent) as url:
        async with place() as at:
            at.seen.blocks_at = 5
            made = request(concept("square"), url=f"{url}/a.mp4")
            (said,) = await at.hand(made)
            assert said.runner_item_id == "task-T1"
            await at.seen.going.wait()
            assert await at.hand(made) == []  # it is there already, and goes on
            again = await at.primary()
            assert again.hello.status.internal_details == "task runner item ids: task-T1"
            assert at.seen.cancelled == 0


async def test_a_cancel_ends_it_within_a_frame_and_it_can_begin_anew(film: Path) -> None:
    with served(film.parent) as url:
        async with place() as at:
            at.seen.blocks_at = 5
            made = request(concept("square"), url=f"{url}/a.mp4")
            control = await at.server.control()
            await at.hand(made)
            await at.seen.going.wait()
            await control.say(cancel("task-T1"))
            with anyio.fail_after(5):
                await at.runner.annotated()
            assert at.api.metrics
            assert at.seen.cancelled == 1
            assert at.seen.looked <= 5 + 4 + 1  # those under way with it
            posted = [one for batch in drained(at.api) for one in batch.annotations]
            assert [notice_of(one) for one in posted if notice_of(one)] in ([], ["task-active"])
            at.seen.blocks_at = None
            (said,) = await at.hand(made)
            assert response_of(said).status.code == codes.SUCCESS
            assert len(await at.until("task-completed")) == 22


def drained(api: FakeApi) -> list[service_pb2.PostAnnotationsRequest]:
    return [api.posts.get_nowait() for _ in range(api.posts.qsize())]


async def test_a_cancel_may_come_before_its_task() -> None:
    clock, made = FakeClock(), item(request(concept("square"), url="http://127.0.0.1:1/a.mp4"))
    async with App(detectors(Watched())) as app:
        methods, address = await Methods.of(app), read_address("http://127.0.0.1:1", None)
        tasks = AnnotationTasks(TaskAnnotator(), app, methods, address, clock, lambda: 0.0)

        def begun() -> int:
            response = tasks.begin(made)
            assert response is not None
            return int(response.status.code)

        assert not tasks.cancel(made.id)
        assert begun() == codes.REQUEST_CANCELED_BY_USER
        assert begun() == codes.SUCCESS  # it counts once
        await tasks.aclose()
        assert not tasks.cancel(made.id)
        clock.advance(EARLY_S)
        assert begun() == codes.SUCCESS  # what was cancelled long ago was another one
        assert tasks.cancel(made.id)
        assert begun() == codes.SUCCESS  # also while the one that was cancelled has not ended yet
        assert tasks.ids == (made.id,)
        await tasks.aclose()
        assert tasks.ids == ()


@pytest.mark.parametrize(
    "trouble",
    [
        [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED],
        [codes.CONN_THROTTLED, codes.INTERNAL_UNCATEGORIZED],
    ],
)
async def test_a_post_that_fails_is_tried_again(film: Path, trouble: list[Any]) -> None:
    with served(film.parent) as url:
        async with place() as at:
            at.api.trouble = list(trouble)
            at.api.refused = lambda one: one.data.frames and one.data.frames[0].frame_info.time == 300
            await at.hand(request(concept("square"), url=f"{url}/a.mp4"))
            found = await at.until("task-completed")
    assert len({one.id for one in found if not notice_of(one)}) == len(found) - 2 == 20
    assert at.api.total("annotations_failed") == 1
    assert at.api.total("annotations_uploaded") == 21


@pytest.mark.parametrize(
    ("trouble", "tried"),
    [
        ([grpc.StatusCode.PERMISSION_DENIED], 1),
        ([codes.CONN_KEY_INVALID], 1),
        ([grpc.StatusCode.UNAVAILABLE] * 50, 6),
    ],
)
async def test_a_task_that_cannot_be_posted_ends(film: Path, trouble: list[Any], tried: int) -> None:
    with served(film.parent) as url:
        async with place() as at:
            at.api.trouble = list(trouble)
            await at.hand(request(concept("square"), url=f"{url}/a.mp4"))
            await at.runner.annotated()
            assert at.api.tried == tried
            assert at.api.posts.empty()
            assert at.api.total("batches_dropped") > 0


@pytest.mark.parametrize(
    ("method", "path", "why"),
    [
        ("predict", "none.mp4", "answers HTTP 404"),
        ("predict", "a.txt", "a.txt"),
        ("picky", "a.mp4", "the model failed on each of 20 frames"),
    ],
)
async def test_what_fails_is_told_as_a_notice(film: Path, method: str, path: str, why: str) -> None:
    (film.parent / "a.txt").write_text("no film")
    with served(film.parent) as url:
        async with place() as at:
            await at.hand(request(concept("square"), url=f"{url}/{path}", method=method))
            *_, last = await at.until("task-failed")
    assert why in dict(last.data.metadata)["details"]


async def test_media_of_private_networks_are_not_read(film: Path) -> None:
    with served(film.parent) as url:
        async with place(private=False) as at:
            await at.hand(request(concept("square"), url=f"{url}/a.mp4"))
            *_, last = await at.until("task-failed")
    assert "--private-media" in dict(last.data.metadata)["details"]


def changed(**fields: Any) -> service_pb2.AutoAnnotationRequest:
    made = request(concept("square"), url="https://example.com/a.mp4")
    predict = made.post_model_outputs_request
    for name, value in fields.items():
        if name == "url":
            predict.inputs[0].data.video.url = value
        elif name == "input_id":
            predict.inputs[0].id = value
        elif name == "method":
            predict.inputs[0].data.metadata["_method_name"] = value
        elif name == "concepts":
            del made.task.concepts[:]
            made.task.concepts.extend(value)
        else:
            setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (changed(url=""), "neither has a URL or bytes"),
        (changed(url="file:///etc/passwd"), "neither http nor https"),
        (changed(url="rtsp://cam/1"), "neither http nor https"),
        (changed(input_id=""), "the id of its input"),
        (changed(concepts=[]), "0 concepts"),
        (changed(concepts=[concept("a"), concept("a")]), "twice"),
        (changed(concepts=[concept("a", 64)]), "bits that are not known here (64)"),
        (changed(concepts=[concept("a", status=codes.TASK_DONE)]), "status_code 54002"),
        (changed(concepts=[concept("a", polygon=[(0, 0), (1, 1)])]), "three points"),
        (
            changed(concepts=[concept("a", TAG, polygon=[(0, 0), (1, 1), (0, 1)])]),
            "a tag is of the whole frame",
        ),
        (changed(authorization_value=""), "authorization_value"),
        (changed(authorization_value="two\nlines"), "authorization_value"),
        (changed(method="words"), "no parameter that takes a picture"),
        (changed(method="nope"), "no method 'nope'"),
    ],
)
async def test_what_makes_no_sense_is_refused_at_once(
    made: service_pb2.AutoAnnotationRequest, why: str
) -> None:
    async with place() as at:
        (said,) = await at.hand(made)
        status = response_of(said).status
        assert (said.status.code, status.code) == (codes.SUCCESS, codes.MODEL_INVALID_ARGUMENT)
        assert why in status.details
        assert at.runner.annotating == ()
