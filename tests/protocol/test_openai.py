"""The OpenAI-compatible types: the points of the published v0.1 forms that bite."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from penstock.protocol.openai import (
    ChatCompletionChoice,
    ChatCompletionRequest,
    ChatCompletionStreamDelta,
    ChatMessage,
    EmbeddingData,
    EmbeddingRequest,
    ModelInfo,
    OpenAIError,
)

MESSAGE = {"role": "user", "content": "hi"}


def test_created_is_the_current_second_unless_given() -> None:
    before = int(time.time())
    made = ModelInfo(id="m")
    assert before <= made.created <= int(time.time())
    assert type(made.created) is int
    assert ModelInfo(id="m", created=7).model_dump_json() == (
        '{"id":"m","object":"model","created":7,"owned_by":"sagellm"}'
    )


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": "hi"}], 3])
def test_content_is_text(content: object) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatMessage.model_validate({"role": "user", "content": content})
    assert caught.value.errors()[0]["type"] == "string_type"


def test_developer_is_no_role_of_v01() -> None:
    with pytest.raises(ValidationError):
        ChatMessage.model_validate({"role": "developer", "content": ""})


def test_what_v01_does_not_know_is_dropped() -> None:
    later = {"tools": [], "response_format": {}, "stream_options": {}, "logprobs": True, "seed": 1}
    request = ChatCompletionRequest.model_validate({"model": "m", "messages": [MESSAGE], **later})
    assert not set(later) & set(request.model_dump())


@pytest.mark.parametrize("number", [0, -1])
def test_max_tokens_and_n_have_no_limit(number: int) -> None:
    request = ChatCompletionRequest(model="m", messages=[ChatMessage(**MESSAGE)], max_tokens=number, n=number)  # type: ignore[arg-type]
    assert (request.max_tokens, request.n) == (number, number)


@pytest.mark.parametrize(
    ("limits", "mistake"),
    [
        ({"temperature": 2.1}, "less_than_equal"),
        ({"temperature": -0.1}, "greater_than_equal"),
        ({"top_p": 0}, "greater_than"),
        ({"presence_penalty": -2.5}, "greater_than_equal"),
        ({"frequency_penalty": 2.5}, "less_than_equal"),
        ({"temperature": None}, "float_type"),
    ],
)
def test_sampling_has_limits(limits: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatCompletionRequest.model_validate({"model": "m", "messages": [], **limits})
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [
        ((next(iter(limits)),), mistake)
    ]


def test_finish_reason_of_a_choice_is_required_and_may_be_null() -> None:
    choice = {"index": 0, "message": MESSAGE}
    with pytest.raises(ValidationError) as caught:
        ChatCompletionChoice.model_validate(choice)
    assert caught.value.errors()[0]["type"] == "missing"
    assert ChatCompletionChoice.model_validate({**choice, "finish_reason": None}).finish_reason is None


def test_a_stream_delta_writes_both_fields() -> None:
    assert ChatCompletionStreamDelta().model_dump_json() == '{"role":null,"content":null}'


def test_embeddings_take_text_and_give_numbers() -> None:
    assert EmbeddingRequest(input=["a"], model="m", encoding_format="base64").encoding_format == "base64"
    with pytest.raises(ValidationError):
        EmbeddingRequest.model_validate({"input": [1, 2], "model": "m"})
    with pytest.raises(ValidationError):
        EmbeddingData.model_validate({"embedding": "AAAA", "index": 0})


def test_an_error_code_is_text() -> None:
    with pytest.raises(ValidationError):
        OpenAIError.model_validate({"message": "", "type": "t", "code": 400})
