"""Plans of workflows: what is refused before anything runs, and the input's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.errors import CallError, ErrorCode, ManifestError
from penstock.runtime.manifest import Manifest, load_manifest
from penstock.runtime.workflow_input import MAX_FAULTS, WorkflowInput


def refusals(**workflow: Any) -> list[str]:
    with pytest.raises(ManifestError) as refused:
        Manifest.model_validate({"workflows": {"w": workflow}}).plans()
    return [line.removeprefix("manifest: workflows.w.") for line in str(refused.value).splitlines()]


def step(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "command": "c", **more}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${steps.a.x}", "${steps.a.x}: step a is not over by then; refer to steps that stand before this"),
        ("x ${steps.b}", "${steps.b}: step b is not over by then"),
        ("${steps.c}", "${steps.c}: step c is not over by then"),
        ("${steps.tilte.x}", "${steps.tilte.x}: no step is called tilte; did you mean title?"),
        ("${step.a}", "${step.a} leads nowhere; begin with `input.` or `steps.<id>`"),
        ("${input.x", "${input.x is not closed"),
    ],
)
def test_references_that_cannot_be_followed(text: str, says: str) -> None:
    steps = [
        step("a", input={"deep": [{"text": text}]}),
        {"parallel": [step("b"), step("c")]},
        step("title"),
    ]
    (told,) = refusals(steps=steps)
    assert told.startswith(f"steps.0.input.deep.0.text: {says}")


def test_steps_of_one_group_do_not_see_each_other() -> None:
    group = [step("b", input={"x": "${steps.a}"}), step("c", input={"x": "${steps.b}"})]
    (told,) = refusals(steps=[step("a"), {"parallel": group}])
    assert told.startswith("steps.1.parallel.1.input.x: ${steps.b}: step b is not over by then")


def test_the_output_sees_every_step_and_no_other() -> None:
    (told,) = refusals(steps=[step("a")], output={"x": "${steps.a}", "y": "${steps.z}"})
    assert told == "output.y: ${steps.z}: no step is called z; known are a"


def test_ids_are_given_once() -> None:
    (told,) = refusals(steps=[step("a"), {"parallel": [step("b"), step("a")]}])
    assert told == "steps.1.parallel.1.id: another step is called a; rename one of them"


@pytest.mark.parametrize("given", ["text", "x ${input.a}", "$${input}"])
def test_an_input_that_is_text(given: str) -> None:
    (told,) = refusals(steps=[step("a", input=given)])
    assert told.startswith("steps.0.input: text is no input; write a mapping, or one reference")


def test_conditions_are_read_too() -> None:
    (first, second) = refusals(steps=[step("a", when="maybe"), step("b", when="${steps.b.x} == 1")])
    assert first.startswith("steps.0.when: maybe is neither a reference nor JSON")
    assert second.startswith("steps.1.when: ${steps.b.x}: step b is not over by then")


def test_mistakes_of_a_file_have_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yml"
    path.write_text(
        "name: a\nworkflows:\n  w:\n    output: ${steps.z}\n    steps:\n    - id: a\n      command: c\n"
        "      input:\n        x:\n          - 1\n          - ${input..x}\n"
    )
    with pytest.raises(ManifestError) as refused:
        load_manifest(path)
    assert [line.split(": ")[0] for line in str(refused.value).splitlines()] == [f"{path}:11", f"{path}:4"]


def test_what_is_shown_of_a_workflow() -> None:
    spec = {"description": "d", "steps": [step("a"), {"parallel": [step("b"), step("c")]}]}
    shown = Manifest.model_validate({"workflows": {"w": spec}}).plans()["w"].describe()
    both = [{"id": "b", "command": "c"}, {"id": "c", "command": "c"}]
    assert (shown.description, shown.input_schema) == ("d", {})
    assert shown.steps == [{"id": "a", "command": "c"}, {"parallel": both}]


# -- input_schema --------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "required": ["prompt", "size"],
    "properties": {
        "prompt": {"type": "string", "minLength": 1},
        "size": {"$ref": "#/$defs/size"},
        "tags": {"type": "boolean", "default": False},
    },
    "additionalProperties": False,
    "$defs": {"size": {"enum": ["s", "m"]}},
}


def faults(text: str, schema: dict[str, Any] | None = SCHEMA) -> list[tuple[list[Any], str]]:
    with pytest.raises(CallError) as refused:
        WorkflowInput(schema).validate(text.encode())
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    return [(detail["path"], detail["reason"]) for detail in refused.value.details]


def test_an_input_that_fits_gets_its_defaults() -> None:
    given = WorkflowInput(SCHEMA).validate(b'{"prompt": "x", "size": "m"}')
    assert given == {"prompt": "x", "size": "m", "tags": False}
    assert WorkflowInput(SCHEMA).validate(b'{"prompt": "x", "size": "m", "tags": true}')["tags"] is True


def test_every_fault_of_an_input_is_told() -> None:
    told = faults('{"prompt": "", "size": "x", "tgas": 1}')
    assert sorted(told, key=str) == sorted(
        [
            (["input"], "additionalProperties"),
            (["input", "prompt"], "minLength"),
            (["input", "size"], "enum"),
        ],
        key=str,
    )
    assert faults("{}") == [(["input", "prompt"], "missing"), (["input", "size"], "missing")]


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_an_input_is_an_object(text: str) -> None:
    assert faults(text, None) == [(["input"], "type")]


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": NaN}', "\\ud800"])
def test_an_input_is_json(text: str) -> None:
    with pytest.raises(CallError, match="input: not JSON"):
        WorkflowInput(None).validate(text.encode())


def test_what_is_told_is_bounded() -> None:
    schema = {"additionalProperties": {"type": "integer"}}
    text = '{"long": "' + "x" * 100_000 + '",' + ",".join(f'"k{i}": "x"' for i in range(100)) + "}"
    with pytest.raises(CallError) as refused:
        WorkflowInput(schema).validate(text.encode())
    assert len(refused.value.details) == MAX_FAULTS
    assert len(refused.value.message) < 10_000


def test_an_input_that_is_deeper_than_its_schema_can_go() -> None:
    schema = {"properties": {"next": {"$ref": "#"}}}
    depth = 2000
    text = '{"next":' * depth + "{}" + "}" * depth
    with pytest.raises(CallError, match=r"nested too deeply|not JSON"):
        WorkflowInput(schema).validate(text.encode())


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objekt"}, "input_schema.type is not JSON Schema"),
        ({"properties": {"x": {"minimum": "1"}}}, "input_schema.properties.x.minimum is not JSON Schema"),
        ({"properties": {"x": {"$ref": "https://example.com/s"}}}, "it may refer to its own parts only"),
        ({"properties": {"x": {"$ref": "file:///etc/passwd"}}}, "it may refer to its own parts only"),
        ({"properties": {"x": {"$ref": "#/$defs/nope"}}}, "refers to #/$defs/nope, which is not in it"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": 3}, "is not JSON Schema"),
    ],
)
def test_schemas_that_are_refused(schema: dict[str, Any], says: str) -> None:
    (told,) = refusals(input_schema=schema, steps=[step("a")])
    assert told.startswith("input_schema: ")
    assert says in told
