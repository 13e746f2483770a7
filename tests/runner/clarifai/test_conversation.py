"""What a server says on one stream, to the last message: nothing it says breaks the runner."""

from __future__ import annotations

from typing import Any

import pytest
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.runner.clarifai.conversation import (
    Again,
    Cancelled,
    Conversation,
    EndOfInput,
    More,
    Passed,
    Refused,
    Step,
    Unwelcome,
    Work,
    Wrong,
    cancelled_ids,
)
from runner.clarifai.fake_server import GENERATE, STREAM, UNARY, Answer, cancel, item, status, success


def steps(*answers: Answer) -> list[Step]:
    conversation = Conversation()
    return [step for answer in answers for step in conversation.heard(answer)]


def kinds(*answers: Answer) -> list[type]:
    return [type(step) for step in steps(*answers)]


def bare(item_id: str, method_type: int = UNARY, code: int = 0) -> service_pb2.RunnerItem:
    made = service_pb2.RunnerItem(id=item_id)
    made.processing_info.runner_method_type = method_type
    made.processing_info.status.code = code
    return made


@pytest.mark.parametrize("method_type", [UNARY, GENERATE, STREAM])
def test_an_item_is_work_with_the_servers_name_for_the_request(method_type: int) -> None:
    [work] = steps(success(item("a", "predict", method_type), req_id="req-1"))
    assert isinstance(work, Work)
    assert (work.item.id, work.request_id) == ("a", "req-1")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (success(), Again),
        (status(codes.RUNNER_NEEDS_RETRY), Again),
        (status(codes.RUNNER_STREAM_END), Refused),
        (status(codes.ZERO), Unwelcome),
        (status(codes.FAILURE), Unwelcome),
        (status(codes.CONN_KEY_INVALID), Unwelcome),
        (status(codes.RUNNER_STREAM_START), Unwelcome),
        (status(codes.RUNNER_ITEM_CANCELLED), Unwelcome),
        (status(987654), Unwelcome),
        (success(item("a", "predict"), item("b", "predict")), Refused),
    ],
)
def test_what_comes_first_and_is_no_item(answer: Answer, expected: type) -> None:
    assert kinds(answer, success(item("late", "predict"))) == [expected]


def test_a_status_is_told_in_the_servers_words() -> None:
    [step] = steps(status(codes.CONN_KEY_INVALID, "no such key"))
    assert step == Unwelcome("CONN_KEY_INVALID: no such key")


def test_an_item_of_a_status_that_is_no_success_is_no_work() -> None:
    answer = success(item("a", "predict"))
    answer.status.code = codes.FAILURE
    assert kinds(answer) == [Unwelcome]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (bare("a"), "no request"),
        (item("", "predict"), "id has 1 to 128"),
        (item("x" * 129, "predict"), "id has 1 to 128"),
        (item("a b", "predict"), "id has 1 to 128"),
        (item("a", "predict", resources_pb2.STREAMING_UNARY), "STREAMING_UNARY"),
        (item("a", "predict", 0), "no method type"),
        (
            service_pb2.RunnerItem(id="task-1", auto_annotation_request=service_pb2.AutoAnnotationRequest()),
            "auto-annotation",
        ),
        (service_pb2.RunnerItem(id="a", sync_state_request=service_pb2.SyncStateRequest()), "agent"),
    ],
)
def test_what_is_not_served_is_refused_with_its_reason(made: Any, why: str) -> None:
    [step] = steps(success(made))
    assert isinstance(step, Refused)
    assert why in step.why


def test_input_follows_and_ends() -> None:
    first, more = item("a", "stream", STREAM, texts="x"), item("a", "stream", STREAM, texts="y")
    assert kinds(
        success(first), success(more), status(codes.RUNNER_STREAM_END), success(more), cancel("a")
    ) == [Work, More, EndOfInput, Passed, Cancelled]


def test_a_further_item_without_a_request_ends_the_item_with_an_error() -> None:
    """Also one that says the end: that is a status of the message, and servers would wait for an answer."""
    first = item("a", "stream", STREAM, texts="x")
    assert kinds(success(first), success(bare("a", STREAM, codes.RUNNER_STREAM_END))) == [Work, Wrong]


@pytest.mark.parametrize("method_type", [UNARY, GENERATE])
def test_where_no_input_follows_what_comes_is_passed_over_but_a_cancel_is_not(method_type: int) -> None:
    first = item("a", "predict", method_type)
    said = kinds(
        success(first), success(first), status(codes.FAILURE), success(item("b", "predict")), cancel("a")
    )
    assert said == [Work, Passed, Passed, Passed, Cancelled]
    assert kinds(success(first), status(codes.RUNNER_STREAM_END)) == [Work]


def test_a_failure_in_the_middle_of_input_is_a_cancel() -> None:
    first = item("a", "stream", STREAM, texts="x")
    assert kinds(success(first), status(codes.FAILURE)) == [Work, Cancelled]


def test_behind_a_cancel_nothing_is_done() -> None:
    first, end = item("a", "stream", STREAM, texts="x"), cancel("a").runner_items[0]
    assert kinds(success(first), success(end, end, first), success(first)) == [Work, Cancelled]


def test_a_cancel_on_the_control_stream_may_name_several() -> None:
    answer = success(*(cancel(name).runner_items[0] for name in "ab"))
    answer.runner_items.append(item("c", "predict"))
    answer.runner_items.append(bare("", code=codes.RUNNER_ITEM_CANCELLED))
    assert cancelled_ids(answer) == ["a", "b"]


@forall(st.binary(max_size=200))
def test_any_bytes_that_are_a_message_are_understood(data: bytes) -> None:
    answer = Answer()
    try:
        answer.ParseFromString(data)
    except Exception:  # noqa: BLE001 - gRPC ends such a stream by itself
        return
    conversation = Conversation()
    conversation.heard(answer)
    conversation.heard(success(item("a", "predict")))
    cancelled_ids(answer)


class AnyTalk(RuleBasedStateMachine):
    """A server that says anything, in any order; a model of what may be made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation()
        self.item: str | None = None
        self.method_type = 0
        self.input_ended = False
        self.over = False

    def hear(self, answer: Answer) -> None:
        for step in self.conversation.heard(answer):
            assert not self.over
            if isinstance(step, Work):
                assert self.item is None
                self.item, self.method_type = step.item.id, step.item.processing_info.runner_method_type
            elif isinstance(step, (More, EndOfInput, Wrong)):
                assert self.item is not None
                assert self.method_type == STREAM
                assert not self.input_ended
                self.input_ended = isinstance(step, EndOfInput)
            elif isinstance(step, (Again, Unwelcome)):
                assert self.item is None
            elif isinstance(step, Cancelled):
                assert self.item is not None
            self.over = isinstance(step, (Again, Unwelcome, Refused, Wrong, Cancelled))

    @rule(
        name=st.sampled_from("ab"),
        method_type=st.sampled_from([UNARY, GENERATE, STREAM, 0, resources_pb2.STREAMING_UNARY]),
        code=st.sampled_from([codes.SUCCESS, codes.RUNNER_STREAM_END, codes.FAILURE, codes.ZERO]),
        inner=st.sampled_from([0, codes.RUNNER_ITEM_CANCELLED, codes.RUNNER_STREAM_END]),
        has_request=st.booleans(),
        times=st.integers(1, 3),
    )
    def say_items(
        self, name: str, method_type: int, code: int, inner: int, has_request: bool, times: int
    ) -> None:
        made = item(name, "stream", method_type) if has_request else bare(name, method_type)
        made.processing_info.status.code = inner
        answer = success(*[made] * times)
        answer.status.code = code
        self.hear(answer)

    @rule(
        code=st.sampled_from(
            [
                codes.SUCCESS,
                codes.RUNNER_NEEDS_RETRY,
                codes.RUNNER_STREAM_END,
                codes.RUNNER_ITEM_CANCELLED,
                77,
            ]
        )
    )
    def say_status(self, code: int) -> None:
        self.hear(status(code))

    @rule()
    def finish(self) -> None:
        self.conversation.finish()
        self.over = True

    @invariant()
    def waits_only_while_nothing_has_come(self) -> None:
        assert self.conversation.waiting == (self.item is None and not self.over)


TestAnyTalk = AnyTalk.TestCase
TestAnyTalk.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
