"""State: what `initialize` returned, injected into later commands by parameter name (WIRE.md section 5)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from penstock.errors import CallError, CommandError, ErrorCode
from penstock.runtime.abort import AbortCallbacks, owned_by
from penstock.runtime.closing import close
from penstock.runtime.command import BoundCommand, Command

INITIALIZE = "initialize"
CLEANUP = "cleanup"
STATE_NAMES: Mapping[str, Any] = {
    "type": "object",
    "properties": {"state": {"type": "array", "items": {"type": "string"}}},
    "required": ["state"],
}
"""JSON Schema of what callers of those two are shown."""


class Initialised:
    """What one run of `initialize` made: its values, and the abort callbacks registered meanwhile.

    Calls hold it while they run; once it is retired and the last of them has ended it is closed.
    """

    def __init__(self, made_with: Mapping[str, Any] | None = None) -> None:
        self.made_with = made_with
        self.values: Mapping[str, Any] = MappingProxyType({})
        self.aborts = AbortCallbacks()
        self.holders = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def hold(self) -> None:
        """Count a call in."""
        self.holders += 1
        self.idle.clear()

    def release(self) -> None:
        """Count a call out."""
        self.holders -= 1
        if not self.holders:
            self.idle.set()

    def arguments(self, command: BoundCommand) -> dict[str, Any]:
        """Return the state that ``command`` takes.

        Raises:
            CallError: ``failed_precondition``; a value without a default is missing.
        """
        missing = [p.name for p in command.state if p.required and p.name not in self.values]
        if missing:
            raise CallError(
                f"{command.command.name} needs {', '.join(missing)}, which `initialize` has not provided",
                ErrorCode.FAILED_PRECONDITION,
            )
        return {p.name: self.values[p.name] for p in command.state if p.name in self.values}

    async def aclose(self) -> None:
        """Close the values that can be closed (``aclose()`` or ``close()``), the last one first."""
        values, self.values = self.values, MappingProxyType({})
        for name in reversed(tuple(values)):
            await _close(name, values[name])


class ProjectState:
    """The state in force.  It is swapped as a whole, so that no command ever sees half of it.

    Args:
        commands: The project's commands.
        retire: Starts the closing of an old state, in a task of its own.
    """

    def __init__(
        self, commands: Mapping[str, BoundCommand], retire: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._commands = commands
        self._retire = retire
        self._turn = asyncio.Lock()
        self.current = Initialised()

    @property
    def initialised(self) -> bool:
        """Whether `initialize` has run, and `cleanup` has not since."""
        return self.current.made_with is not None

    def lacks(self, command: BoundCommand) -> bool:
        """Whether ``command`` takes state that is not there yet."""
        return any(parameter.name not in self.current.values for parameter in command.state)

    async def initialise(
        self, function: Callable[..., Any], arguments: Mapping[str, Any], run: Callable[[], Awaitable[object]]
    ) -> object:
        """Run `initialize`, one at a time; with the arguments in force it need not run again.

        Returns:
            What its caller is shown: the names.

        Raises:
            CommandError: It returned what cannot be state.
        """
        made_with = _complete(function, arguments)
        async with self._turn:
            if self.current.made_with != made_with:
                new = Initialised(made_with)
                with owned_by(new.aborts):
                    new.values = MappingProxyType(self._checked(await run()))
                self._swap(new)
            return {"state": sorted(self.current.values)}

    async def clean_up(self, run: Callable[[], Awaitable[object]]) -> object:
        """Run `cleanup` and drop the state; it is closed when the last call that holds it has ended."""
        async with self._turn:
            await run()
            old, self.current = self.current, Initialised()
            self._retire(_close_when_idle(old))
            return {"state": []}

    async def aclose(self) -> None:
        """Clean up and close the state in force, also if a call that does not stop still holds it."""
        old, self.current = self.current, Initialised()
        old.idle.set()
        await self._clean_and_close(old)

    def _swap(self, new: Initialised) -> None:
        old, self.current = self.current, new
        self._retire(self._clean_and_close(old))

    async def _clean_and_close(self, old: Initialised) -> None:
        await old.idle.wait()
        cleanup = self._commands.get(CLEANUP)
        if cleanup is not None and old.made_with is not None:
            await close("state (cleanup)", lambda: _call(cleanup.command, old.arguments(cleanup)))
        await old.aclose()

    def _checked(self, returned: object) -> dict[str, Any]:
        values = {} if returned is None else returned
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise CommandError("initialize must return a dict of state names and values")
        self._refuse_public(values)
        return dict(values)

    def _refuse_public(self, names: Iterable[str]) -> None:
        for name, command in self._commands.items():
            if name == INITIALIZE:
                continue  # `initialize(model="small")` may well return the model
            clash = command.input.names.intersection(names)
            if clash:
                raise CommandError(
                    f"initialize returns {', '.join(sorted(clash))}, an input of {command.command.name}; "
                    "rename one of them, or name it under `state:` in the manifest"
                )


class Hold:
    """How one call meets the state: it takes what it needs, and keeps it alive while it runs.

    Args:
        state: The project's.
        command: What the call runs.
        arguments: Its input, checked.
        ensure: Runs `initialize` if the call needs it and it has not run.
        everywhere: Runs what makes or drops state in every process that has some.
    """

    def __init__(
        self,
        state: ProjectState,
        command: BoundCommand,
        arguments: Mapping[str, Any],
        ensure: Callable[[], Awaitable[None]],
        everywhere: Callable[[Callable[[], Awaitable[object]]], Awaitable[object]],
    ) -> None:
        self._state = state
        self._command = command
        self._arguments = arguments
        self._ensure = ensure
        self._everywhere = everywhere
        self._held: Initialised | None = None

    @property
    def aborts(self) -> AbortCallbacks:
        """The abort callbacks that belong to the state this call uses."""
        return (self._held or self._state.current).aborts

    async def take(self) -> dict[str, Any]:
        """Return the state to inject, once it is there.

        Raises:
            CallError: ``failed_precondition``; it cannot be had.
        """
        if not self._command.state:
            return {}
        await self._ensure()
        self._held = self._state.current
        self._held.hold()
        return self._held.arguments(self._command)

    async def run(self, run: Callable[[], Awaitable[object]]) -> object:
        """Run the command; returns its answer."""
        name = self._command.command.name
        if name == INITIALIZE:
            function = self._command.command.function
            return await self._state.initialise(function, self._arguments, partial(self._everywhere, run))
        if name == CLEANUP:
            return await self._state.clean_up(partial(self._everywhere, run))
        return await run()

    def release(self) -> None:
        """Let go; further calls do nothing."""
        held, self._held = self._held, None
        if held is not None:
            held.release()


async def drop_state() -> None:
    """Drop what `initialize` returned; it is closed when the last call that uses it has ended."""


async def _close_when_idle(old: Initialised) -> None:
    await old.idle.wait()
    await old.aclose()


async def _call(command: Command, arguments: Mapping[str, Any]) -> None:
    if inspect.iscoroutinefunction(command.function):
        await command.function(**arguments)
    else:
        await asyncio.to_thread(command.function, **arguments)


def _complete(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments with the defaults that are in force where none was given."""
    bound = inspect.signature(function).bind_partial(**arguments)
    bound.apply_defaults()
    return dict(bound.arguments)


async def _close(name: str, value: Any) -> None:
    closer = getattr(value, "aclose", None) or getattr(value, "close", None)
    if callable(closer) and not isinstance(value, type):
        await close(f"state {name!r}", closer)
