"""What plainly fits a schema does fit it; and no schema, however odd, is more than a quick no."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import Field

from penstock.protocol.runners import Offer
from penstock.runtime.command import DEFAULT_QUEUE, bind, define
from penstock.runtime.manifest_parts import NO_SETTINGS
from penstock.runtime.offers import OfferedInput, bind_offer
from penstock.runtime.plain_input import plainly_fits

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
SIMPLE = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "title": st.text(max_size=3),
        "minimum": st.integers(-3, 3),
        "exclusiveMaximum": st.integers(-3, 3),
        "items": st.fixed_dictionaries({"type": KINDS}),
        "additionalProperties": st.booleans(),
        "pattern": st.just("^a"),
        "enum": st.lists(st.integers(), min_size=1, max_size=2),
    },
)
PROPERTY = SIMPLE | st.just({}) | st.fixed_dictionaries({"anyOf": st.lists(SIMPLE, min_size=1, max_size=3)})
NAMES = st.sampled_from(["a", "b", "c"])


@given(
    value=st.dictionaries(NAMES, JSON, max_size=3),
    properties=st.dictionaries(NAMES, PROPERTY, max_size=3),
    required=st.lists(NAMES, unique=True, max_size=2),
)
def test_what_plainly_fits_is_valid(
    value: dict[str, Any], properties: dict[str, Any], required: list[str]
) -> None:
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    if plainly_fits(value, schema):
        Draft202012Validator(schema).validate(value)


@given(value=JSON, schema=JSON)
def test_no_schema_breaks_it(value: Any, schema: Any) -> None:
    assert plainly_fits(value, schema) in (True, False)


@given(value=st.dictionaries(NAMES, JSON), schema=JSON, name=st.sampled_from(["properties", "required"]))
def test_no_part_of_a_schema_breaks_it(value: Any, schema: Any, name: str) -> None:
    assert plainly_fits(value, {"properties": {"a": schema}, name: schema}) in (True, False)


def example(
    prompt: str,
    count: int = 1,
    share: Annotated[float, Field(gt=0, le=1)] = 0.5,
    words: list[str] | None = None,
    stop: str | list[str] | None = None,
) -> None:
    """An author's function."""


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (b'{"prompt": "a"}', True),
        (b'{"prompt": "a", "count": 3, "share": 1, "words": ["a"], "stop": "b"}', True),
        (b'{"prompt": "a", "words": null, "stop": ["b", "c"]}', True),
        (b'{"prompt": "a", "count": "3"}', False),  # converted where it runs
        (b'{"prompt": "a", "count": true}', False),
        (b'{"prompt": "a", "share": 0}', False),
        (b'{"prompt": "a", "share": 1.5}', False),
        (b'{"prompt": "a", "words": [1]}', False),
        (b'{"count": 3}', False),
        (b'{"prompt": "a", "promt": "b"}', False),
        (b"[]", False),
        (b"{", False),
        (b'{"prompt": "' + b"a" * 70_000 + b'"}', False),  # too large to look at here
    ],
)
def test_inputs_of_an_authors_function(text: bytes, plain: bool) -> None:
    command = define("example", example, streaming=False, concurrency=None, queue=DEFAULT_QUEUE)
    bound = bind(command, frozenset(), NO_SETTINGS)
    offered = bind_offer(Offer(name="example", input_schema=dict(bound.input.json_schema)))
    assert isinstance(offered.input, OfferedInput)
    assert offered.input.surely_takes(text) is plain
