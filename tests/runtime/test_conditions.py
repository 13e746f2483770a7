"""``when``: four forms, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError
from penstock.runtime.conditions import Condition, same
from penstock.runtime.references import Scope

SCOPE = Scope(
    {"yes": True, "no": False, "one": 1, "text": "fast", "empty": [], "none": None}, {"s": {"x": 1}}
)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("${input.yes}", True),
        ("${input.no}", False),
        ("${input.text}", True),
        ("${input.empty}", False),
        ("${input.none}", False),
        ("not ${input.no}", True),
        ("not ${input.yes}", False),
        ("not${input.no}", True),
        ("${input.one} == 1", True),
        ("${input.one}==1.0", True),
        ("${input.yes} == 1", False),
        ("${input.yes} == true", True),
        ("${input.yes} != ${input.one}", True),
        ("${input.no} == 0", False),
        ('${input.text} == "fast"', True),
        ('"fast" != ${input.text}', False),
        ('${steps.s} == {"x": 1}', True),
        ("${input.empty} == []", True),
        ("${input.none} == null", True),
        ('"a == b" == "a == b"', True),
        ("true", True),
        ("0", False),
        ('"not"', True),
        ("  ${input.yes}  ", True),
        (True, True),
        (False, False),
        (0, False),
        (["x"], True),
    ],
)
def test_what_holds(condition: object, holds: bool) -> None:
    assert Condition.parse(condition).holds(SCOPE) is holds


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "not",
        "fast",
        "'fast'",
        "yes",
        "${input.x} == fast",
        "${input.x} = 1",
        "${input.x} < 1",
        "${input.x} and ${input.y}",
        "${input.x} == 1 == 1",
        "not ${input.x} == 1",
        "not not ${input.x}",
        "${input.x} ==",
        "NaN",
        "${input.x} != Infinity",
        "${foo}",
        "x${input.x}",
        "[" * 10_000,
        "__import__('os').system('true')",
    ],
)
def test_what_is_no_condition(condition: str) -> None:
    with pytest.raises(ValueError, match=r"neither a reference nor JSON|one thing too many|leads nowhere"):
        Condition.parse(condition)


def test_a_missing_path_is_not_false() -> None:
    with pytest.raises(CallError, match="leads to nothing"):
        Condition.parse("not ${input.nope}").holds(SCOPE)


def test_its_references_are_found() -> None:
    condition = Condition.parse("${steps.a.b} != ${input.c}")
    assert [reference.text for reference in condition.references()] == ["steps.a.b", "input.c"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["", "a"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(json_values, json_values)
def test_values_are_the_same_if_their_json_is(left: Any, right: Any) -> None:
    assert same(left, right) is (json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True))
    assert same(left, json.loads(json.dumps(left)))


@given(json_values, json_values, st.sampled_from(["==", "!="]))
def test_literals_compare_as_what_they_stand_for(left: Any, right: Any, operator: str) -> None:
    condition = Condition.parse(f"{json.dumps(left)} {operator} {json.dumps(right)}")
    assert condition.holds(Scope({}, {})) is (same(left, right) is (operator == "=="))
