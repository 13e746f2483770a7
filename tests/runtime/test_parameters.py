"""Type hints as the schema of an input: what callers may send, and what they are told otherwise."""

from __future__ import annotations

import base64
import datetime
import enum
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import AuthoringError, CallError, ErrorCode
from penstock.runtime.command import BoundCommand
from penstock.runtime.parameters import State
from penstock.runtime.runtime import Runtime


class Engine:
    """A thing no JSON describes."""


class Colour(enum.Enum):
    RED = "red"


class Options(pydantic.BaseModel):
    top_k: int = pydantic.Field(ge=1)
    tags: list[str] = []


def bind(function: Callable[..., Any]) -> BoundCommand:
    rt = Runtime()
    rt.command("predict")(function)
    return rt.bound_commands()["predict"]


def check(function: Callable[..., Any], text: str | bytes) -> dict[str, Any]:
    return bind(function).input.validate(text.encode() if isinstance(text, str) else text)


def refused(function: Callable[..., Any], text: str | bytes) -> CallError:
    with pytest.raises(CallError) as error:
        check(function, text)
    assert error.value.code is ErrorCode.INVALID_ARGUMENT
    return error.value


def predict(
    prompt: str,
    max_tokens: int = 256,
    temperature: float = 0.7,
    style: Literal["short", "long"] = "short",
    options: Options | None = None,
    seed: Optional[int] = None,  # noqa: UP045 - authors write it so
    note: str = None,  # type: ignore[assignment]  # noqa: RUF013 - and so
    blob: bytes = b"",
    when: datetime.date | None = None,
    colour: Colour = Colour.RED,
    limit: Annotated[int, pydantic.Field(le=5)] = 1,
    anything: Any = 1,
    untyped="x",  # type: ignore[no-untyped-def]
    engine=None,  # type: ignore[no-untyped-def]
    tool: Engine = None,  # type: ignore[assignment]
    model: State[Engine] = None,  # type: ignore[assignment]
    plain_state: State = None,  # type: ignore[assignment,type-arg]
) -> str: ...


PUBLIC = "prompt max_tokens temperature style options seed note blob when colour limit anything untyped"


# -- schema --------------------------------------------------------------------------------------------


def test_public_and_state_are_told_apart() -> None:
    bound = bind(predict)
    assert bound.input.names == set(PUBLIC.split())
    assert [p.name for p in bound.state] == ["engine", "tool", "model", "plain_state"]


def test_the_schema_shows_what_callers_may_send_and_no_state() -> None:
    schema = bind(predict).input.json_schema
    assert list(schema["properties"]) == PUBLIC.split()
    assert schema["required"] == ["prompt"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["prompt"]["type"] == "string"
    assert schema["properties"]["max_tokens"] == {"default": 256, "title": "Max Tokens", "type": "integer"}
    assert schema["properties"]["style"]["enum"] == ["short", "long"]
    assert schema["properties"]["colour"]["default"] == "red"
    assert schema["properties"]["limit"]["maximum"] == 5
    json.dumps(schema)


def test_a_default_that_is_no_json_stays_out_of_the_schema() -> None:
    marker = object()

    def command(x: Any = marker) -> None: ...

    assert "default" not in bind(command).input.json_schema["properties"]["x"]
    assert check(command, "{}") == {}


# -- values --------------------------------------------------------------------------------------------


def test_defaults_are_left_to_the_function() -> None:
    assert check(predict, '{"prompt": "x"}') == {"prompt": "x"}


def test_values_become_what_the_hints_say() -> None:
    given = {
        "prompt": "x",
        "max_tokens": "12",
        "temperature": 1,
        "options": {"top_k": 3, "tags": ["a"]},
        "blob": base64.b64encode(b"\x00\xff\xfe").decode(),
        "when": "2024-01-02",
        "colour": "red",
        "anything": {"a": [1, None]},
        "untyped": 5,
    }
    arguments = check(predict, json.dumps(given))
    assert arguments == {
        **given,
        "max_tokens": 12,
        "temperature": 1.0,
        "options": Options(top_k=3, tags=["a"]),
        "blob": b"\x00\xff\xfe",
        "when": datetime.date(2024, 1, 2),
        "colour": Colour.RED,
    }


@pytest.mark.parametrize("name", ["options", "seed", "note", "when"])
def test_a_parameter_with_default_none_takes_null(name: str) -> None:
    assert check(predict, json.dumps({"prompt": "x", name: None}))[name] is None


@pytest.mark.parametrize("name", ["prompt", "max_tokens", "blob", "untyped_never"])
def test_others_do_not(name: str) -> None:
    assert refused(predict, json.dumps({"prompt": "x", name: None})).message.startswith(f"{name}: ")


@given(st.binary(max_size=100))
def test_bytes_travel_as_base64(data: bytes) -> None:
    def command(blob: bytes) -> None: ...

    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert check(command, json.dumps({"blob": encode(data).decode()})) == {"blob": data}


def test_the_schema_says_that_bytes_travel_as_base64() -> None:
    def command(blob: bytes) -> None: ...

    blob = bind(command).input.json_schema["properties"]["blob"]
    assert (blob["type"], blob["format"]) == ("string", "base64url")


def test_of_duplicate_keys_the_last_wins() -> None:
    assert check(predict, '{"prompt": "a", "prompt": "b"}') == {"prompt": "b"}


# -- refusals ------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_the_nearest() -> None:
    error = refused(predict, '{"prompt": "x", "max_token": 5}')
    assert error.message == "max_token: unknown input; did you mean max_tokens?"
    assert error.details == ({"path": ["input", "max_token"], "reason": "extra_forbidden"},)


def test_an_unknown_name_near_nothing_is_told_what_is_known() -> None:
    def command(a: int = 1, b: int = 2) -> None: ...
    def nothing() -> None: ...

    assert refused(command, '{"zzzzzz": 1}').message == "zzzzzz: unknown input; known are a, b"
    assert refused(nothing, '{"zzzzzz": 1}').message == "zzzzzz: unknown input; known are none"


@pytest.mark.parametrize("name", ["engine", "tool", "model", "plain_state"])
def test_state_is_no_input(name: str) -> None:
    error = refused(predict, json.dumps({"prompt": "x", name: None}))
    assert error.message.startswith(f"{name}: unknown input")


def test_every_fault_is_told_at_once_with_its_path() -> None:
    error = refused(predict, '{"max_tokens": "many", "options": {"top_k": 0, "tags": [1]}, "style": "odd"}')
    assert {tuple(detail["path"]) for detail in error.details} == {
        ("input", "prompt"),
        ("input", "max_tokens"),
        ("input", "style"),
        ("input", "options", "top_k"),
        ("input", "options", "tags", 0),
    }
    assert "prompt: field required" in error.message
    assert "options.tags.0: input should be a valid string" in error.message


JUNK: list[str | bytes] = [
    *("", "{", "[]", "null", '"x"', "5", "{]", '{"prompt": "x",}', "\x00", '{"prompt": "\\ud800"}', b"\xff"),
    *('{"prompt": "x", "temperature": NaN}', '{"prompt": "x", "temperature": 1e999}'),
    *('{"prompt": ' + "[" * 5000, '{"anything": ' + "[" * 5000 + "]" * 5000 + ', "prompt": "x"}'),
]


@pytest.mark.parametrize("text", JUNK, ids=lambda text: repr(text)[:30])
def test_junk_is_a_typed_refusal(text: str | bytes) -> None:
    assert refused(predict, text).details


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    error = refused(predict, '{"prompt": "x", "max_tokens": "my secret"}')
    assert "my secret" not in error.message
    assert "my secret" not in str(error.details)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*PUBLIC.split(), "engine", "promt"]), JSON))
def test_any_json_is_arguments_or_a_typed_refusal(given: dict[str, Any]) -> None:
    try:
        arguments = check(predict, json.dumps(given))
    except CallError as error:
        assert error.code is ErrorCode.INVALID_ARGUMENT  # noqa: PT017 - either outcome is right
    else:
        assert set(arguments) == set(given) <= set(PUBLIC.split())


# -- start-up ------------------------------------------------------------------------------------------


def test_a_type_without_a_schema_and_without_a_default_is_refused() -> None:
    def command(items: list[Engine]) -> None: ...

    with pytest.raises(AuthoringError, match="no JSON Schema"):
        bind(command)
