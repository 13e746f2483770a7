"""A data stream, without any I/O: whatever a replica says, an item has outputs and then one end."""

from __future__ import annotations

from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from gateway.clarifai.replicas import METHODS, said
from penstock.errors import ErrorCode
from penstock.gateway.clarifai.binding import ServedModel
from penstock.gateway.clarifai.forms import Form, RawForm
from penstock.gateway.clarifai.streams import DataStream, Event, Finished, Lost, Phase, Said
from penstock.gateway.clarifai.typed import TypedForm

ITEM, OTHER = "a" * 32, "b" * 32
TOY = ServedModel("toy", "u1")
PREDICT, GENERATE, STREAM = (TypedForm(TOY, method) for method in METHODS)
FORMS: tuple[Form, ...] = (PREDICT, GENERATE, STREAM, *(RawForm(form.kind) for form in (PREDICT, GENERATE)))

MESSAGES = st.one_of(
    st.builds(lambda text: said(ITEM, text), st.text(max_size=5)),
    st.just(said(ITEM)),
    st.just(said(ITEM, "one", "two")),
    st.just(said(OTHER, "one")),
    st.just(said("", "one", top=codes.RUNNER_PROCESSING_FAILED)),
    st.just(said(ITEM, top=codes.RUNNER_STREAM_START)),
    st.just(said(ITEM, code=codes.FAILURE)),
    st.just(Said(runner_item_id=ITEM)),
    st.just(Said()),
    st.binary(max_size=12),
)
STEPS = st.lists(st.one_of(MESSAGES, st.sampled_from(("half-close", "cut", "cancel", "begin"))), max_size=12)


def play(form: Form, steps: list[Said | bytes | str]) -> tuple[DataStream, list[Event]]:
    stream, events = DataStream(), []
    stream.begin(ITEM, form)
    for step in steps:
        if step == "half-close":
            events += stream.half_close()
        elif step == "cut":
            events += stream.cut("it was cut")
        elif step == "cancel":
            stream.cancel()
        elif isinstance(step, bytes):
            try:
                events += stream.feed(Said.FromString(step))
            except DecodeError:
                events += stream.garbage("it is none")
        elif isinstance(step, Said):
            events += stream.feed(step)
    return stream, events


@given(form=st.sampled_from(FORMS), steps=STEPS)
def test_an_item_has_outputs_and_then_one_end(form: Form, steps: list[Said | bytes | str]) -> None:
    stream, events = play(form, steps)
    ends = [event for event in events if not isinstance(event, bytes)]
    assert len(ends) <= 1
    assert not ends or events[-1] is ends[0]
    assert bool(ends) == (stream.phase is not Phase.BUSY)
    if "cancel" in steps and not ends:
        before = steps.index("cancel")
        assert len(events) <= len([step for step in steps[:before] if isinstance(step, (Said, bytes))]) * 2
    over = "half-close" in steps or "cut" in steps
    assert not over or ends
    if form.kind == PREDICT.kind:
        assert not [event for event in events if isinstance(event, bytes)]
    rest = [*stream.half_close(), *stream.feed(said(ITEM, "late")), *stream.cut("late")]
    assert len([event for event in rest if not isinstance(event, bytes)]) + len(ends) == 1


@given(before=st.integers(0, 3), after=st.integers(0, 3))
def test_a_cancelled_item_has_no_more_outputs(before: int, after: int) -> None:
    outputs = [said(ITEM, "x")]
    _, events = play(GENERATE, [*outputs * before, "cancel", *outputs * after, "half-close"])
    assert events == [b'"x"'] * before + [Finished(cut=True)]


def test_an_answer_is_told_before_the_replica_closes_its_side() -> None:
    stream, events = play(PREDICT, [said(ITEM, "yes")])
    assert events == [Finished(answer=b'"yes"')]
    assert stream.phase is Phase.ENDED
    assert stream.half_close() == []
    assert stream.phase is Phase.OVER


def test_a_failure_ends_an_item_with_what_the_model_says() -> None:
    message = said(ITEM, code=codes.FAILURE)
    message.runner_item_outputs[0].multi_output_response.status.details = "no cats"
    _, events = play(GENERATE, [said(ITEM, "x"), message, "half-close"])
    assert events[0] == b'"x"'
    assert isinstance(events[1], Finished)
    assert events[1].error is not None
    assert (events[1].error.code, events[1].error.message) == (ErrorCode.COMMAND_FAILED, "no cats")
    assert len(events) == 2


def test_what_the_runner_itself_fails_at_may_be_tried_again() -> None:
    _, events = play(PREDICT, [said("", top=codes.RUNNER_PROCESSING_FAILED)])
    assert isinstance(events[0], Finished)
    assert events[0].error is not None
    assert (events[0].error.code, events[0].error.retryable) == (ErrorCode.UNAVAILABLE, True)


def test_what_is_not_its_own_ends_the_item() -> None:
    stream, events = play(GENERATE, [said(ITEM, "x"), said(OTHER, "y"), said(ITEM, "z")])
    assert events[0] == b'"x"'
    assert isinstance(events[1], Finished)
    assert events[1].error is not None
    assert events[1].error.code is ErrorCode.UPSTREAM_FAILED
    assert OTHER in stream.fault
    assert len(events) == 2


def test_a_generator_may_yield_nothing_but_an_answer_must_be() -> None:
    assert play(GENERATE, ["half-close"])[1] == [Finished()]
    assert isinstance(play(PREDICT, ["half-close"])[1][0], Lost)
    assert isinstance(play(GENERATE, [said(ITEM, "x"), "cut"])[1][1], Lost)


def test_only_an_item_that_runs_is_given_input() -> None:
    stream = DataStream()
    assert stream.end_input() is None
    stream.begin(ITEM, STREAM)
    told = stream.carry(STREAM.further(b'"x"', b"{}"), "r")
    assert told is not None
    assert told.runner_items[0].processing_info.runner_method_type == STREAM.kind
    end = stream.end_input()
    assert end is not None
    assert end.status.code == codes.RUNNER_STREAM_END
    assert not end.runner_items
    assert stream.end_input() is None
    stream.cancel()
    assert stream.carry(STREAM.further(b'"x"', b"{}"), "r") is None
