"""Whole answers in OpenAI's shape, put together from the chunks of their calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from penstock.protocol.openai_api.pieces import usage_of


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] = []


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    text: str = ""
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_decode = msgspec.json.Decoder(_Chunk).decode


class Choice:
    """One choice of an answer, as its chunks come in."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._texts)

    def take(self, line: bytes) -> None:
        """Add a chunk."""
        for choice in _decode(line).choices:
            delta = choice.delta
            self._texts.append(delta.content or choice.text)
            if delta.reasoning_content is not None:
                self._reasoning.append(delta.reasoning_content)
            for call in delta.tool_calls:
                self._take_tool(call)
            self.finish_reason = choice.finish_reason or self.finish_reason

    def _take_tool(self, piece: _ToolCall) -> None:
        empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._tools.setdefault(piece.index, empty)
        call["id"] = piece.id or call["id"]
        call["function"]["name"] += piece.function.name or ""
        call["function"]["arguments"] += piece.function.arguments or ""

    def message(self) -> dict[str, Any]:
        """Return it as the assistant's message."""
        text = self.text
        content = text if text or not self._tools else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._tools:
            message["tool_calls"] = [call for _, call in sorted(self._tools.items())]
        return message


def chat_completion(identity: Mapping[str, Any], choices: Sequence[Choice], usage: object) -> bytes:
    """Return a chat completion."""
    written = [
        {
            "index": index,
            "message": choice.message(),
            "logprobs": None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(choices)
    ]
    return _answer(identity, "chat.completion", written, usage)


def text_completion(identity: Mapping[str, Any], choices: Sequence[Choice], usage: object) -> bytes:
    """Return a text completion."""
    written = [
        {"index": index, "text": choice.text, "logprobs": None, "finish_reason": choice.finish_reason}
        for index, choice in enumerate(choices)
    ]
    return _answer(identity, "text_completion", written, usage)


def _answer(identity: Mapping[str, Any], shape: str, choices: list[dict[str, Any]], usage: object) -> bytes:
    head = {"id": identity["id"], "object": shape, "created": identity["created"], "model": identity["model"]}
    return msgspec.json.encode({**head, "choices": choices, "usage": usage})


def usage_chunk(identity: Mapping[str, Any], shape: str, usage: object) -> bytes:
    """Return the chunk that tells the counts of a streamed answer."""
    head = {"id": identity["id"], "object": shape, "created": identity["created"], "model": identity["model"]}
    return msgspec.json.encode({**head, "choices": [], "usage": usage})


def total_usage(metrics: Iterable[Mapping[str, Any]], prompts: int = 1) -> dict[str, Any] | None:
    """Return the counts of all choices: the tokens of a prompt once, those of each answer.

    Args:
        metrics: Of each call, those of one prompt beside one another.
        prompts: How many there are.
    """
    usages = [usage_of(each) for each in metrics]
    known = [usage for usage in usages if usage is not None]
    if len(known) < len(usages) or not known:
        return None
    prompt = sum(usage["prompt_tokens"] for usage in known[:: len(known) // prompts])
    completion = sum(usage["completion_tokens"] for usage in known)
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**known[0], **counts}
