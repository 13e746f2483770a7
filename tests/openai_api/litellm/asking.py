"""litellm, unchanged, against the server that the environment names; prints what it got, as JSON.

Runs with an interpreter of its own: litellm holds many packages back.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import litellm

URL, LOCKED, KEY = (os.environ[f"PENSTOCK_TEST_{name}"] for name in ("URL", "LOCKED_URL", "KEY"))
SERVER = {"api_base": f"{URL}/v1", "api_key": "any", "num_retries": 0, "timeout": 20}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def asking(text: str, model: str = "openai/talker", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **SERVER, **more}


def whole() -> Any:
    answer = litellm.completion(**asking("one two three", max_tokens=2))
    choice = answer.choices[0]
    return [choice.message.content, choice.finish_reason, answer.usage.total_tokens]


def as_vllm() -> Any:
    return litellm.completion(**asking("one two", "hosted_vllm/talker")).choices[0].message.content


def streamed() -> Any:
    chunks = list(
        litellm.completion(**asking("one two"), stream=True, stream_options={"include_usage": True})
    )
    built = litellm.stream_chunk_builder(chunks)
    return [_text(chunks), built.choices[0].message.content, built.usage.prompt_tokens]


async def both_later() -> Any:
    answer = await litellm.acompletion(**asking("one two"))
    stream = await litellm.acompletion(**asking("one two"), stream=True)
    return [answer.choices[0].message.content, _text([chunk async for chunk in stream])]


def choices() -> Any:
    return [choice.message.content for choice in litellm.completion(**asking("a b", n=2)).choices]


def tools() -> Any:
    answer = litellm.completion(**asking("x", "openai/act", tools=[TOOL]))
    [call] = answer.choices[0].message.tool_calls
    return [call.function.name, call.function.arguments, answer.choices[0].finish_reason]


def texts() -> Any:
    answer = litellm.text_completion(model="text-completion-openai/go_on", prompt="abc", **SERVER)
    return answer.choices[0].text


def vectors() -> Any:
    answer = litellm.embedding(model="openai/embed", input=["a", "bcd"], encoding_format="float", **SERVER)
    return [vector["embedding"] for vector in answer.data]


def responses() -> Any:
    answer = litellm.responses(model="openai/talker", input="one two", **SERVER)
    events = list(litellm.responses(model="openai/talker", input="one two", stream=True, **SERVER))
    said = "".join(event.delta for event in events if str(event.type.value).endswith("text.delta"))
    return [answer.output[0].content[0].text, said]


def refused() -> Any:
    wrong = {
        "unknown": asking("x", "openai/nobody"),
        "value": asking("x", n=0),
        "full": asking("x", "openai/full"),
        "failed": asking("fail"),
        "key": asking("x", api_base=f"{LOCKED}/v1", api_key="wrong"),
    }
    return {name: _error(litellm.completion, asked) for name, asked in wrong.items()}


def with_a_key() -> Any:
    return litellm.completion(**asking("hi", api_base=f"{LOCKED}/v1", api_key=KEY)).choices[0].message.content


async def left() -> Any:
    """Leave a stream, and say how its call ended."""
    stream = await litellm.acompletion(**asking("one hang"), stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.completion_stream.close()
    return await asyncio.to_thread(_end_of, "talk")


def _end_of(command: str) -> str:
    """Return how the last call of a command ended, once it has."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{URL}/tasks") as told:
            last = [task for task in json.load(told)["tasks"] if task["command"] == command][-1]
        if last["status"] not in ("accepted", "streaming"):
            return str(last["status"])
    return "never"


def _text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def _error(run: Callable[..., Any], asked: dict[str, Any]) -> str:
    try:
        run(**asked)
    except litellm.exceptions.APIError as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 - its classes have no other base
        return type(error).__name__
    return "nothing"


async def main() -> None:
    litellm.suppress_debug_info = True
    told: dict[str, Any] = {}
    for ask in (whole, as_vllm, streamed, choices, tools, texts, vectors, responses, refused, with_a_key):
        told[ask.__name__] = await asyncio.to_thread(ask)
    for later in (both_later, left):
        told[later.__name__] = await later()
    sys.stdout.write(json.dumps(told) + "\n")


asyncio.run(main())
