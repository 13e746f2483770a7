"""Does a manifest fit the commands it speaks of?  Asked once, at start (WIRE.md section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from penstock.runtime.command import BoundCommand
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_lines import Fault
from penstock.runtime.nearest import nearest
from penstock.runtime.workflow import Step, Workflow

Commands = Mapping[str, BoundCommand]


def check_fit(manifest: Manifest, commands: Commands) -> Mapping[str, Workflow]:
    """Return the workflows, ready to run.

    Raises:
        ManifestError: The manifest speaks of commands or inputs that are not there, or asks for what cannot
            be done; all of it is named.
    """
    plans = manifest.plans()
    faults = [*_startup(manifest, commands), *_settings(manifest, commands), *_default(manifest, commands)]
    for plan in plans.values():
        for step in plan.steps():
            faults += _step(step, commands)
    if faults:
        raise manifest.refusal(faults)
    for fault in _unused_state(manifest, commands):
        manifest.warn(fault)
    return plans


def _startup(manifest: Manifest, commands: Commands) -> Iterator[Fault]:
    for index, step in enumerate(manifest.startup):
        if step.command not in commands:
            yield Fault(("startup", index), _unknown(step.command, commands))


def _settings(manifest: Manifest, commands: Commands) -> Iterator[Fault]:
    for name, settings in manifest.commands.items():
        if name not in commands:
            yield Fault(("commands", name), _unknown(name, commands))
        elif settings.interrupt and not commands[name].command.kind.blocking:
            place = ("commands", name, "interrupt")
            yield Fault(place, f"{name} is async: a cancel reaches it at its awaits; remove this")


def _default(manifest: Manifest, commands: Commands) -> Iterator[Fault]:
    # Where nobody says which, there need not be one called `predict`.
    if "default_command" in manifest.model_fields_set and manifest.default_command not in commands:
        yield Fault(("default_command",), _unknown(manifest.default_command, commands))


def _step(step: Step, commands: Commands) -> Iterator[Fault]:
    command = commands.get(step.command)
    if command is None:
        yield Fault((*step.place, "command"), _unknown(step.command, commands))
        return
    if not isinstance(step.input.value, dict):
        return  # a reference: what it leads to is known at run time only
    schema = command.input
    for name in step.input.value:
        if name not in schema.names:
            hint = nearest(name, schema.names)
            yield Fault((*step.place, "input", name), f"{step.command} takes no such input; {hint}")
    for name in schema.json_schema.get("required", ()):
        if name not in step.input.value:
            yield Fault((*step.place, "input"), f"{step.command} needs {name}; add it")


def _unused_state(manifest: Manifest, commands: Commands) -> Iterator[Fault]:
    taken = {parameter.name for command in commands.values() for parameter in command.state}
    for index, name in enumerate(manifest.state):
        if name not in taken:
            yield Fault(("state", index), f"no command takes {name}; {nearest(name, taken)}")


def _unknown(name: str, commands: Commands) -> str:
    return f"there is no command {name!r}; {nearest(name, commands)}"
