"""The depth of JSON, against a count that builds it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.protocol.depth import MAX_DEPTH, check_depth

STRINGS = st.text(st.sampled_from('[]{}"\\,:x\n\ud83d\xe9'), max_size=8)
VALUES = st.recursive(
    STRINGS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=30,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def refused(text: bytes | str) -> bool:
    try:
        check_depth(text)
    except CallError as error:
        return error.code is ErrorCode.TOO_LARGE and str(MAX_DEPTH) in error.message
    return False


@given(VALUES, st.integers(0, 70), st.booleans(), st.booleans())
def test_json_is_refused_if_it_is_nested_too_deep(value: Any, more: int, objects: bool, ascii: bool) -> None:
    for _ in range(more):
        value = {"]": value} if objects else ["{", value]
    # Beside it stands what makes the brackets many, whatever the depth.
    text = json.dumps([value, *[[]] * MAX_DEPTH], ensure_ascii=ascii)
    assert refused(text) == refused(text.encode("utf-8", "surrogatepass")) == (depth(value) + 1 > MAX_DEPTH)


@pytest.mark.parametrize(
    ("levels", "deep"), [(MAX_DEPTH - 1, False), (MAX_DEPTH, False), (MAX_DEPTH + 1, True)]
)
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_the_limit_is_exact(levels: int, deep: bool, pair: str) -> None:
    opening = pair[0] if pair == "[]" else '{"a":'
    assert refused(opening * (levels - 1) + pair + pair[1] * (levels - 1)) == deep


@pytest.mark.parametrize("text", ["[" * 10_000_000, "[" * 5_000_000 + "]" * 5_000_000, "[{" * 65])
def test_a_bomb_is_refused(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps("[" * 1000),
        json.dumps('"[{' * 1000),
        json.dumps("\\[" * 1000),
        json.dumps({"[" * 100: "{" * 100}),
        "[" + "[]," * 1000 + "[]]",
    ],
)
def test_brackets_that_nest_nothing_do_not_count(text: str) -> None:
    json.loads(text)
    assert not refused(text)


@given(st.binary() | st.text(st.sampled_from('[]{}"\\')).map(str.encode))
def test_any_bytes_are_refused_or_not(data: bytes) -> None:
    refused(data)
    refused(data * 100)
