"""Clarifai's tasks of annotation: how they are read, and what is written of what a model finds."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clarifai_grpc.grpc.api import resources_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from penstock.annotate.clarifai.annotator import TaskAnnotator, model_of
from penstock.annotate.clarifai.answers import ClarifaiAdapter
from penstock.annotate.clarifai.tasks import DAY, Task, read_task
from penstock.annotate.clarifai.written import annotations_of
from penstock.annotate.errors import AnswerError
from penstock.annotate.media.messages import Limits
from penstock.annotate.records import Frame
from penstock.annotate.refine import Refiner, Spot
from penstock.annotate.settings import Model, Settings
from penstock.errors import CallError
from penstock.protocol.runners import Offer
from penstock.runtime.app import App
from penstock.runtime.offers import make_offer
from runner.clarifai.tasks import Watched, concept, detectors, request

pytestmark = pytest.mark.anyio

R = resources_pb2
ANY = R.TAG | R.BOUNDING_BOX | R.POLYGON | R.POINT | R.SPAN | R.MASK
BEGINS = datetime(2026, 11, 20, 21, 30)
Annotation = R.Annotation


def picture(width: int = 160, height: int = 120) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with App(detectors(Watched())) as app:
        yield app


async def annotated(
    app: App, *concepts: R.TaskConcept, method: str = "shapes", now: datetime = BEGINS
) -> list[Annotation]:
    described, bound = await app.describe(), app.bound
    offer = make_offer(bound[method], described.commands[method])
    made = request(*concepts, image=picture(), method=method)
    plan = TaskAnnotator(now=lambda: now).plan(made, offer, app)
    return [one async for looked in plan.frames() for one in looked.annotations]


async def of_label(app: App, label: str, bits: int) -> list[R.Region]:
    """Return the regions that are written of one concept of a picture, with such types of data."""
    found = await annotated(app, concept(label, bits))
    assert not any(one.data.frames for one in found)  # a picture has none
    return [region for one in found for region in one.data.regions]


def points(polygon: R.Polygon) -> list[tuple[float, float]]:
    return [(round(point.col * 160), round(point.row * 120)) for point in polygon.points]


def fields(region: R.Region) -> set[str]:
    return {field.name for field, _ in region.region_info.ListFields()}


async def test_each_type_of_data_is_written_where_it_is_asked_for(app: App) -> None:
    (boxed,) = await of_label(app, "boxed", R.BOUNDING_BOX)
    box = boxed.region_info.bounding_box
    assert [box.left_col, box.top_row, box.right_col, box.bottom_row] == pytest.approx([0.1, 0.1, 0.5, 0.5])

    holed = await of_label(app, "holed", R.POLYGON)
    assert all(fields(region) == {"polygon"} for region in holed)
    assert len({region.id for region in holed}) == len(holed) == 2  # cut through its hole: no ring has one
    assert sum(map(area, (points(region.region_info.polygon) for region in holed))) == 80 * 80 - 20 * 20

    (masked,) = await of_label(app, "masked", R.MASK)
    assert fields(masked) == {"mask"}
    mask = np.asarray(Image.open(io.BytesIO(masked.region_info.mask.image.base64)))
    assert (mask.shape, mask.dtype) == ((120, 160), np.uint8)
    assert mask[:, 10:15].all()
    assert mask.sum() == 255 * 5 * 120

    (outlined,) = await of_label(app, "masked", R.POLYGON)
    assert sorted(points(outlined.region_info.polygon)) == [(10, 0), (10, 120), (15, 0), (15, 120)]

    (nose,) = await of_label(app, "nose", R.POINT)
    assert (nose.region_info.point.col, nose.region_info.point.row) == (0.5, 0.25)
    (body,) = await of_label(app, "body", R.POINT)
    assert fields(body) == {"keypoint_locations"}
    assert len(body.region_info.keypoint_locations) == 2  # one is not seen

    (sign,) = await of_label(app, "sign", R.SPAN)
    span = sign.region_info.span
    assert (fields(sign), span.raw_text, span.char_start, span.char_end) == ({"span"}, "EXIT", 0, 4)


def area(ring: list[tuple[float, float]]) -> float:
    pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in pairs)) / 2


@pytest.mark.parametrize(
    ("label", "bits"),
    [
        ("boxed", ANY & ~R.BOUNDING_BOX),
        ("holed", R.MASK | R.POINT | R.SPAN | R.TAG),
        ("masked", R.TAG),
        ("nose", R.POLYGON),
        ("sign", R.POINT),
    ],
)
async def test_other_types_are_not_written(app: App, label: str, bits: int) -> None:
    assert await of_label(app, label, bits) == []


async def test_without_types_all_is_written(app: App) -> None:
    (sign,) = await of_label(app, "sign", 0)
    assert fields(sign) == {"bounding_box"}
    assert sign.data.text.raw == "EXIT"


async def test_tags_are_of_the_whole_picture(app: App) -> None:
    (found,) = await annotated(app, concept("scene", R.TAG, value=1.0))
    assert [one.id for one in found.data.concepts] == ["scene"]
    assert await annotated(app, concept("scene", R.BOUNDING_BOX)) == []


async def test_statuses_are_those_of_the_concepts(app: App) -> None:
    found = await annotated(
        app,
        concept("boxed", status=codes.ANNOTATION_PENDING),
        concept("sign", status=codes.ANNOTATION_AWAITING_REVIEW),
    )
    assert [one.status.code for one in found] == [codes.ANNOTATION_PENDING, codes.ANNOTATION_AWAITING_REVIEW]


@pytest.mark.parametrize(
    ("polygon", "kept"),
    [
        ([(0.4, 0.4), (1, 0.4), (1, 1), (0.4, 1)], ["boxed"]),
        ([(0, 0), (1, 0), (1, 1), (0, 1)], ["boxed"]),
        ([(0.6, 0.6), (1, 0.6), (1, 1), (0.6, 1)], []),
    ],
)
async def test_regions_are_kept_that_touch_the_polygon(
    app: App, polygon: list[tuple[float, float]], kept: list[str]
) -> None:
    found = await annotated(app, concept("boxed", polygon=polygon))
    assert [region.data.concepts[0].id for one in found for region in one.data.regions] == kept


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ((0.9, True, 1.0, True), 1),
        ((0.9, False, 1.0, True), 0),
        ((0.0, True, 0.9, True), 1),
        ((0.0, True, 0.9, False), 0),
        ((0.9, True, 0.9, True), 1),
        ((0.9, True, 0.9, False), 0),
        (None, 0),  # from 0 to 0, without its ends
    ],
)
async def test_scores_are_within_their_range(app: App, scores: Any, kept: int) -> None:
    assert len(await annotated(app, concept("boxed", scores=scores))) == kept


def at(task_concept: R.TaskConcept, first: int, last: int, *, ends: tuple[bool, bool]) -> R.TaskConcept:
    """Give a concept its hours, in seconds."""
    hours = task_concept.auto_annotation_config.time_of_day_range
    hours.is_start_inclusive, hours.is_end_inclusive = ends
    for moment, seconds in ((hours.start, first), (hours.end, last)):
        moment.hours, moment.minutes, moment.seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    return task_concept


def read(made: Any) -> Task:
    return read_task(made, Model(command="c"), BEGINS, Limits())


@given(
    first=st.integers(0, 86_400),
    last=st.integers(0, 86_400),
    ends=st.tuples(st.booleans(), st.booleans()),
    now=st.integers(0, 86_399),
)
def test_hours_are_those_of_the_range(first: int, last: int, ends: tuple[bool, bool], now: int) -> None:
    task = read(request(at(concept("a"), first, last, ends=ends), image=b"x"))
    kept = task.settings.refining.concepts
    midnight = datetime(2026, 11, 20)
    found = bool(kept) and kept[0].takes_time(midnight + timedelta(seconds=now), Fraction(0))
    assert found == _within(first, last, ends, now)


def _within(first: int, last: int, ends: tuple[bool, bool], now: int) -> bool:
    """Say it anew, in whole microseconds of a day that is gone through from ``first`` on."""
    begin = first * 10**6 + (0 if ends[0] else 1)
    length = last * 10**6 + (1 if ends[1] else 0) - begin
    length = DAY if length >= DAY else length % DAY
    return (now * 10**6 - begin) % DAY < length


async def test_nothing_passes_at_another_hour(app: App) -> None:
    night = at(concept("scene", R.TAG), 22 * 3600, 6 * 3600, ends=(True, False))
    assert await annotated(app, night, now=datetime(2026, 11, 20, 23)) != []
    assert await annotated(app, night, now=datetime(2026, 11, 20, 6)) == []


def test_times_that_are_none_are_refused() -> None:
    made = at(concept("a"), 0, 0, ends=(True, True))
    made.auto_annotation_config.time_of_day_range.end.hours = 25
    with pytest.raises(CallError, match="a time that is none"):
        read(request(made, image=b"x"))


# -- answers of Clarifai's models ----------------------------------------------------------------------


def mask(width: int, height: int) -> dict[str, str]:
    file = io.BytesIO()
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, :2] = 255
    Image.fromarray(pixels).save(file, "PNG")
    return {"base64": base64.urlsafe_b64encode(file.getvalue()).decode()}


def test_answers_are_regions_concepts_or_frames() -> None:
    box = {"box": [0.1, 0.2, 0.5, 0.6], "concepts": [{"name": "Face", "id": "f1", "value": 0.5}]}
    tag = {"name": "indoors", "value": 0.75}
    forms = ([box, tag], {"regions": [box], "concepts": [tag]}, [[box], [tag]], [{"regions": [box]}, tag])
    for form in forms:
        found = ClarifaiAdapter(by_id=True).read(form, 100, 200, "a.png, frame 0")
        (region,) = found.regions
        assert region.box == pytest.approx((10, 40, 50, 120))
        assert (region.label, region.score) == ("f1", 0.5)
        assert [(one.label, one.score) for one in found.tags] == [("indoors", 0.75)]
    assert ClarifaiAdapter().read(box, 100, 200, "").regions[0].label == "Face"


def test_regions_of_several_concepts_are_of_one_place() -> None:
    two = [{"name": "cat", "value": 0.5}, {"name": "animal", "value": 0.9}]
    answer = [{"point": [0.5, 0.5, 0], "mask": mask(10, 8), "concepts": two, "track_id": "7", "text": "t"}]
    cat, animal = ClarifaiAdapter().read(answer, 10, 8, "").regions
    assert cat.attrs == animal.attrs != {}
    assert (cat.kp, cat.track, cat.text) == (((5.0, 4.0, 2),), "7", "t")
    assert cat.mask is not None
    assert cat.mask.area == 16


@pytest.mark.parametrize(
    "answer",
    [
        "text",
        7,
        None,
        [1],
        {"box": [1, 2]},
        [{"name": 3}],
        [{"mask": mask(3, 3)}],
        [{"mask": {"base64": "!"}}],
    ],
)
def test_other_answers_are_refused(answer: Any) -> None:
    with pytest.raises(AnswerError, match=r"a\.png, frame 0"):
        ClarifaiAdapter().read(answer, 10, 8, "a.png, frame 0")


async def test_concepts_of_one_place_are_one_annotation() -> None:
    task = read(request(concept("cat"), concept("animal"), concept("low"), image=b"x"))
    both = [{"name": name, "value": 0.5} for name in ("cat", "animal", "unasked")]
    answer = ClarifaiAdapter().read([{"box": [0, 0, 1, 1], "concepts": both}], 10, 8, "")
    spot = Spot(src="sha256:0", copy=0, frame=0, seconds=Fraction(0), w=10, h=8)
    refined = Refiner(task.settings.refining).refine(answer, spot)
    frame = Frame(src="s", name="n", frame=0, pts=0, tb="1/1", t="0", w=10, h=8, regions=refined.regions)
    (one,) = annotations_of(frame, task)
    assert [each.id for each in one.data.regions[0].data.concepts] == ["cat", "animal"]


def test_a_command_is_asked_in_the_form_that_it_takes() -> None:
    image = {"x-clarifai": "image", "type": "object"}
    found = model_of(Offer(name="a", input_schema={"properties": {"n": {"type": "integer"}, "img": image}}))
    assert (found.param, found.style) == ("img", "clarifai-ids")
    with pytest.raises(CallError, match="streams"):
        model_of(Offer(name="a", streaming=True, input_schema={"properties": {"img": image}}))
    with pytest.raises(ValueError, match="jpeg or png"):
        Settings(models=(Model(command="a", style="clarifai"),))
