"""What a project serves, as components: its commands, the default one, its workflows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.protocol.dispatch import CommandDescription, Description
from penstock.server.openapi.schemas import POINTER, Schema, both, either, frame_of, or_null, ref

_TEXT: Schema = {"type": "string"}
_END: Schema = {"allOf": [ref("Completed"), {"not": {"required": ["data"]}}]}  # of a stream of items


def served_schemas(description: Description) -> dict[str, Schema]:
    """Return the components that tell what is served; without commands, they say what holds for any."""
    schemas: dict[str, Schema] = {}
    for name, command in description.commands.items():
        schemas |= _command(name, command)
    for name, workflow in description.workflows.items():
        schemas |= _workflow(name, workflow.input_schema)
    return schemas | _execute(description) | _default(description)


def _command(name: str, command: CommandDescription) -> dict[str, Schema]:
    given, item, named = f"command.{name}.input", f"command.{name}.item", {"command": {"const": name}}
    schemas = {
        given: _placed(command.input_schema, POINTER + given),
        item: _placed(command.item_schema, POINTER + item),
        f"command.{name}.body": _body(given, command.input_schema, **named),
        f"command.{name}.request": _body(given, command.input_schema),
        f"command.{name}.answer": _answer(item, command, **named),
    }
    items: tuple[Schema, ...] = ()
    if command.streaming:
        schemas[f"command.{name}.streaming"] = _streaming(item, **named)
        items = (ref(f"command.{name}.streaming"),)
    schemas[f"command.{name}.frame"] = frame_of(items, [_END if items else ref(f"command.{name}.answer")])
    return schemas


def _workflow(name: str, input_schema: Schema) -> dict[str, Schema]:
    given = f"workflow.{name}.input"
    return {
        given: _placed(input_schema, POINTER + given),
        f"workflow.{name}.body": _body(given, input_schema, workflow_id={"const": name}),
        f"workflow.{name}.request": _body(given, input_schema),
    }


def _execute(description: Description) -> dict[str, Schema]:
    commands = description.commands
    answers = [ref(f"command.{name}.answer") for name in commands]
    items = [ref(f"command.{name}.streaming") for name, command in commands.items() if command.streaming]
    return {
        "Execute": _one_of("command", commands),
        "Executed": either(answers) if answers else ref("Completed"),
        "ExecuteFrame": frame_of(items, [_END, *answers]),
        "Workflow": _one_of("workflow_id", description.workflows),
    }


def _default(description: Description) -> dict[str, Schema]:
    """Return what V1 takes and answers: its frames do not name the command."""
    command = description.commands.get(description.default_command)
    if command is None:
        return {"Default": ref("Body"), "Defaulted": ref("Completed"), "DefaultFrame": ref("Frame")}
    name = f"command.{description.default_command}"
    answer = _answer(f"{name}.item", command)
    items = [_streaming(f"{name}.item")] if command.streaming else []
    return {
        "Default": _body(f"{name}.input", command.input_schema),
        "Defaulted": answer,
        "DefaultFrame": frame_of(items, [_END if command.streaming else answer]),
    }


def default_parts(description: Description) -> dict[str, Schema]:
    """Return the components of an item and of the answer of the default command, in V1."""
    command = description.commands.get(description.default_command)
    if command is None:
        return {}
    item = f"command.{description.default_command}.item"
    items = {"default.streaming": _streaming(item)} if command.streaming else {}
    return {"default.answer": _answer(item, command), **items}


def _body(given: str, input_schema: Schema, /, **named: Schema) -> Schema:
    """Return the schema of a body that has ``given`` as its input."""
    if input_schema.get("required"):
        return both("Body", required=(*named, "input"), input=ref(given), **named)
    return both("Body", required=named, input=or_null(ref(given)), **named)


def _answer(item: str, command: CommandDescription, /, **named: Schema) -> Schema:
    data = or_null(ref(item)) if command.streaming else ref(item)  # null: it yielded nothing
    return both("Completed", required=(*named, "data"), data=data, **named)


def _streaming(item: str, /, **named: Schema) -> Schema:
    return both("Streaming", required=named, data=ref(item), **named)


def _one_of(field: str, names: Iterable[str]) -> Schema:
    """Return the schema of a body whose ``field`` says which of these it runs."""
    kind = field.removesuffix("_id")
    mapping = {name: f"{POINTER}{kind}.{name}.body" for name in names}
    if not mapping:
        return both("Body", required=(field,), **{field: _TEXT})
    options = [{"$ref": target} for target in mapping.values()]
    return {"oneOf": options, "discriminator": {"propertyName": field, "mapping": mapping}}


def _placed(value: Any, root: str, under: tuple[str, ...] = ()) -> Any:
    """Return a schema whose references to its own parts lead to where it stands: ``root``."""
    if isinstance(value, dict):
        return {key: _placed(item, root, (*under, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, root, under) for item in value]
    is_reference = under[-1:] == ("$ref",) or under[-3:-1] == ("discriminator", "mapping")
    if is_reference and isinstance(value, str) and (value == "#" or value.startswith("#/")):
        return root + value[1:]
    return value
