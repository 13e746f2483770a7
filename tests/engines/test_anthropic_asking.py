"""Requests of ours, in OpenAI's shape, become Anthropic's."""

from __future__ import annotations

from typing import Any

import pytest

from engines.upstreams.asking import prompting
from penstock.engines.anthropic_asking import asked_of
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import UNBOUNDED


def fields(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return asked_of(prompting("", messages=messages, **more)).fields


def test_instructions_leave_the_conversation() -> None:
    asked = fields(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
    )
    assert asked["system"] == "Be brief.\n\nBe kind."
    assert asked["messages"] == [{"role": "user", "content": "Hi"}]


def test_an_answer_that_is_not_bounded_is_as_long_as_any_of_its_models_takes() -> None:
    turn = {"role": "user", "content": "Hi"}
    assert fields(turn, max_tokens=7)["max_tokens"] == 7
    assert fields(turn, max_tokens=UNBOUNDED)["max_tokens"] == 4096


def test_a_tool_call_and_its_result() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    asked = fields(
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "I add.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "2"},
    )
    assert asked["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I add."},
                {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "2"}]},
    ]


def test_tools_in_either_shape() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    theirs = {"name": "sub", "input_schema": schema}
    ours = {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": schema}}
    asked = fields({"role": "user", "content": "Hi"}, tools=(ours, theirs))
    assert asked["tools"] == [{"name": "add", "description": "Adds", "input_schema": schema}, theirs]


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("data:image/png;base64,AAAA", {"type": "base64", "media_type": "image/png", "data": "AAAA"}),
        ("https://h/i.png", {"type": "url", "url": "https://h/i.png"}),
    ],
)
def test_images(url: str, source: dict[str, str]) -> None:
    parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": url}}]
    (turn,) = fields({"role": "user", "content": parts})["messages"]
    assert turn["content"] == [{"type": "text", "text": "See"}, {"type": "image", "source": source}]


def test_parts_in_anthropics_shape_go_as_they_are() -> None:
    part = {"type": "document", "source": {"type": "text", "data": "x"}}
    assert fields({"role": "user", "content": [part]})["messages"][0]["content"] == [part]


def test_a_schema_of_the_answer() -> None:
    told = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    asked = fields({"role": "user", "content": "Hi"}, response_format=told)
    assert asked["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert "output_config" not in fields({"role": "user", "content": "x"}, response_format={"type": "text"})


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "alone"}],
        [{"role": "wizard", "content": "x"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": ["x"]}],
        [{"role": "user", "content": [{"type": "text", "text": {1j}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
    ],
)
def test_what_is_no_conversation_is_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(CallError) as raised:
        fields(*messages)
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "more",
    [
        {"sampling": {"seed": 1}},
        {"sampling": {"presence_penalty": 0.1}},
        {"sampling": {"frequency_penalty": 0.1}},
        {"sampling": {"repeat_penalty": 1.1}},
        {"kv_budget_tokens": 5},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_what_anthropic_does_not_have_is_refused_and_not_dropped(more: dict[str, Any]) -> None:
    with pytest.raises(CallError) as raised:
        fields({"role": "user", "content": "Hi"}, **more)
    assert raised.value.code is ErrorCode.NOT_IMPLEMENTED


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(CallError, match="prompt: is empty"):
        asked_of(prompting(""))
