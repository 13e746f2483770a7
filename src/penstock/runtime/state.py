"""State: what `initialize` returned, injected into later commands by parameter name."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from penstock.errors import CallError, CommandError, ErrorCode
from penstock.runtime.command import BoundCommand

_log = logging.getLogger("penstock.state")


class ProjectState:
    """The values in force; swapped as a whole, so that no command ever sees half of an initialisation.

    Args:
        commands: The project's commands, whose public parameters may not be state names.
    """

    def __init__(self, commands: Mapping[str, BoundCommand]) -> None:
        self._commands = commands
        self._values: Mapping[str, Any] = MappingProxyType({})
        self.initialised = False

    def lacks(self, command: BoundCommand) -> bool:
        """Whether ``command`` takes state that is not there yet."""
        return any(parameter.name not in self._values for parameter in command.state)

    def arguments(self, command: BoundCommand) -> dict[str, Any]:
        """Return the state that ``command`` takes.

        Raises:
            CallError: ``failed_precondition``; a value without a default is missing.
        """
        missing = [p.name for p in command.state if p.required and p.name not in self._values]
        if missing:
            raise CallError(
                f"{command.command.name} needs {', '.join(missing)}, which `initialize` has not provided",
                ErrorCode.FAILED_PRECONDITION,
            )
        return {p.name: self._values[p.name] for p in command.state if p.name in self._values}

    def absorb(self, returned: object) -> dict[str, list[str]]:
        """Take what `initialize` returned as the new state; returns what its caller is shown.

        Raises:
            CommandError: It is not a dict of names, or a name is a public parameter of a command.
        """
        values = {} if returned is None else returned
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise CommandError("initialize must return a dict of state names and values")
        self._refuse_public(values)
        self._values = MappingProxyType(dict(values))
        self.initialised = True
        return {"state": sorted(values)}

    async def aclose(self) -> None:
        """Close the values that can be closed (``aclose()`` or ``close()``), the last one first."""
        values, self._values = self._values, MappingProxyType({})
        for name in reversed(tuple(values)):
            await _close(name, values[name])

    def _refuse_public(self, names: Iterable[str]) -> None:
        for command in self._commands.values():
            clash = command.input.names.intersection(names)
            if clash:
                raise CommandError(
                    f"initialize returns {', '.join(sorted(clash))}, an input of {command.command.name}; "
                    "rename one of them, or name it under `state:` in the manifest"
                )


async def _close(name: str, value: Any) -> None:
    close = getattr(value, "aclose", None) or getattr(value, "close", None)
    if not callable(close) or isinstance(value, type):
        return
    try:
        result = close()
        if inspect.isawaitable(result):
            await result
    except Exception:  # noqa: BLE001 - author code at the end of the process; the rest must still be closed
        _log.exception("closing state %r failed", name)
