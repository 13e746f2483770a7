"""What OpenAI's clients ask for, and what that is as the input of a command.

Fields that change nothing here (``user``, ``metadata``, ``store`` …) are passed over, as those clients send
many; what would change the answer and cannot be done is refused, by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.depth import check_depth

MAX_CHOICES = 16
"""Of one request: each is a call of its own."""

Whole = int | float
"""A whole number; in JSON it may be written 8.0, and the command that takes it sees whether it is one."""
Text = Annotated[str, msgspec.Meta(max_length=256)]
Body = TypeVar("Body")

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_SAMPLING = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
_HINTS = (*_SAMPLING, "max_tokens")
"""Commands that do not take these choose their tokens as they do."""


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream shows besides the answer."""

    include_usage: bool = False


class OpenAIBody(msgspec.Struct, frozen=True, kw_only=True):
    """What requests for text have in common."""

    model: Text
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    seed: Whole | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None

    def choices(self) -> int:
        """Return how many answers are wanted.

        Raises:
            CallError: ``invalid_argument``; too many, or none.
        """
        wanted = 1 if self.n is None else self.n
        if wanted not in range(1, MAX_CHOICES + 1):
            text = f"n: 1 to {MAX_CHOICES} answers at once, not {wanted}"
            raise CallError(text, ErrorCode.INVALID_ARGUMENT, details=[{"path": ["n"], "reason": "range"}])
        return int(wanted)

    def settings(self) -> dict[str, Any]:
        """Return how the answer is to be made, without what is left to the command."""
        given = {name: getattr(self, name) for name in (*_SAMPLING, "stop")}
        return {name: value for name, value in given.items() if value is not None}


class ChatBody(OpenAIBody, frozen=True, kw_only=True):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    max_tokens: Whole | None = None
    max_completion_tokens: Whole | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    functions: list[dict[str, Any]] | None = None
    modalities: list[str] | None = None

    def input_for(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input of a command.

        Args:
            schema: Of that input.

        Raises:
            CallError: ``invalid_argument``; the command cannot do what is asked.
        """
        refuse_given(
            logprobs=self.logprobs,
            logit_bias=self.logit_bias,
            functions=self.functions,
            modalities=self.modalities not in (None, ["text"]),
        )
        turns = [turn_of(message, number) for number, message in enumerate(self.messages)]
        limit = self.max_completion_tokens
        given = {
            **self.settings(),
            "max_tokens": self.max_tokens if limit is None else limit,
            "tools": self.tools or None,
            "tool_choice": None if self.tool_choice == "auto" else self.tool_choice,
            "response_format": None if self.response_format == {"type": "text"} else self.response_format,
        }
        if self.tool_choice == "none":
            given["tools"] = given["tool_choice"] = None
        return fitted(given, schema, turns)


class CompletionBody(OpenAIBody, frozen=True, kw_only=True):
    """The body of `/v1/completions`."""

    prompt: str | list[str]
    max_tokens: Whole | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Whole | None = None
    best_of: Whole | None = None

    def prompts(self) -> list[str]:
        """Return the texts to continue."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def input_for(self, prompt: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input of a command for one of the prompts; arguments and errors as for a chat."""
        refuse_given(
            echo=self.echo,
            suffix=self.suffix,
            logprobs=self.logprobs,
            logit_bias=self.logit_bias,
            best_of=(self.best_of or 1) > 1,
        )
        return fitted({**self.settings(), "prompt": prompt, "max_tokens": self.max_tokens}, schema)


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/v1/embeddings`."""

    model: Text
    input: str | list[str]
    encoding_format: str | None = None
    dimensions: Whole | None = None

    def texts(self) -> list[str]:
        """Return the texts to embed."""
        return [self.input] if isinstance(self.input, str) else self.input

    def input_for(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input of a command, which takes ``input`` or ``texts``; errors as for a chat."""
        name = "texts" if "texts" in schema.get("properties", {}) else "input"
        return fitted({name: self.texts(), "dimensions": self.dimensions}, schema)


def read_openai(body: bytes, kind: type[Body]) -> Body:
    """Read a request.

    Raises:
        CallError: ``invalid_argument``, naming the field, or ``too_large``.
    """
    check_depth(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        text = str(error)[:300]
        place = _PLACE.search(text)
        path = [place.group(1)] if place and place.group(1) else []
        details = [{"path": path, "reason": "invalid"}] if path else []
        raise CallError(
            f"the body is not a request: {text}", ErrorCode.INVALID_ARGUMENT, details=details
        ) from error


def refuse_given(**asked: object) -> None:
    """Refuse what is asked for and cannot be done here.

    Raises:
        CallError: ``invalid_argument``; one of them has a value that is not empty.
    """
    for name, value in asked.items():
        if value:
            raise _unsupported(name, "is not supported here; leave it out")


def _unsupported(name: str, why: str) -> CallError:
    return CallError(
        f"{name}: {why}", ErrorCode.INVALID_ARGUMENT, details=[{"path": [name], "reason": "unsupported"}]
    )


def turn_of(message: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a message whose content is text."""
    content = message.get("content")
    turn = {name: value for name, value in message.items() if value is not None and name in _TURN}
    if turn.get("role") == "developer":
        turn["role"] = "system"
    if isinstance(content, list):
        turn["content"] = "".join(_part_text(part, number) for part in content)
    return turn


_TURN = ("role", "content", "name", "tool_calls", "tool_call_id")


def _part_text(part: Any, number: int) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise _unsupported(f"messages.{number}.content", f"parts of type {kind!r} are not supported, only text")


def _conversation(turns: list[dict[str, Any]], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conversation as a command takes it: whole, or its last turn and what the model is told."""
    properties = schema.get("properties", {})
    if "messages" in properties:
        return {"messages": turns}
    told = "\n".join(str(turn.get("content", "")) for turn in turns if turn.get("role") == "system")
    said = [turn for turn in turns if turn.get("role") == "user"]
    if len(said) > 1 or any(turn.get("role") in ("assistant", "tool") for turn in turns):
        raise _unsupported("messages", "this model takes one question at a time, no conversation")
    given = {"prompt": said[-1].get("content", "") if said else ""}
    return {**given, "system_prompt": told} if told else given


def fitted(
    given: Mapping[str, Any], schema: Mapping[str, Any], turns: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return what a command takes of what is given.

    Args:
        schema: Of its input.
        turns: The conversation, if it is one.

    Raises:
        CallError: ``invalid_argument``; it does not take what would change the answer.
    """
    taken: Mapping[str, Any] = schema.get("properties", {})
    open_to_more = schema.get("additionalProperties") not in (None, False)
    asked = given if turns is None else {**_conversation(turns, schema), **given}
    fit = {}
    for name, value in asked.items():
        if value is None:
            continue
        if name in taken or open_to_more:
            fit[name] = value
        elif name not in _HINTS:
            raise _unsupported(name, "this model does not take it")
    return fit
