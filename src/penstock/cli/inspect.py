"""`penstock inspect`: what a project would serve, without starting it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.exits import fail
from penstock.cli.failure import describe_failure
from penstock.cli.logs import log_to_stderr

if TYPE_CHECKING:
    from penstock.protocol.dispatch import Description

Project = Annotated[
    Path,
    typer.Argument(exists=True, help="A folder with manifest.yml, a Clarifai model folder, or a .py file."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the description as JSON.")]


def inspect(project: Project, as_json: AsJson = False) -> None:
    """Load a project and show its commands and workflows; nothing is initialised or served."""
    log_to_stderr()
    try:
        description = _describe(project)
    except Exception as error:  # noqa: BLE001 - the top of the process: author code may raise anything
        fail(describe_failure(error, project))
    if as_json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(description)).decode())
    else:
        _show(description)


def _describe(project: Path) -> Description:
    from penstock.compose import describe_project

    return describe_project(project)


def _show(description: Description) -> None:
    print(f"{description.name} {description.version}")
    for name, command in description.commands.items():
        arrow = "streams" if command.streaming else "answers"
        default = "  (default)" if name == description.default_command else ""
        print(f"\n{name}({_parameters(command.input_schema)}) {arrow}{default}")
        if command.description:
            print(f"    {command.description}")
    for name, workflow in description.workflows.items():
        print(f"\nworkflow {name}: {' → '.join(map(_step, workflow.steps))}")


def _parameters(schema: Any) -> str:
    required = schema.get("required", ())
    return ", ".join(
        f"{name}: {_kind(facts)}" + ("" if name in required else f" = {json.dumps(facts.get('default'))}")
        for name, facts in schema.get("properties", {}).items()
    )


def _step(step: Any) -> str:
    if "parallel" in step:
        return f"({' | '.join(map(_step, step['parallel']))})"
    return f"{step['id']}: {step['command']}"


def _kind(facts: Any) -> str:
    if "anyOf" in facts:
        return " | ".join(_kind(option) for option in facts["anyOf"])
    return str(facts.get("type") or facts.get("$ref", "any").rpartition("/")[2])
