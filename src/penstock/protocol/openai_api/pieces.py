"""What the items of a call add to an answer, and what its metrics say of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from penstock.protocol.events import EngineDelta, EngineEnd, EngineStart
from penstock.protocol.values import Json, encode_value

_REASONS = ("stop", "length", "tool_calls", "content_filter")
_TEXTS = ("chunk", "content", "delta", "text")
_decode = msgspec.json.Decoder().decode


class Piece(NamedTuple):
    """What one item adds; ``tool_calls`` are in OpenAI's streamed shape."""

    text: str = ""
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


_NOTHING = Piece()


def text_of(item: object) -> str | None:
    """Return the text of an item that adds nothing else, for those of the usual forms; None for the others.

    It runs once per token, and saves what ``piece_of`` costs.
    """
    if isinstance(item, dict):
        chunk = item.get("chunk")
        return chunk if type(chunk) is str and "reasoning" not in item and "tool_calls" not in item else None
    if isinstance(item, str):
        return item
    if isinstance(item, EngineDelta):
        return item.chunk if not item.reasoning and not item.tool_calls else None
    return None


def piece_of(item: object) -> Piece:
    """Return what an item adds: itself if it is text, else the ``chunk`` of an object that has one (as text
    commands and engine events have it), its ``content``, ``delta`` or ``text``; any other item as JSON."""
    if type(item) is str:
        return Piece(item)
    if type(item) is EngineDelta:
        return Piece(item.chunk, item.reasoning or None, item.tool_calls or None)
    if type(item) in (EngineStart, EngineEnd):  # they hold nothing new
        return _NOTHING
    if type(item) is Json:
        return piece_of(_decode(item))
    return _piece_of_object(item) if isinstance(item, Mapping) else _written(item)


def _piece_of_object(item: Mapping[Any, Any]) -> Piece:
    for key in _TEXTS:
        text = item.get(key)
        if isinstance(text, str):
            return Piece(text, item.get("reasoning"), item.get("tool_calls"))
    return _NOTHING if item.get("event") in ("start", "end") else _written(item)


def _written(item: object) -> Piece:
    text = encode_value(item)
    plain = _decode(text)
    return _piece_of_object(plain) if isinstance(plain, dict) and _has_text(plain) else Piece(text.decode())


def _has_text(item: Mapping[str, Any]) -> bool:
    return any(isinstance(item.get(key), str) for key in _TEXTS)


def finish_reason(metrics: Mapping[str, Any], *, calls_tools: bool) -> str:
    """Return why a completed answer ended, in OpenAI's words."""
    if calls_tools:
        return "tool_calls"
    said = metrics.get("finish_reason")
    return said if said in _REASONS else "stop"


def usage_of(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the metrics of a call say of its tokens, in OpenAI's shape; None if they say nothing."""
    if "prompt_tokens" not in metrics:
        return None
    prompt, completion = metrics["prompt_tokens"], metrics["completion_tokens"]
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if "cached_tokens" in metrics:
        usage["prompt_tokens_details"] = {"cached_tokens": metrics["cached_tokens"]}
    if "reasoning_tokens" in metrics:
        usage["completion_tokens_details"] = {"reasoning_tokens": metrics["reasoning_tokens"]}
    return usage
