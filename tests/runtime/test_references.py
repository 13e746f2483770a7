"""References: what they lead to, how they are written into text, and what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.runtime.references import Reference, Scope, Template

SCOPE = Scope(
    {"prompt": "fox", "n": 3, "deep": {"list": [{"x": None}, "b"]}, "0": "zero"},
    {"story": {"text": "a fox", "tokens": [1, 2]}, "skipped": None},
)


def resolve(value: object) -> Any:
    return Template.parse(value).resolve(SCOPE)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${input.prompt}", "fox"),
        ("${ input.n }", 3),
        ("${input}", SCOPE.input),
        ("${input.deep.list.0}", {"x": None}),
        ("${input.deep.list.0.x}", None),
        ("${input.0}", "zero"),
        ("${steps.story}", {"text": "a fox", "tokens": [1, 2]}),
        ("${steps.story.tokens.1}", 2),
        ("${steps.skipped}", None),
        ("Title: ${steps.story.text}!", "Title: a fox!"),
        ("${input.n}${input.prompt}", "3fox"),
        ("${steps.skipped} and ${steps.story.tokens}", "null and [1,2]"),
        ("${input.deep}.", '{"list":[{"x":null},"b"]}.'),
        ("$${input.n}", "${input.n}"),
        ("$$${input.n}", "$${input.n}"),
        ("${input.n}$${", "3${"),
        ("costs $5 {really} $", "costs $5 {really} $"),
        ({"a": ["${input.n}", {"b": "${input.prompt}"}], "c": 1.5}, {"a": [3, {"b": "fox"}], "c": 1.5}),
        ({"${input.n}": True}, {"${input.n}": True}),
        (None, None),
    ],
)
def test_what_a_template_gives(template: object, value: Any) -> None:
    assert resolve(template) == value
    assert type(resolve(template)) is type(value)


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("${input.prmpt}", ErrorCode.INVALID_ARGUMENT),
        ("${input.prompt.x}", ErrorCode.INVALID_ARGUMENT),
        ("${input.deep.list.2}", ErrorCode.INVALID_ARGUMENT),
        ("${input.deep.list.-1}", ErrorCode.INVALID_ARGUMENT),
        ("${input.deep.list.x}", ErrorCode.INVALID_ARGUMENT),
        ("${input.deep.list.99999999999999999999}", ErrorCode.INVALID_ARGUMENT),
        ("${steps.story.nope}", ErrorCode.COMMAND_FAILED),
        ("${steps.skipped.text}", ErrorCode.COMMAND_FAILED),
    ],
)
def test_a_path_that_leads_to_nothing(reference: str, code: ErrorCode) -> None:
    with pytest.raises(CallError, match="leads to nothing: there is no") as missing:
        resolve(f"say {reference}")
    assert missing.value.code is code
    assert missing.value.details == ({"reference": reference[2:-1], "reason": "missing"},)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${foo.x}", "leads nowhere; begin with `input.` or `steps.<id>`"),
        ("${steps}", "leads nowhere"),
        ("${}", "is no path"),
        ("${input..x}", "is no path; write ${input.name} or ${steps.id.name}"),
        ("${input.a b}", "is no path"),
        ("${input.x", "is not closed; add a }, or write $${ for the text ${"),
        ("${input.${input.x}}", "is not closed"),
        ("${__import__('os')}", "leads nowhere"),
    ],
)
def test_what_is_no_reference(text: str, says: str) -> None:
    with pytest.raises(ValueError) as refused:
        Template.parse({"a": [f"x {text}"]})
    assert says in str(refused.value)


def test_every_reference_is_found() -> None:
    template = Template.parse({"a": ["${input.x}", "b ${steps.s.y} ${steps.t}"], "c": 1})
    assert [reference.step for reference in template.references()] == [None, "s", "t"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(alphabet="${}ab. ", max_size=20))
def test_any_text_can_be_written(text: str) -> None:
    assert Template.parse(text.replace("${", "$${")).resolve(Scope({}, {})) == text


@given(json_values, st.text(alphabet="ab ", max_size=5), st.text(alphabet="ab ", min_size=1, max_size=5))
def test_a_value_keeps_its_type_alone_and_becomes_text_inside_text(
    value: Any, before: str, after: str
) -> None:
    scope = Scope({"v": value}, {})
    assert Template.parse("${input.v}").resolve(scope) == value
    written = Template.parse(f"{before}${{input.v}}{after}").resolve(scope)
    shown = written[len(before) : len(written) - len(after)]
    assert written == before + shown + after
    assert shown == value if isinstance(value, str) else json.loads(shown) == value


names = st.text(alphabet="ab01-_é", min_size=1, max_size=2)
named_values = st.recursive(
    st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(named_values, st.data())
def test_every_place_of_a_value_can_be_reached(value: Any, data: st.DataObject) -> None:
    here = value
    path = ["steps", "s"]
    while isinstance(here, (dict, list)) and here and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        here, path = here[key], [*path, str(key)]
    assert Reference.parse(".".join(path)).resolve(Scope({}, {"s": value})) == here
