"""Types, written as TypeScript."""

from __future__ import annotations

import json
import re

from penstock.client.stubs.types import (
    Choice,
    Field,
    ListOf,
    MapOf,
    Method,
    OneOf,
    Plain,
    Shape,
    Stubs,
    TupleOf,
    Type,
)

_BASIC = {
    "text": "string",
    "bytes": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
    "anything": "unknown",
}


def write_typescript(stubs: Stubs) -> str:
    """Return a module: an interface for each shape, and a class of the calls."""
    calls = _calls(stubs)
    names = ["CallOptions", "Client"] + (["Stream"] if "Stream<" in calls else [])
    head = (
        f"/** Calls of {_comment(stubs.title)}, written by `penstock client-gen`: do not edit. */\n\n"
        f'import type {{ {", ".join(names)} }} from "penstock-client";\n'
    )
    return "\n".join((head, *map(_shape, stubs.shapes), calls))


def _type(type_: Type) -> str:
    if isinstance(type_, Plain):
        return _BASIC[type_.kind]
    if isinstance(type_, Choice):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in type_.values)
    if isinstance(type_, ListOf):
        item = _type(type_.item)
        return f"readonly ({item})[]" if " " in item else f"readonly {item}[]"
    if isinstance(type_, TupleOf):
        return f"readonly [{', '.join(map(_type, type_.items))}]"
    if isinstance(type_, MapOf):
        return f"Readonly<Record<string, {_type(type_.value)}>>"
    if isinstance(type_, OneOf):
        return " | ".join(_type(option) for option in type_.options)
    return type_.name


# -- shapes ------------------------------------------------------------------------------------------


def _shape(shape: Shape) -> str:
    fields = [line for field in shape.fields for line in _field(field)]
    return "\n".join((*_about(shape.about, ""), f"export interface {shape.name} {{", *fields, "}\n"))


def _field(field: Field) -> list[str]:
    name = field.name if re.fullmatch(r"[A-Za-z_$][\w$]*", field.name, re.ASCII) else json.dumps(field.name)
    mark = "" if field.required else "?"
    return [*_about(field.about, "  "), f"  readonly {name}{mark}: {_type(field.type)};"]


# -- calls -------------------------------------------------------------------------------------------


def _calls(stubs: Stubs) -> str:
    lines = [
        f"/** The calls of {_comment(stubs.title)}. */",
        f"export class {stubs.name} {{",
        "  constructor(readonly client: Client) {}",
    ]
    for method in stubs.methods:
        lines += [
            "",
            *_method(method, "workflow" if method.is_workflow else "stream" if method.streams else "run"),
        ]
        if method.is_workflow:
            lines += ["", *_method(method._replace(name=f"run_{method.name}"), "runWorkflow")]
    return "\n".join((*lines, "}\n"))


def _method(method: Method, how: str) -> list[str]:
    gives = _type(method.gives)
    kind = "Promise" if how.startswith("run") else "Stream"
    takes, given = "", "{}"
    if method.takes is not None:
        takes = f"input: {_type(method.takes)}{' = {}' if method.optional else ''}, "
        given = "{ ...input }"
    name = f"{method.name}_" if method.name == "constructor" else method.name
    return [
        *_about(method.about, "  "),
        f"  {name}({takes}options: CallOptions = {{}}): {kind}<{gives}> {{",
        f"    return this.client.{how}<{gives}>({json.dumps(method.target)}, {given}, options);",
        "  }",
    ]


def _about(text: str, indent: str) -> list[str]:
    lines = _comment(text).strip().splitlines()
    if len(lines) < 2:
        return [f"{indent}/** {line} */" for line in lines]
    return [f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"]


def _comment(text: str) -> str:
    return text.replace("*/", "*\\/")
