"""A conversation, and the commands that can continue one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import CommandDescription
from penstock.protocol.openai_api.requests import fitted


class ChatModel(NamedTuple):
    """A command that can be talked to.

    Attributes:
        name: What it is called: as OpenAI's clients know it, or as a command.
        command: Its command.
        schema: Of the command's input.
    """

    name: str
    command: str
    schema: Mapping[str, Any]

    def __str__(self) -> str:
        return self.name if self.name == self.command else f"{self.name} (command {self.command})"

    @property
    def remembers(self) -> bool:
        """Whether it is given the whole conversation, not its last turn alone."""
        return "messages" in self.schema.get("properties", {})


class Conversation:
    """What was said, and what the model was told before it.

    Args:
        system: What it is told.
    """

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._turns: list[dict[str, str]] = []

    def input_for(self, model: ChatModel, question: str) -> dict[str, Any]:
        """Return the input of the call that answers a question.

        Raises:
            CallError: ``invalid_argument``: the command takes nothing of what it would have to be told.
        """
        told = [{"role": "system", "content": self.system}] if self.system else []
        before = self._turns if model.remembers else []
        return fitted({}, model.schema, [*told, *before, {"role": "user", "content": question}])

    def keep(self, question: str, answer: str) -> None:
        """Remember a question and what was said to it."""
        self._turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Forget what was said, but not what the model is told."""
        self._turns.clear()


def chat_models(commands: Mapping[str, CommandDescription]) -> list[ChatModel]:
    """Return whom one can talk to: commands that say so, then those that take messages, then prompts."""
    ranked = [(_rank(command), name, command) for name, command in commands.items()]
    fitting = sorted((found for found in ranked if found[0] < _NEVER), key=lambda found: found[0])
    return [ChatModel(command.model or name, name, command.input_schema) for _, name, command in fitting]


def choose(models: list[ChatModel], asked: str | None) -> ChatModel:
    """Return the model of a name, or of the name of its command; the first if none is asked for.

    Raises:
        CallError: ``not_found``, naming those there are.
    """
    found = next((model for model in models if asked in (None, model.name, model.command)), None)
    if found is not None:
        return found
    names = ", ".join(str(model) for model in models)
    if not names:
        raise CallError("the server has no command that takes messages or a prompt", ErrorCode.NOT_FOUND)
    raise CallError(f"there is nobody called {asked!r}; there are: {names}", ErrorCode.NOT_FOUND)


_NEVER = 3


def _rank(command: CommandDescription) -> int:
    properties = command.input_schema.get("properties", {})
    if command.openai == "chat":
        return 0
    if command.openai is None and "messages" in properties:
        return 1
    return 2 if command.openai is None and "prompt" in properties else _NEVER
