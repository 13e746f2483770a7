"""A call's frames as the chunks of OpenAI's streamed answers.

Each frame of such a call is a chunk: the first says whose turn it is, each item is a piece of the answer, the
last says why it ended.  A call that did not complete ends with OpenAI's error object instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from penstock.errors import CallError
from penstock.protocol.call import Ending, State
from penstock.protocol.messages import CancelReason, CancelTimes, FrameWriter, Note
from penstock.protocol.openai_api.errors import error_of, openai_error
from penstock.protocol.openai_api.pieces import Piece, finish_reason, piece_of, text_of
from penstock.protocol.values import encode_value

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_REFUSED = _encode({"role": "assistant", "content": "", "refusal": None})[:-1]


class ChunkForm(msgspec.Struct, frozen=True, kw_only=True):
    """The wire form of a call that one of OpenAI's routes opened; ``penstock.protocol.messages.Form``.

    Attributes:
        id: Of the answer; several calls may be choices of one.
        model: What the answer says it is from.
        created: Unix seconds.
        usage: Another chunk will tell the counts of tokens; these say that they do not.
        index: Of the choice.
    """

    kind: Literal["chat", "completion"]
    id: str
    model: str
    created: int
    usage: bool = False
    index: int = 0

    def writer(self, command: str, task_id: str, request_id: str) -> ChunkWriter:
        """See ``Form.writer``."""
        return ChatWriter(self) if self.kind == "chat" else CompletionWriter(self)

    def data_of(self, line: bytes) -> msgspec.Raw | None:
        """See ``Form.data_of``: what the answer was is not told beside its chunks."""
        return None


class ChunkWriter(FrameWriter, ABC):
    """Writes a call's frames as chunks of one choice.

    Args:
        form: How.
        shape: What OpenAI calls the object.
    """

    __slots__ = ("_begin", "_calls_tools", "_end", "_head")

    def __init__(self, form: ChunkForm, shape: str) -> None:
        identity = {"id": form.id, "object": shape, "created": form.created, "model": form.model}
        self._head = _encode(identity)[:-1]
        self._begin = b'%b,"choices":[{"index":%d,' % (self._head, form.index)
        self._end = b'}],"usage":null}' if form.usage else b"}]}"
        self._calls_tools = False

    def note(self, kind: Note, about: Mapping[str, Any], seq: int, now: float) -> bytes:
        """Write a chunk without a choice: OpenAI's form has no notes."""
        return self._head + b',"choices":[]}'

    def completed(self, answer: bytes | None, metrics: Mapping[str, Any], seq: int, now: float) -> bytes:
        """Write the last chunk, which holds the answer of a command that does not stream."""
        text = "" if answer is None else piece_of(_decode(answer)).text
        return self._last(text, finish_reason(metrics, calls_tools=self._calls_tools))

    def error(self, error: CallError, seq: int, now: float) -> bytes:
        """Write OpenAI's error object."""
        return openai_error(error)

    def cancelled(self, reason: CancelReason, times: CancelTimes, seq: int, now: float) -> bytes:
        """Write OpenAI's error object: an answer that was cancelled is not all of it."""
        error = error_of(Ending(State.CANCELLED, reason=reason))
        assert error is not None
        return openai_error(error)

    @abstractmethod
    def _last(self, text: str, reason: str) -> bytes:
        """Write the last chunk: what is left to say, and why the answer ended."""


class ChatWriter(ChunkWriter):
    """Writes chunks of a chat completion."""

    __slots__ = ("_closing", "_text")

    def __init__(self, form: ChunkForm) -> None:
        super().__init__(form, "chat.completion.chunk")
        self._begin += b'"delta":'
        self._text = self._begin + b'{"content":'
        self._closing = self._end
        self._end = b'},"logprobs":null,"finish_reason":null' + self._end

    def accepted(self, seq: int, now: float) -> bytes:
        """Write the first chunk: the assistant's turn begins."""
        return b"".join((self._begin, _REFUSED, self._end))

    def item(self, data: object, seq: int, now: float) -> bytes:
        """Write what an item adds."""
        text = text_of(data)
        if text is None:
            return self._other(piece_of(data))
        try:
            written = _encode(text)
        except UnicodeEncodeError:
            written = encode_value(text)  # which says what is wrong with it
        return b"".join((self._text, written, self._end))

    def _other(self, piece: Piece) -> bytes:
        text, reasoning, tool_calls = piece
        delta: dict[str, Any] = {"content": text} if text else {}
        if reasoning is not None:
            delta["reasoning_content"] = reasoning
        if tool_calls is not None:
            self._calls_tools = True
            delta["tool_calls"] = tool_calls
        return b"".join((self._begin, encode_value(delta)[:-1], self._end))

    def _last(self, text: str, reason: str) -> bytes:
        delta = _encode({"content": text} if text else {})
        end = (b',"logprobs":null,"finish_reason":', _encode(reason), self._closing)
        return b"".join((self._begin, delta, *end))


class CompletionWriter(ChunkWriter):
    """Writes chunks of a text completion."""

    __slots__ = ()

    def __init__(self, form: ChunkForm) -> None:
        super().__init__(form, "text_completion")
        self._begin += b'"text":'

    def accepted(self, seq: int, now: float) -> bytes:
        """Write the first chunk, which has no text yet."""
        return self._chunk(b'""', b"null")

    def item(self, data: object, seq: int, now: float) -> bytes:
        """Write what an item adds."""
        return self._chunk(encode_value(piece_of(data).text), b"null")

    def _last(self, text: str, reason: str) -> bytes:
        return self._chunk(_encode(text), _encode(reason))

    def _chunk(self, text: bytes, reason: bytes) -> bytes:
        return b"".join((self._begin, text, b',"logprobs":null,"finish_reason":', reason, self._end))
