"""JSON Schemas of what OpenAI's clients send and read, as far as it means something here.

Bodies are open: what is not named is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.errors import ErrorCode
from penstock.protocol.dispatch import Description, OpenAIKind
from penstock.protocol.openai_api.requests import MAX_CHOICES
from penstock.server.openapi.schemas import COUNT, TIME, Schema, narrowed, or_null, record, ref

_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "maxLength": 256}
_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAX_CHOICES}]}
# As many prompts, and as many choices of each, as may go together whatever the other is.
_SQUARE = int(MAX_CHOICES**0.5)
_FEW: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": _SQUARE}
_FEW_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": _SQUARE}]}
_STOP: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}, {"type": "null"}]}
_NUMBER: Schema = {"type": ["number", "null"]}
_WHOLE: Schema = {"type": ["integer", "null"], "minimum": -(2**63), "maximum": 2**63 - 1}
_YES: Schema = {"type": ["boolean", "null"]}
_OBJECTS: Schema = {"type": ["array", "null"], "items": {"type": "object"}}
_REASON: Schema = {"enum": ["stop", "length", "tool_calls", "content_filter", None]}

_ASKED: Mapping[str, Schema] = {
    "model": _NAME,
    "stream": _YES,
    "stream_options": or_null(record({"include_usage": {"type": "boolean"}}, "include_usage")),
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_CHOICES},
    "max_tokens": _WHOLE,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "seed": _WHOLE,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "stop": _STOP,
}
_PART = record({"type": {"enum": ["text", "input_text", "output_text"]}, "text": _TEXT})
_SAID: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _PART}]}
_USAGE = record({"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT})


def _object(kind: str, **properties: Schema) -> Schema:
    return record({"id": _TEXT, "object": {"const": kind}, "created": TIME, "model": _TEXT, **properties})


def _choices(**properties: Schema) -> Schema:
    each = record({"index": COUNT, "finish_reason": _REASON, **properties})
    return {"type": "array", "items": each}


_STATIC: Mapping[str, Schema] = {
    "OpenAIModel": record({"id": _TEXT, "object": {"const": "model"}, "created": TIME, "owned_by": _TEXT}),
    "OpenAIModels": record(
        {"object": {"const": "list"}, "data": {"type": "array", "items": ref("OpenAIModel")}}
    ),
    "OpenAIUsage": _USAGE,
    "OpenAIMessage": record(
        {"role": {"enum": ["system", "developer", "user", "assistant", "tool"]}, "content": or_null(_SAID)}
    ),
    "OpenAIChatBody": record(
        {
            **_ASKED,
            "messages": {"type": "array", "items": ref("OpenAIMessage"), "minItems": 1},
            "max_completion_tokens": _WHOLE,
            "tools": _OBJECTS,
            "response_format": {"type": ["object", "null"]},
        },
        "model",
        "messages",
    ),
    "OpenAIChat": _object(
        "chat.completion", choices=_choices(message={"type": "object"}), usage=or_null(ref("OpenAIUsage"))
    ),
    "OpenAIChatChunk": _object("chat.completion.chunk", choices=_choices(delta={"type": "object"})),
    "OpenAITextBody": record({**_ASKED, "n": _FEW, "prompt": _FEW_TEXTS}, "model", "prompt"),
    "OpenAIText": _object("text_completion", choices=_choices(text=_TEXT)),
    "OpenAIVectorsBody": record(
        {"model": _NAME, "input": _TEXTS, "encoding_format": {"enum": ["float", "base64", None]}},
        "model",
        "input",
    ),
    "OpenAIVectors": record(
        {"object": {"const": "list"}, "data": {"type": "array", "items": {"type": "object"}}, "model": _TEXT}
    ),
    "OpenAIResponseBody": record(
        {
            **_ASKED,
            "input": {"anyOf": [_TEXT, {"type": "array", "items": ref("OpenAIMessage"), "minItems": 1}]},
        },
        "model",
        "input",
    ),
    "OpenAIResponse": record({"id": _TEXT, "object": {"const": "response"}, "status": _TEXT}),
    "OpenAIEvent": record({"type": _TEXT, "sequence_number": COUNT}),
}


_BODIES: Mapping[OpenAIKind, tuple[str, ...]] = {
    "chat": ("OpenAIChatBody", "OpenAIResponseBody"),
    "completion": ("OpenAITextBody",),
    "embeddings": ("OpenAIVectorsBody",),
}


def openai_schemas(description: Description) -> dict[str, Schema]:
    """Return the components of the routes under `/v1/`; their bodies name the models there are."""
    schemas = dict(_STATIC)
    for kind, bodies in _BODIES.items():
        kinds = (kind,) if kind == "completion" else (kind, "transport")
        served = [(name, told) for name, told in description.commands.items() if told.openai in kinds]
        names = list(dict.fromkeys(each for name, told in served for each in (told.model or name, name)))
        for body in bodies if names else ():
            schemas[body] = narrowed(_STATIC[body], required=(), model={"enum": names})
    return schemas


def openai_envelope(codes: Iterable[ErrorCode]) -> Schema:
    """Return the schema of an error in OpenAI's shape that has one of these codes."""
    code = {"enum": [code.value for code in codes]}
    return record({"error": record({"message": _TEXT, "type": _TEXT, "param": or_null(_TEXT), "code": code})})
