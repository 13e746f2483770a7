"""Which commands are models to OpenAI's clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Description, OpenAIKind

_SHOWN = 20  # models in the text of an error


class Model(NamedTuple):
    """A command under the name by which OpenAI's clients ask for it."""

    id: str
    command: str
    kind: OpenAIKind
    input_schema: Mapping[str, Any]


def models_of(description: Description) -> list[Model]:
    """Return what can be asked for, in the order of the commands."""
    return [
        Model(command.model or name, name, command.openai, command.input_schema)
        for name, command in description.commands.items()
        if command.openai is not None
    ]


def transports_of(description: Description, *, streaming: bool) -> dict[str, str]:
    """Return the commands that take requests as they are, by the names of their models.

    Args:
        streaming: Those that stream, or those that do not.
    """
    return {
        command.model or name: name
        for name, command in description.commands.items()
        if command.openai == "transport" and command.streaming == streaming
    }


def find_model(description: Description, asked: str, kind: OpenAIKind) -> Model:
    """Return the model of a name, or of the name of its command.

    Raises:
        CallError: ``not_found``, naming those there are.
    """
    fitting = [model for model in models_of(description) if model.kind == kind]
    found = next((model for model in fitting if asked in (model.id, model.command)), None)
    if found is not None:
        return found
    known = [*(model.id for model in fitting), *transports_of(description, streaming=False)]
    names = ", ".join(list(dict.fromkeys(known))[:_SHOWN]) or "none"
    raise CallError(
        f"there is no {kind} model {asked[:100]!r}; there are: {names}",
        ErrorCode.NOT_FOUND,
        details=[{"path": ["model"], "reason": "unknown"}],
    )
