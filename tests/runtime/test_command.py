"""Commands: what a decorator accepts, what it refuses, and that each refusal says how to fix it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from collections.abc import Iterator as TypingIterator
from typing import Any

import msgspec
import pydantic
import pytest

from penstock.errors import AuthoringError
from penstock.protocol.values import encode_value
from penstock.runtime.command import Command, Kind, item_schema
from penstock.runtime.manifest import Manifest
from penstock.runtime.parameters import State
from penstock.runtime.runtime import DEFINITION, Runtime


class Engine:
    """A thing no JSON describes."""


def value(x: int = 0) -> int:
    """Double it.
    Or not.

    More about it.
    """
    return x


async def awaitable(x: int = 0) -> int:
    return x


def generator(x: int = 0) -> Iterator[int]:
    yield x


async def async_generator(x: int = 0) -> AsyncIterator[int]:
    yield x


# -- what is accepted ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "kind", "concurrency"),
    [
        (value, Kind.VALUE, 32),
        (awaitable, Kind.AWAITABLE, 100),
        (generator, Kind.GENERATOR, 32),
        (async_generator, Kind.ASYNC_GENERATOR, 100),
    ],
)
def test_the_decorator_describes_and_returns_the_same_function(
    function: Callable[..., Any], kind: Kind, concurrency: int
) -> None:
    rt = Runtime()
    decorate = rt.streaming_command if kind.streaming else rt.command
    assert decorate("predict")(function) is function
    command = rt.commands["predict"]
    assert (command.name, command.kind, command.concurrency) == ("predict", kind, concurrency)
    assert command.function is function
    assert command.streaming is kind.streaming
    assert getattr(function, DEFINITION) is command


def test_a_definition_is_frozen() -> None:
    rt = Runtime()
    rt.command("predict")(value)
    with pytest.raises(AttributeError):
        rt.commands["predict"].name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        rt.commands["other"] = rt.commands["predict"]  # type: ignore[index]


def test_a_bound_method_is_a_command() -> None:
    class Model:
        def predict(self, prompt: str) -> str:
            return prompt

    rt = Runtime()
    rt.command("predict")(Model().predict)
    assert [p.name for p in rt.commands["predict"].parameters] == ["prompt"]


def test_the_first_paragraph_is_the_description() -> None:
    rt = Runtime()
    rt.command("predict", concurrency=3, queue=0)(value)
    command = rt.commands["predict"]
    assert command.description == "Double it. Or not."
    assert (command.concurrency, command.queue) == (3, 0)


class Piece(pydantic.BaseModel):
    text: str


def untyped():  # type: ignore[no-untyped-def]
    return 1


def bare() -> TypingIterator:  # type: ignore[type-arg]
    yield 1


def pieces() -> Generator[Piece, None, None]:
    yield Piece(text="")


def engine() -> Engine:
    return Engine()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (value, {"type": "integer"}),
        (generator, {"type": "integer"}),
        (async_generator, {"type": "integer"}),
        (untyped, {}),
        (bare, {}),
        (engine, {}),
        (pieces, Piece.model_json_schema(mode="serialization")),
    ],
)
def test_the_schema_of_an_item_is_what_the_author_says_it_is(
    function: Callable[..., Any], expected: dict[str, Any]
) -> None:
    assert item_schema(function) == expected


class Renamed(pydantic.BaseModel):
    kind: str = pydantic.Field(default="plain", alias="type")


class WrittenByAlias(Renamed):
    model_config = pydantic.ConfigDict(serialize_by_alias=True)


@pytest.mark.parametrize("model", [Renamed, WrittenByAlias])
def test_the_schema_of_an_item_is_of_what_is_written(model: type[Renamed]) -> None:
    def answer() -> Renamed:
        return model()

    answer.__annotations__["return"] = model
    schema, written = item_schema(answer), msgspec.json.decode(encode_value(model()))
    assert list(schema["properties"]) == list(written)


# -- what is refused -----------------------------------------------------------------------------------


def several(*prompts: str) -> str: ...
def anything(**given: str) -> str: ...
def positional(prompt: str, /) -> str: ...
def undefined(prompt: Missing) -> str: ...  # type: ignore[name-defined]  # noqa: F821
def no_schema(engine: Engine) -> str: ...
def odd_hint(prompt: pydantic.nothing_of_that_name) -> str: ...  # type: ignore[name-defined]


class Callee:
    def __call__(self, prompt: str) -> str:
        return prompt


def refusal(function: Any, name: Any = "predict", streaming: bool = False, **more: Any) -> str:
    rt = Runtime()
    decorate = rt.streaming_command if streaming else rt.command
    with pytest.raises(AuthoringError) as refused:
        decorate(name, **more)(function)
    assert not rt.commands
    return str(refused.value)


@pytest.mark.parametrize(
    ("function", "fix"),
    [
        (several, "takes *prompts: name each parameter instead"),
        (anything, "takes **given: name each parameter"),
        (positional, "takes prompt by position only: remove the '/'"),
        (undefined, "names 'Missing', which is not defined; import it"),
        (no_schema, "write State[Engine] or give it a default"),
        (odd_hint, "write a def that calls it, with type hints that exist"),
        (functools.partial(value, 1), "write a def that calls it"),
        (Callee(), "write a def that calls it"),
        ("predict", "is not a function"),
        (generator, "use @streaming_command"),
        (async_generator, "use @streaming_command"),
    ],
)
def test_each_mistake_is_refused_with_its_fix(function: Any, fix: str) -> None:
    assert fix in refusal(function)


@pytest.mark.parametrize("function", [value, awaitable])
def test_a_streaming_command_that_never_yields_is_refused(function: Any) -> None:
    assert "yield its items, or use @command" in refusal(function, streaming=True)


@pytest.mark.parametrize("function", [awaitable, async_generator])
def test_only_code_in_threads_can_be_interrupted(function: Any) -> None:
    rt = Runtime()
    decorator = rt.streaming_command if function is async_generator else rt.command
    with pytest.raises(AuthoringError, match="take `interrupt` off it"):
        decorator("x", interrupt=True)(function)


def test_a_refusal_names_the_place() -> None:
    message = refusal(several)
    assert f"{__file__}:{several.__code__.co_firstlineno}" in message
    assert "'predict'" in message


@pytest.mark.parametrize("name", ["", "1st", "a b", "ä", "a/b", "a\n", "x" * 65, 5])
def test_a_name_that_no_path_or_message_can_carry_is_refused(name: Any) -> None:
    assert "is not a command name: use 1 to 64 letters" in refusal(value, name)


@pytest.mark.parametrize("more", [{"concurrency": 0}, {"concurrency": -1}, {"queue": -1}])
def test_bounds_that_let_nobody_in_are_refused(more: dict[str, int]) -> None:
    assert "concurrency is at least 1 and queue at least 0" in refusal(value, **more)


def test_a_name_taken_twice_is_refused() -> None:
    rt = Runtime()
    rt.command("predict")(value)
    with pytest.raises(AuthoringError, match="'predict' is defined twice; give one of them another name"):
        rt.command("predict")(awaitable)
    assert rt.commands["predict"].function is value


def test_state_that_nothing_provides_is_refused() -> None:
    rt = Runtime()

    @rt.command("predict")
    def predict(engine: State[Engine]) -> str: ...

    with pytest.raises(AuthoringError, match="needs state engine, but nothing provides it: add an `init"):
        rt.bound_commands()

    @rt.command("initialize")
    def initialize() -> dict[str, Any]: ...

    assert [p.name for p in rt.bound_commands()["predict"].state] == ["engine"]


def test_a_manifest_may_name_state(tmp_path: Any) -> None:
    rt = Runtime(Manifest(name="m", state=("label",)))

    @rt.command("predict")
    def predict(label: str = "x", prompt: str = "y") -> str: ...

    bound = rt.bound_commands()["predict"]
    assert [p.name for p in bound.state] == ["label"]
    assert bound.input.names == {"prompt"}


def test_a_command_is_described_for_its_callers() -> None:
    rt = Runtime()
    rt.streaming_command("predict")(pieces)
    bound = rt.bound_commands()["predict"]
    assert isinstance(bound.command, Command)
    description = bound.description
    assert description.streaming
    assert description.item_schema == Piece.model_json_schema()
    assert description.input_schema["properties"] == {}
