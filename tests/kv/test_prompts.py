"""The text that a prompt is to a router: what two prompts share stands at the start of both."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.kv.held import shared
from penstock.kv.prompts import (
    BLOCK_BYTES,
    MAX_INPUT,
    MAX_TEXT,
    conversation_prompt,
    raw_prompt,
    read_prompt,
    takes_prompt,
)

SYSTEM = "You answer for one tenant. " * 40
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
CONTENTS = (
    st.text(max_size=20).map(lambda text: text * 20)
    | st.none()
    | st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=2), max_size=2)
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": CONTENTS}, optional={"name": st.text(max_size=9)}),
    min_size=1,
    max_size=4,
)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def chain(**given: Any) -> list[bytes]:
    prompt = read_prompt(json.dumps(given).encode())
    assert prompt is not None
    return prompt.chain()


@PATIENT
@given(MESSAGES, MESSAGES)
def test_what_stands_before_in_a_conversation_stands_before_in_its_text(one: list, more: list) -> None:
    short, long = conversation_prompt(one), conversation_prompt([*one, *more])
    assert long.text.startswith(short.text[:MAX_TEXT])
    assert long.chain()[: len(short.chain())] == short.chain()


@PATIENT
@given(MESSAGES, st.text(max_size=40).map(lambda text: text * 9))
def test_an_answer_is_the_next_turn(messages: list, answer: str) -> None:
    following = conversation_prompt([*messages, {"role": "assistant", "content": answer}])
    assert conversation_prompt(messages).chain(answer) == following.chain()


def test_a_prompt_is_a_conversation_of_one_turn() -> None:
    system, user = {"role": "system", "content": SYSTEM}, {"role": "user", "content": "Hi"}
    assert chain(prompt="Hi", system_prompt=SYSTEM) == chain(messages=[system, user])
    assert chain(prompt=SYSTEM) == chain(messages=[{"role": "user", "content": SYSTEM}])


def test_a_typed_request_is_continued_as_it_stands() -> None:
    request = {"prompt": SYSTEM, "model": "m"}
    assert chain(request=request) == raw_prompt(SYSTEM, adapter="m").chain()
    assert chain(request=request)[0] != chain(prompt=SYSTEM)[0]
    assert raw_prompt(SYSTEM).chain(SYSTEM) == raw_prompt(SYSTEM * 2).chain()


@pytest.mark.parametrize(
    "other", [{"max_tokens": 3, "temperature": 0.5, "stop": ["x"]}, {"unknown": [1, {"a": None}]}]
)
def test_how_to_sample_is_not_part_of_it(other: dict[str, Any]) -> None:
    assert chain(prompt=SYSTEM, **other) == chain(prompt=SYSTEM)


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": SYSTEM, "cache_salt": "a"},
        {"messages": [{"role": "user", "content": SYSTEM}], "tools": [{"type": "function"}]},
        {"request": {"prompt": SYSTEM}},
        {"request": {"prompt": SYSTEM, "model": "adapted"}},
        {"request": {"prompt": SYSTEM, "metadata": {"cache_salt": "a"}}},
    ],
)
def test_what_must_not_be_shared_has_no_block_in_common(other: dict[str, Any]) -> None:
    assert not shared(chain(**other), chain(prompt=SYSTEM))
    assert not shared(chain(**other), chain(request={"prompt": SYSTEM, "metadata": {"cache_salt": "b"}}))


def test_only_full_blocks_count_and_only_so_many() -> None:
    assert chain(prompt="x" * (BLOCK_BYTES - 20)) == []
    assert len(chain(prompt="x" * BLOCK_BYTES)) == 1
    assert len(chain(prompt="é" * MAX_TEXT)) == MAX_TEXT // BLOCK_BYTES
    many = [{"role": "user", "content": "é" * 1000}] * 30
    assert len(chain(messages=many)) == MAX_TEXT // BLOCK_BYTES


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"{}",
        b'{"prompt": 5}',
        b'{"prompt": ""}',
        b'{"messages": []}',
        b'{"messages": ["a"]}',
        b'{"messages": "a"}',
        b'{"request": {}}',
        b'{"request": {"prompt": ["a"]}}',
        b'{"request": 5, "cache_salt": 5}',
        b"[" * 100_000,
        json.dumps({"prompt": "x" * MAX_INPUT}).encode(),
    ],
)
def test_an_input_without_a_prompt_has_none(text: bytes) -> None:
    assert read_prompt(text) is None


@PATIENT
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_not(text: bytes) -> None:
    read_prompt(text)
    read_prompt(b'{"messages": [{"content": %b}], "prompt": "x"}' % text)


def test_a_command_says_by_its_schema_whether_it_takes_a_prompt() -> None:
    for name in ("prompt", "messages", "request"):
        assert takes_prompt({"type": "object", "properties": {name: {}}})
    assert not any(map(takes_prompt, ({}, {"properties": {"text": {}}}, {"properties": "prompt"})))
