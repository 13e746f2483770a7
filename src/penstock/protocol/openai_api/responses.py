"""A call's frames as the events of OpenAI's newer API, `/v1/responses`: text in, text out.

The first frame is ``response.created``, each item an ``output_text.delta``, the last ``response.completed``,
``.incomplete`` or ``.failed``.  What that API says in between, and is known without the call, stands in
``opening`` and ``closing``; the numbers of the events leave room for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import Ending, State
from penstock.protocol.messages import CancelReason, CancelTimes, FrameWriter, Note
from penstock.protocol.openai_api.errors import error_of
from penstock.protocol.openai_api.pieces import finish_reason, piece_of, usage_of
from penstock.protocol.openai_api.requests import OpenAIBody, Whole, fitted, refuse_given, turn_of
from penstock.protocol.values import encode_value

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

OPENING = 3
CLOSING = 3


class ResponseBody(OpenAIBody, frozen=True, kw_only=True):
    """The body of `/v1/responses`."""

    input: str | Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Whole | None = None
    tools: list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    text: dict[str, Any] | None = None

    def input_for(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input of a command.

        Raises:
            CallError: ``invalid_argument``; the command cannot do what is asked.
        """
        wanted = (self.text or {}).get("format") or {"type": "text"}
        refuse_given(
            tools=self.tools,
            previous_response_id=self.previous_response_id,
            background=self.background,
            text=wanted != {"type": "text"},
        )
        said = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        told = [{"role": "system", "content": self.instructions}] if self.instructions else []
        turns = [turn_of(message, number) for number, message in enumerate([*told, *said])]
        return fitted({**self.settings(), "max_tokens": self.max_output_tokens}, schema, turns)


class ResponseForm(msgspec.Struct, frozen=True, kw_only=True):
    """The wire form of a call that `/v1/responses` opened; ``penstock.protocol.messages.Form``.

    Attributes:
        id: Of the response.
        model: What it says it is from.
        created: Unix seconds.
    """

    id: str
    model: str
    created: int

    def writer(self, command: str, task_id: str, request_id: str) -> FrameWriter:
        """See ``Form.writer``."""
        return ResponseWriter(self)

    def data_of(self, line: bytes) -> msgspec.Raw | None:
        """See ``Form.data_of``: what the answer was is not told beside its events."""
        return None

    @property
    def item_id(self) -> str:
        """Of the one message that is answered."""
        return f"msg_{self.id.removeprefix('resp_')}"

    def response(self, status: str, text: str | None = None, **more: Any) -> dict[str, Any]:
        """Return the response as it stands in events and answers.

        Args:
            text: All of the answer; None before it has begun.
        """
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "output": [] if text is None else [self._message("completed", text)],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
            **more,
        }

    def opening(self) -> list[dict[str, Any]]:
        """Return the events behind the first."""
        item = self._message("in_progress")
        return [
            {"type": "response.in_progress", "response": self.response("in_progress"), "sequence_number": 1},
            {"type": "response.output_item.added", "output_index": 0, "item": item, "sequence_number": 2},
            {"type": "response.content_part.added", **self._place(), "part": _part(""), "sequence_number": 3},
        ]

    def closing(self, text: str, number: int) -> list[dict[str, Any]]:
        """Return the events before the last.

        Args:
            number: Of the first of them.
        """
        done = self._message("completed", text)
        events: list[dict[str, Any]] = [
            {"type": "response.output_text.done", **self._place(), "text": text, "logprobs": []},
            {"type": "response.content_part.done", **self._place(), "part": _part(text)},
            {"type": "response.output_item.done", "output_index": 0, "item": done},
        ]
        return [{**event, "sequence_number": at} for at, event in enumerate(events, number)]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.item_id, "output_index": 0, "content_index": 0}

    def _message(self, status: str, text: str | None = None) -> dict[str, Any]:
        content = [] if text is None else [_part(text)]
        return {
            "type": "message",
            "id": self.item_id,
            "status": status,
            "role": "assistant",
            "content": content,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class ResponseWriter(FrameWriter):
    """Writes a call's frames as events.

    Args:
        form: How.
    """

    __slots__ = ("_begin", "_form", "_texts")

    def __init__(self, form: ResponseForm) -> None:
        self._form = form
        self._texts: list[str] = []
        begin = {"type": "response.output_text.delta", "item_id": form.item_id, "output_index": 0}
        self._begin = _encode({**begin, "content_index": 0, "logprobs": []})[:-1]

    def accepted(self, seq: int, now: float) -> bytes:
        """Write that the response is begun."""
        response = self._form.response("in_progress")
        return _encode({"type": "response.created", "response": response, "sequence_number": seq})

    def item(self, data: object, seq: int, now: float) -> bytes:
        """Write what an item adds."""
        text = piece_of(data).text
        line = b'%b,"delta":%b,"sequence_number":%d}' % (self._begin, encode_value(text), seq + OPENING)
        self._texts.append(text)
        return line

    def note(self, kind: Note, about: Mapping[str, Any], seq: int, now: float) -> bytes:
        """Write that it is under way: this form has no notes."""
        response = self._form.response("in_progress")
        return _encode(
            {"type": "response.in_progress", "response": response, "sequence_number": seq + OPENING}
        )

    def completed(self, answer: bytes | None, metrics: Mapping[str, Any], seq: int, now: float) -> bytes:
        """Write the whole response."""
        if answer is not None:
            self._texts.append(piece_of(_decode(answer)).text)
        text = "".join(self._texts)
        cut = finish_reason(metrics, calls_tools=False) == "length"
        more = {"incomplete_details": {"reason": "max_output_tokens"}} if cut else {}
        status = "incomplete" if cut else "completed"
        response = self._form.response(status, text, usage=_usage(metrics), **more)
        number = seq + OPENING + CLOSING
        return _encode({"type": f"response.{status}", "response": response, "sequence_number": number})

    def error(self, error: CallError, seq: int, now: float) -> bytes:
        """Write why it failed, and how far it came."""
        fault = {"code": error.code.value, "message": error.message}
        response = self._form.response("failed", "".join(self._texts) or None, error=fault)
        return _encode({"type": "response.failed", "response": response, "sequence_number": seq + OPENING})

    def cancelled(self, reason: CancelReason, times: CancelTimes, seq: int, now: float) -> bytes:
        """Write that it failed: a response that was cancelled is not all of it."""
        error = error_of(Ending(State.CANCELLED, reason=reason))
        return self.error(error or CallError("cancelled", ErrorCode.CANCELLED), seq, now)


def _usage(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    usage = usage_of(metrics)
    if usage is None:
        return None
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": metrics.get("cached_tokens", 0)},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": metrics.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }
