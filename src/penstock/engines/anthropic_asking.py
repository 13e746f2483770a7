"""Requests in the shape of Anthropic's Messages API, made of ours, whose messages have OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import UNBOUNDED, EngineRequest

SAMPLING_VERSION = "2023-06-01"
"""The version of the API that takes sampling parameters; later ones refuse them, whatever their values."""

_MOST_TOKENS = 4096  # as many as the answers of all its models may take
_INSTRUCTING = ("system", "developer")
_UNABLE = ("seed", "presence_penalty", "frequency_penalty", "repeat_penalty")


class Asked(msgspec.Struct, frozen=True):
    """What a request is made of: the fields of its body, and its headers."""

    fields: dict[str, Any]
    headers: dict[str, str]


def asked_of(request: EngineRequest) -> Asked:
    """Make a request, but for its model.

    Raises:
        CallError: ``not_implemented``: Anthropic has no such thing; ``invalid_argument``: a message or a tool
            is none, or holds what JSON cannot.
    """
    _refuse_unable(request)
    messages = request.messages
    if messages is None:
        messages = ({"role": "user", "content": _prompt(request)},)
    sampling = _sampling(request)
    fields = {
        "max_tokens": _MOST_TOKENS if request.max_tokens == UNBOUNDED else request.max_tokens,
        "messages": _turns(messages),
        "system": _instructions(messages),
        "stop_sequences": list(request.sampling.stop),
        "tools": [_tool(tool) for tool in request.tools or ()],
        "output_config": _output(request.response_format),
        **sampling,
    }
    fields = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
    _refuse_unsendable(fields)
    return Asked(fields, {"anthropic-version": SAMPLING_VERSION} if sampling else {})


def _prompt(request: EngineRequest) -> str:
    if request.prompt:
        return request.prompt
    raise CallError(
        "prompt: is empty, and so is messages; give one of them",
        ErrorCode.INVALID_ARGUMENT,
        details=[{"path": ["prompt"], "reason": "empty"}],
    )


def _sampling(request: EngineRequest) -> dict[str, Any]:
    sampling = request.sampling
    chosen = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # 0 is "off", which is to say nothing here.
        "top_k": sampling.top_k or None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _instructions(messages: Sequence[Mapping[str, Any]]) -> str:
    told = [_text(message) for message in messages if message.get("role") in _INSTRUCTING]
    return "\n\n".join(text for text in told if text)


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    turns = [_turn(message) for message in messages if message.get("role") not in _INSTRUCTING]
    if not turns:
        raise _wrong("messages: hold nothing but instructions; one of the user is due")
    return turns


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    role = message.get("role")
    if role == "tool":
        result = {
            "type": "tool_result",
            "tool_use_id": message.get("tool_call_id"),
            "content": _text(message),
        }
        return {"role": "user", "content": [result]}
    if role not in ("user", "assistant"):
        raise _wrong(f"messages: the role {role!r} is none of system, developer, user, assistant and tool")
    calls = message.get("tool_calls") or ()
    content = message.get("content")
    if isinstance(content, str) and not calls:
        return {"role": role, "content": content}
    return {"role": role, "content": [*_blocks(content), *(_tool_use(call) for call in calls)]}


def _blocks(content: object) -> list[Mapping[str, Any]]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, Sequence) or not all(isinstance(part, Mapping) for part in content):
        raise _wrong("messages: content is neither a text nor a list of parts")
    # Parts in Anthropic's own shape go as they are.
    return [_image(part) if part.get("type") == "image_url" else part for part in content]


def _image(part: Mapping[str, Any]) -> dict[str, Any]:
    image = part.get("image_url")
    url = str(image.get("url", "") if isinstance(image, Mapping) else image)
    kind, comma, data = url.removeprefix("data:").partition(";base64,")
    if url.startswith("data:") and comma:
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
    return {"type": "image", "source": {"type": "url", "url": url}}


def _text(message: Mapping[str, Any]) -> str:
    return "".join(str(block.get("text", "")) for block in _blocks(message.get("content")))


def _tool_use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        given = msgspec.json.decode(function.get("arguments") or "{}")
    except (msgspec.DecodeError, TypeError) as error:
        raise _wrong(f"messages: the arguments of a tool call are no JSON ({error})") from error
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping):
        return tool
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    told = {"name": function.get("name"), "description": function.get("description"), "input_schema": schema}
    return {name: value for name, value in told.items() if value is not None}


def _output(response_format: Mapping[str, Any] | None) -> dict[str, Any]:
    if not response_format or response_format.get("type") == "text":
        return {}
    schema = (response_format.get("json_schema") or {}).get("schema")
    if response_format.get("type") != "json_schema" or schema is None:
        raise CallError(
            "response_format: Anthropic has text, and json_schema with a schema", ErrorCode.NOT_IMPLEMENTED
        )
    return {"format": {"type": "json_schema", "schema": schema}}


def _refuse_unable(request: EngineRequest) -> None:
    unable = [name for name in _UNABLE if getattr(request.sampling, name) is not None]
    if request.kv_budget_tokens is not None:
        unable.append("kv_budget_tokens")
    if unable:
        raise CallError(f"{unable[0]}: Anthropic does not have it; leave it out", ErrorCode.NOT_IMPLEMENTED)


def _refuse_unsendable(fields: Mapping[str, Any]) -> None:
    try:
        msgspec.json.encode(fields)
    except (TypeError, ValueError) as error:
        raise _wrong(f"the request holds what JSON cannot: {error}") from error


def _wrong(what: str) -> CallError:
    return CallError(what, ErrorCode.INVALID_ARGUMENT)
