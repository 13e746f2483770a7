"""The OpenAI-compatible types in their published v0.1 form.

They are narrower than what OpenAI's clients send (no tools, no content parts, text content required).
The HTTP endpoint takes what clients send; these types keep the v0.1 names and fields.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import Field

from penstock.protocol.inference import WireModel

__all__ = [
    "ChatCompletionChoice",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatCompletionStreamChoice",
    "ChatCompletionStreamDelta",
    "ChatCompletionStreamResponse",
    "ChatCompletionUsage",
    "ChatMessage",
    "EmbeddingData",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "EmbeddingUsage",
    "ModelInfo",
    "ModelListResponse",
    "OpenAIError",
    "OpenAIErrorResponse",
]


def _unix_now() -> int:
    # The protocol has no clock, save here: v0.1 defines `created` as "now, int Unix seconds" when left out.
    return int(datetime.now(timezone.utc).timestamp())


ChatFinishReason = Literal["stop", "length", "content_filter", "tool_calls"]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class ChatMessage(WireModel):
    """One message of a conversation; ``content`` is text only."""

    role: Literal["system", "user", "assistant", "function", "tool"]
    content: str
    name: str | None = None


class ChatCompletionRequest(WireModel):
    """A conversation to be continued; ``session_id`` and ``trace_id`` are not OpenAI's."""

    model: str
    messages: list[ChatMessage]
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    max_tokens: int | None = None
    stream: bool = False
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: int = 1
    stop: str | list[str] | None = None
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    user: str | None = None
    session_id: str | None = None
    trace_id: str | None = None


class ChatCompletionChoice(WireModel):
    """One answer; ``finish_reason`` must be given and may be null."""

    index: int
    message: ChatMessage
    finish_reason: ChatFinishReason | None


class ChatCompletionUsage(WireModel):
    """Counts, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletionResponse(WireModel):
    """A whole answer; ``created`` in Unix seconds; ``trace_id`` is not OpenAI's."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(default_factory=_unix_now)
    model: str
    choices: list[ChatCompletionChoice]
    usage: ChatCompletionUsage
    trace_id: str | None = None


class ChatCompletionStreamDelta(WireModel):
    """What a chunk adds; both fields are always written."""

    role: str | None = None
    content: str | None = None


class ChatCompletionStreamChoice(WireModel):
    """One answer's part of a chunk."""

    index: int
    delta: ChatCompletionStreamDelta
    finish_reason: ChatFinishReason | None = None


class ChatCompletionStreamResponse(WireModel):
    """A chunk of a streamed answer; ``created`` in Unix seconds."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int = Field(default_factory=_unix_now)
    model: str
    choices: list[ChatCompletionStreamChoice]


class EmbeddingRequest(WireModel):
    """Texts to be embedded; token ids are not taken."""

    input: str | list[str]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class EmbeddingData(WireModel):
    """The vector of one text, as numbers whatever ``encoding_format`` asked for."""

    object: Literal["embedding"] = "embedding"
    embedding: list[float]
    index: int


class EmbeddingUsage(WireModel):
    """Counts, in tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(WireModel):
    """The vectors of all texts."""

    object: Literal["list"] = "list"
    data: list[EmbeddingData]
    model: str
    usage: EmbeddingUsage


class ModelInfo(WireModel):
    """A model on offer; ``created`` in Unix seconds."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default_factory=_unix_now)
    # The published default of v0.1; penstock's own endpoint always says who owns a model.
    owned_by: str = "sagellm"


class ModelListResponse(WireModel):
    """All models on offer."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class OpenAIError(WireModel):
    """A failure in OpenAI's shape; ``code`` is text."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIErrorResponse(WireModel):
    """The envelope of a failure."""

    error: OpenAIError
