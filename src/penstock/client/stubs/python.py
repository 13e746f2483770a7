"""Types, written as Python."""

from __future__ import annotations

import re
from keyword import iskeyword

from penstock.client.stubs.layout import Group, Text, flat, lay
from penstock.client.stubs.types import (
    ANYTHING,
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
    "text": "str",
    "bytes": "str | bytes",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "anything": "Any",
}
_TYPING = ("Any", "Literal", "Union")
_CLIENT = (
    "AsyncClient",
    "AsyncStream",
    "CallOptions",
    "Client",
    "CommandOptions",
    "Stream",
    "StreamOptions",
)
_EXTENSIONS = ("NotRequired", "TypedDict", "Unpack")


def write_python(stubs: Stubs) -> str:
    """Return a module: a class for each shape, and one of the calls for each of the two clients."""
    parts = [_shape(shape) for shape in stubs.shapes]
    parts += [_calls(stubs, is_async=is_async) for is_async in (False, True)]
    body = "\n\n\n".join(parts) + "\n"
    head = [_docstring(f"Calls of {stubs.title}, written by `penstock client-gen`: do not edit.", "")]
    imports = [_import(body, "typing", _TYPING)]
    imports += [_import(body, "penstock.client", _CLIENT) + _import(body, "typing_extensions", _EXTENSIONS)]
    head += ["from __future__ import annotations\n", *filter(None, imports)]
    return "\n".join(head) + "\n\n" + body


def _import(body: str, module: str, names: tuple[str, ...]) -> str:
    used = [name for name in names if re.search(rf"\b{name}[\[\](,)]|: {name}\b", body)]
    if not used:
        return ""
    line = f"from {module} import {', '.join(used)}"
    return (line if len(line) <= 88 else lay("", Group(f"from {module} import (", used, ")"))) + "\n"


def _type(type_: Type) -> Text:
    if isinstance(type_, Plain):
        return _BASIC[type_.kind]
    if isinstance(type_, Choice):
        return Group("Literal[", [_literal(value) for value in type_.values], "]")
    if isinstance(type_, ListOf):
        return Group("list[", [_type(type_.item)], "]", ender=False)
    if isinstance(type_, TupleOf):
        return Group("tuple[", [_type(item) for item in type_.items] or ["()"], "]")
    if isinstance(type_, MapOf):
        return Group("dict[", ["str", _type(type_.value)], "]")
    if isinstance(type_, OneOf):
        return Group("Union[", [_type(option) for option in type_.options], "]", between=" | ")
    return type_.name


def _literal(value: str | int | bool | None) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    shown = repr(text)
    return f'"{shown[1:-1]}"' if shown[0] == "'" and '"' not in text else shown


# -- shapes ------------------------------------------------------------------------------------------


def _shape(shape: Shape) -> str:
    plain = all(
        field.name.isidentifier() and not iskeyword(field.name) and not field.name.startswith("__")
        for field in shape.fields
    )
    return _class(shape) if plain else _functional(shape)


def _class(shape: Shape) -> str:
    lines = [f"class {shape.name}(TypedDict):"]
    if shape.about:
        lines.append(_docstring(shape.about, "    "))
    for field in shape.fields:
        lines += [f"    # {line}".rstrip() for line in field.about.splitlines()]
        lines.append(lay(f"{field.name}: ", _presence(field), indent="    "))
    return "\n".join(lines)


def _functional(shape: Shape) -> str:
    fields = [f"        {_quoted(field.name)}: {_quoted(flat(_presence(field)))}," for field in shape.fields]
    return "\n".join((f"{shape.name} = TypedDict(", f'    "{shape.name}",', "    {", *fields, "    },", ")"))


def _presence(field: Field) -> Text:
    return (
        _type(field.type) if field.required else Group("NotRequired[", [_type(field.type)], "]", ender=False)
    )


# -- calls -------------------------------------------------------------------------------------------


def _calls(stubs: Stubs, *, is_async: bool) -> str:
    prefix = "Async" if is_async else ""
    lines = [
        f"class {prefix}{stubs.name}:",
        _docstring(f"The calls of {stubs.title}, by ``{prefix}Client``.", "    "),
        f"    def __init__(self, client: {prefix}Client) -> None:",
        "        self.client = client",
    ]
    for method in stubs.methods:
        lines += ["", _streaming(method, prefix) if method.streams else _answering(method, prefix)]
        if method.is_workflow:
            lines += ["", _answering(method._replace(name=f"run_{method.name}"), prefix)]
    return "\n".join(lines)


def _streaming(method: Method, prefix: str) -> str:
    options = "CallOptions" if method.is_workflow else "StreamOptions"
    gives = flat(_type(method.gives))
    call = _call(method, "workflow" if method.is_workflow else "stream")
    return "\n".join(
        (
            *_head(method, "def", options, f"{prefix}Stream[{gives}]"),
            lay("return ", call, indent="        "),
        )
    )


def _answering(method: Method, prefix: str) -> str:
    options = "CallOptions" if method.is_workflow else "CommandOptions"
    gives = flat(_type(method.gives))
    call = _call(method, "run_workflow" if method.is_workflow else "run")
    wait = "await " if prefix else ""
    lines = _head(method, "async def" if prefix else "def", options, gives)
    if method.gives == ANYTHING:
        return "\n".join((*lines, lay(f"return {wait}", call, indent="        ")))
    answer = lay(f"answer: {gives} = {wait}", call, indent="        ")
    return "\n".join((*lines, answer, "        return answer"))


def _head(method: Method, kind: str, options: str, gives: str) -> list[str]:
    parts = ["self"]
    if method.takes is not None:
        takes = flat(_type(method.takes))
        parts.append(f"input: {takes} | None = None" if method.optional else f"input: {takes}")
    parts += ["/", f"**options: Unpack[{options}]"]
    name = f"{method.name}_" if iskeyword(method.name) else method.name
    lines = [lay(f"{kind} ", Group(f"{name}(", parts, ")"), f" -> {gives}:", indent="    ")]
    return [*lines, _docstring(method.about, "        ").rstrip("\n")]


def _call(method: Method, how: str) -> Text:
    given = [] if method.takes is None else ["input"]
    return Group(f"self.client.{how}(", [_quoted(method.target), *given, "**options"], ")")


def _docstring(text: str, indent: str) -> str:
    escaped = text.strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if escaped.endswith('"'):
        escaped = escaped[:-1] + '\\"'
    first, *rest = (line.rstrip() for line in escaped.splitlines())
    if not rest:
        return f'{indent}"""{first}"""\n'
    return "\n".join(
        (f'{indent}"""{first}', *(indent + line if line else "" for line in rest), f'{indent}"""\n')
    )
