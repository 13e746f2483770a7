"""The vendor's own SDK, unchanged, against our server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import anyio
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

pytestmark = pytest.mark.anyio


def asking(text: str, model: str = "talker", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [
        "talker",
        "act",
        "shape",
        "ask",
        "go_on",
        "embed",
        "full",
        "relayed",
        "wrong",
    ]
    assert (await client.models.retrieve("talker")).owned_by == "penstock"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")


async def test_a_whole_answer(client: AsyncOpenAI, seen: SimpleNamespace) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two three"}]
    messages: Any = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    answer = await client.chat.completions.create(model="talk", messages=messages)
    assert seen.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one two three"},
    ]
    assert (answer.model, answer.object) == ("talker", "chat.completion")
    [choice] = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("one two three", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        7,
        3,
        10,
    )
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2


async def test_an_answer_that_is_cut_says_so(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**asking("one two three", max_completion_tokens=2))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one two", "length")


async def test_a_stream(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        **asking("one two"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    *text, last = chunks
    assert [chunk.choices[0].delta.content for chunk in text] == ["", "one", " two", None]
    assert (text[0].choices[0].delta.role, text[-1].choices[0].finish_reason) == ("assistant", "stop")
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 9
    assert all(chunk.usage is None for chunk in text)


async def test_a_command_that_does_not_stream(client: AsyncOpenAI) -> None:
    messages: Any = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    whole = await client.chat.completions.create(model="ask", messages=messages)
    assert whole.choices[0].message.content == "s|q"
    stream = await client.chat.completions.create(model="ask", messages=messages, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "s|q"
    with pytest.raises(openai.BadRequestError, match="no conversation"):
        await client.chat.completions.create(model="ask", messages=[*messages, *messages])


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices(client: AsyncOpenAI, seen: SimpleNamespace, stream: bool) -> None:
    texts = ["", "", ""]
    asked = asking("a b", n=3, seed=5)
    if stream:
        ends = 0
        async for chunk in await client.chat.completions.create(**asked, stream=True):
            [choice] = chunk.choices
            texts[choice.index] += choice.delta.content or ""
            ends += choice.finish_reason == "stop"
        assert ends == 3
    else:
        answer = await client.chat.completions.create(**asked)
        texts = [choice.message.content or "" for choice in answer.choices]
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 6)
    assert texts == ["a b"] * 3
    assert sorted(seen.seeds) == [5, 6, 7]


@pytest.mark.parametrize("stream", [False, True])
async def test_tools(client: AsyncOpenAI, stream: bool) -> None:
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": {}}}
    asked = asking("x", "act", tools=[tool])
    if stream:
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert [call.function.name for call in calls if call.function and call.function.name] == ["add"]
        assert "".join(call.function.arguments or "" for call in calls if call.function) == '{"a": 1}'
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
    else:
        choice = (await client.chat.completions.create(**asked)).choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        [call] = choice.message.tool_calls or ()
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("add", '{"a": 1}')
    with pytest.raises(openai.BadRequestError, match="tools") as refused:
        await client.chat.completions.create(**asking("x", tools=[tool]))
    assert refused.value.param == "tools"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_before_the_first_item_has_a_status(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.InternalServerError, match="as asked") as failed:
        await client.chat.completions.create(**asking("fail"), stream=stream)
    assert (failed.value.status_code, failed.value.code) == (503, "unavailable")


async def test_what_fails_later_ends_the_stream_with_an_error(client: AsyncOpenAI) -> None:
    said = []

    async def listen() -> None:
        async for chunk in await client.chat.completions.create(**asking("one fail"), stream=True):
            said.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="as asked") as failed:
        await listen()
    assert (said, failed.value.code) == (["", "one"], "unavailable")


async def test_closing_a_stream_cancels_the_call(client: AsyncOpenAI, seen: SimpleNamespace) -> None:
    stream = await client.chat.completions.create(**asking("one hang"), stream=True)
    with anyio.fail_after(10):
        await seen.hanging.wait()
        await stream.close()
        await seen.cancelled.wait()


async def test_leaving_a_whole_answer_cancels_the_call(client: AsyncOpenAI, seen: SimpleNamespace) -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.chat.completions.create(**asking("hang", n=2)))
            await seen.hanging.wait()
            group.cancel_scope.cancel()
        await seen.cancelled.wait()


async def test_a_model_that_speaks_openai_itself(client: AsyncOpenAI, seen: SimpleNamespace) -> None:
    answer = await client.chat.completions.create(**asking("hi", "relayed", logit_bias={"1": 2}))
    assert answer.choices[0].message.content == "whole"
    assert seen.relayed["openai_endpoint"] == "/chat/completions"
    assert (seen.relayed["messages"][0]["content"], seen.relayed["logit_bias"]) == ("hi", {"1": 2})
    stream = await client.chat.completions.create(**asking("hi", "relayed"), stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "one two"
    with pytest.raises(openai.InternalServerError, match="Model predict failed: as asked") as failed:
        await client.chat.completions.create(**asking("hi", "relayed", user="fail"))
    assert failed.value.code == "upstream_failed"


async def test_such_a_model_that_fails_later_ends_the_stream_with_an_error(client: AsyncOpenAI) -> None:
    said = []

    async def listen() -> None:
        asked = asking("hi", "relayed", user="fail")
        async for chunk in await client.chat.completions.create(**asked, stream=True):
            said.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="Model predict failed"):
        await listen()
    assert said == ["one", " two"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"model": "nobody"}, "model"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, None),
        ({"temperature": "hot"}, "temperature"),
    ],
)
async def test_what_is_wrong_is_named(client: AsyncOpenAI, wrong: Any, param: str | None) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await client.chat.completions.create(**{**asking("x"), **wrong})
    assert refused.value.status_code == (404 if param == "model" else 400)
    assert param in (None, refused.value.param)
    assert refused.value.type == ("not_found_error" if param == "model" else "invalid_request_error")


async def test_completions(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="go_on", prompt=["ab", "cd"], n=2)
    assert [choice.text for choice in answer.choices] == ["ba", "ba", "dc", "dc"]
    assert answer.usage is None
    stream = await client.completions.create(model="go_on", prompt="abc", stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    assert "".join(chunk.text for chunk in chunks) == "cba"
    assert chunks[-1].finish_reason == "stop"


async def test_embeddings(client: AsyncOpenAI) -> None:
    for form in ({}, {"encoding_format": "float"}):  # the client's own default is base64
        answer = await client.embeddings.create(model="embed", input=["a", "bcd"], **form)  # type: ignore[arg-type]
        assert [vector.embedding for vector in answer.data] == [[1.0, 0.25], [3.0, 0.25]]
    with pytest.raises(openai.InternalServerError, match="answers no vectors"):
        await client.embeddings.create(model="wrong", input="a")


async def test_a_response(client: AsyncOpenAI, seen: SimpleNamespace) -> None:
    response = await client.responses.create(model="talker", input="one two", instructions="be brief")
    assert (response.status, response.output_text) == ("completed", "one two")
    assert seen.messages[0] == {"role": "system", "content": "be brief"}
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (7, 2)
    cut = await client.responses.create(model="talker", input="one two", max_output_tokens=1)
    assert (cut.status, cut.output_text) == ("incomplete", "one")


async def test_a_response_as_it_comes(client: AsyncOpenAI) -> None:
    events = [
        event async for event in await client.responses.create(model="talker", input="a b", stream=True)
    ]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    async with client.responses.stream(model="talker", input="a b c") as stream:  # puts them together itself
        assert (await stream.get_final_response()).output_text == "a b c"


async def test_a_response_that_fails_later_says_so(client: AsyncOpenAI) -> None:
    events = [e async for e in await client.responses.create(model="talker", input="a fail", stream=True)]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.message == "as asked"


async def test_the_sync_client(url: str) -> None:
    def ask() -> tuple[str | None, str, list[str]]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
            whole = client.chat.completions.create(**asking("one two"))
            stream = client.chat.completions.create(**asking("one two"), stream=True)
            said = "".join(c.choices[0].delta.content or "" for c in stream)
            return whole.choices[0].message.content, said, [model.id for model in client.models.list()]

    whole, said, models = await asyncio.to_thread(ask)
    assert (whole, said, models[0]) == ("one two", "one two", "talker")


async def test_closing_a_stream_of_the_sync_client_cancels_the_call(url: str, seen: SimpleNamespace) -> None:
    def leave() -> None:
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client,
            client.chat.completions.create(**asking("one hang"), stream=True) as stream,
        ):
            for chunk in stream:
                if chunk.choices[0].delta.content:
                    return

    with anyio.fail_after(10):
        await asyncio.to_thread(leave)
        await seen.cancelled.wait()


async def test_a_timeout_of_the_client_cancels_the_call(client: AsyncOpenAI, seen: SimpleNamespace) -> None:
    with pytest.raises(openai.APITimeoutError):
        await client.chat.completions.create(**asking("hang"), timeout=0.2)
    with anyio.fail_after(10):
        await seen.cancelled.wait()


async def test_the_deadline_of_a_request_is_told_as_a_status(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as late:
        await client.chat.completions.create(**asking("hang"), extra_headers={"X-Request-Timeout": "0.1"})
    assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")


async def test_a_request_that_is_sent_again_is_run_once(client: AsyncOpenAI, seen: SimpleNamespace) -> None:
    once: Any = {"extra_headers": {"Idempotency-Key": "k"}}
    first = await client.chat.completions.create(**asking("one two"), **once)
    again = await client.chat.completions.create(**asking("one two"), **once)
    assert (first.id, first.choices) == (again.id, again.choices)
    assert len(seen.seeds) == 1
    with pytest.raises(openai.ConflictError):
        await client.chat.completions.create(**asking("other"), **once)


async def test_where_an_answer_stops(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**asking("one two three", stop=["three"]))
    assert answer.choices[0].message.content == "one two"
    with pytest.raises(openai.BadRequestError) as refused:  # rather than pass over it
        await client.chat.completions.create(**asking("x", "ask", stop="three"))
    assert refused.value.param == "stop"


class Animal(BaseModel):
    name: str


async def test_the_form_of_an_answer(client: AsyncOpenAI, seen: SimpleNamespace) -> None:
    parsed = await client.chat.completions.parse(**asking("x", "shape"), response_format=Animal)
    assert parsed.choices[0].message.parsed == Animal(name="fox")
    assert seen.response_format["json_schema"]["schema"]["required"] == ["name"]
    async with client.chat.completions.stream(**asking("x", "shape"), response_format=Animal) as stream:
        assert (await stream.get_final_completion()).choices[0].message.parsed == Animal(name="fox")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(**asking("x"), response_format={"type": "json_object"})
    assert refused.value.param == "response_format"


async def test_no_room_and_no_key_have_their_errors(
    client: AsyncOpenAI, locked_url: str, other_clients: dict[str, str]
) -> None:
    with pytest.raises(openai.RateLimitError) as full:
        await client.chat.completions.create(**asking("x", "full"))
    assert int(full.value.response.headers["retry-after"]) >= 1
    async with AsyncOpenAI(base_url=f"{locked_url}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
