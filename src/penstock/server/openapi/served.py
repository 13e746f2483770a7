"""What a project serves, as components: its commands, the default one, its workflows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.protocol.dispatch import CommandDescription, Description
from penstock.server.openapi.definitions import Definitions
from penstock.server.openapi.schemas import (
    BODY,
    FRAMES,
    POINTER,
    Schema,
    either,
    frame_of,
    narrowed,
    or_null,
    ref,
)

_TEXT: Schema = {"type": "string"}
_END = ref("Ended")


def served_schemas(description: Description) -> dict[str, Schema]:
    """Return the components that tell what is served; without commands, they say what holds for any."""
    schemas: dict[str, Schema] = {}
    told = Definitions(_own_schemas(description))
    for name, command in description.commands.items():
        schemas |= _command(name, command, told)
    for name, workflow in description.workflows.items():
        schemas |= _workflow(name, workflow.input_schema, told)
    return told.components() | schemas | _execute(description) | _default(description, told)


def _own_schemas(description: Description) -> dict[str, Schema]:
    """Return what authors say of their commands and workflows, by the names of the components."""
    found: dict[str, Schema] = {}
    for name, command in description.commands.items():
        found[f"command.{name}.input"] = command.input_schema
        found[f"command.{name}.item"] = command.item_schema
    return found | {
        f"workflow.{name}.input": each.input_schema for name, each in description.workflows.items()
    }


def _command(name: str, command: CommandDescription, told: Definitions) -> dict[str, Schema]:
    given, item, named = f"command.{name}.input", f"command.{name}.item", {"command": {"const": name}}
    schemas = {
        given: _given(told.placed(given), name),
        item: _titled(told.placed(item), f"{name} item"),
        f"command.{name}.body": _body(given, command.input_schema, **named),
        f"command.{name}.request": _body(given, command.input_schema),
        f"command.{name}.answer": _answer(told.reference(item), command, **named),
    }
    items: tuple[Schema, ...] = ()
    if command.streaming:
        schemas[f"command.{name}.streaming"] = _streaming(told.reference(item), **named)
        items = (ref(f"command.{name}.streaming"),)
    schemas[f"command.{name}.frame"] = frame_of(items, [_END if items else ref(f"command.{name}.answer")])
    return schemas


def _workflow(name: str, input_schema: Schema, told: Definitions) -> dict[str, Schema]:
    given = f"workflow.{name}.input"
    return {
        given: _given(told.placed(given), name),
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


def _default(description: Description, told: Definitions) -> dict[str, Schema]:
    """Return what V1 takes and answers: its frames do not name the command."""
    command = description.commands.get(description.default_command)
    if command is None:
        return {"Default": ref("Body"), "Defaulted": ref("Completed"), "DefaultFrame": ref("Frame")}
    name = f"command.{description.default_command}"
    item = told.reference(f"{name}.item")
    items = {"DefaultItem": _streaming(item)} if command.streaming else {}
    return {
        "Default": _body(f"{name}.input", command.input_schema),
        "Defaulted": _answer(item, command),
        "DefaultFrame": frame_of(map(ref, items), [_END if items else ref("Defaulted")]),
        **items,
    }


def _body(given: str, input_schema: Schema, /, **named: Schema) -> Schema:
    """Return the schema of a body that has ``given`` as its input."""
    if input_schema.get("required"):
        return narrowed(BODY, required=(*named, "input"), input=ref(given), **named)
    return narrowed(BODY, required=named, input=or_null(ref(given)), **named)


def _answer(item: Schema, command: CommandDescription, /, **named: Schema) -> Schema:
    data = or_null(item) if command.streaming else item  # null: it yielded nothing
    return narrowed(FRAMES["Completed"], required=(*named, "data"), data=data, **named)


def _streaming(item: Schema, /, **named: Schema) -> Schema:
    return narrowed(FRAMES["Streaming"], required=named, data=item, **named)


def _one_of(field: str, names: Iterable[str]) -> Schema:
    """Return the schema of a body whose ``field`` says which of these it runs."""
    kind = field.removesuffix("_id")
    mapping = {name: f"{POINTER}{kind}.{name}.body" for name in names}
    if not mapping:
        return narrowed(BODY, required=(field,), **{field: _TEXT})
    options = [{"$ref": target} for target in mapping.values()]
    return {"oneOf": options, "discriminator": {"propertyName": field, "mapping": mapping}}


def _given(schema: Any, name: str) -> Any:
    """Return the schema of an input, which is an object also where its author does not say so."""
    return {"type": "object", **_titled(schema, f"{name} input")}


def _titled(schema: Any, title: str) -> Any:
    """Return a schema under a title of its own, by which generators of code name its class."""
    return {**schema, "title": title} if isinstance(schema, dict) and "properties" in schema else schema
