"""``Runtime``: what an author writes commands on.  It describes; an ``App`` runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec

from penstock.errors import AuthoringError
from penstock.protocol.dispatch import CommandDescription, Description, OpenAIKind
from penstock.runtime.closing import close
from penstock.runtime.command import DEFAULT_QUEUE, BoundCommand, Command, Function, Needs, bind, define
from penstock.runtime.manifest import Manifest, load_manifest
from penstock.runtime.manifest_parts import NO_SETTINGS, Isolation
from penstock.runtime.state import CLEANUP, INITIALIZE, STATE_NAMES, drop_state
from penstock.runtime.workflow import Workflow

F = TypeVar("F", bound=Function)

DEFINITION = "__penstock_command__"

# The folder whose entrypoint is being imported, and the runtimes made meanwhile.
project_folder: ContextVar[Path | None] = ContextVar("penstock_project_folder", default=None)
runtimes_made: ContextVar[list[Runtime] | None] = ContextVar("penstock_runtimes_made", default=None)


class Runtime:
    """A project's commands.

    Args:
        manifest: A manifest file (relative to the project folder, else to the file that makes the
            runtime), a manifest, or None for a runtime without one.

    Raises:
        ManifestError: The manifest has mistakes.
    """

    def __init__(self, manifest: str | Path | Manifest | None = None) -> None:
        if isinstance(manifest, (str, Path)):
            manifest = load_manifest(_locate(Path(manifest), sys._getframe(1).f_code.co_filename))
        self.manifest = manifest or Manifest()
        self._commands: dict[str, Command] = {}
        self._closers: list[Callable[[], object]] = []
        made = runtimes_made.get()
        if made is not None:
            made.append(self)

    @property
    def commands(self) -> Mapping[str, Command]:
        """The commands so far, by name."""
        return MappingProxyType(self._commands)

    def command(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        queue: int = DEFAULT_QUEUE,
        isolation: Isolation = "inline",
        interrupt: bool = False,
        openai: OpenAIKind | None = None,
        model: str | None = None,
    ) -> Callable[[F], F]:
        """Make a function that returns its answer a command; the function itself is not changed.

        Args:
            name: What callers call it.
            concurrency: How many calls run at once (default: 100 for `async def`, 32 for `def`).
            queue: How many more may wait.
            isolation: Where it runs: "inline", "thread" or "process" (one of its own, which it cannot take
                the server down with).
            interrupt: For functions and generators that are not async: a cancel may throw ``CallInterrupted``
                into them, at any step that is not in a ``current_call().shield()``.
            openai: Which OpenAI-compatible route it serves: "chat", "completion" or "embeddings".
            model: What it is called there (default: its name).

        Raises:
            AuthoringError: The function cannot be served; the message says how to fix it.
        """
        make = partial(
            define,
            name,
            streaming=False,
            concurrency=concurrency,
            queue=queue,
            isolation=isolation,
            interrupt=interrupt,
            openai=openai,
            model=model,
        )
        return self._decorator(name, make)

    def streaming_command(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        queue: int = DEFAULT_QUEUE,
        isolation: Isolation = "inline",
        interrupt: bool = False,
        openai: OpenAIKind | None = None,
        model: str | None = None,
    ) -> Callable[[F], F]:
        """Make a function that yields items a command; arguments and errors as for ``command``."""
        make = partial(
            define,
            name,
            streaming=True,
            concurrency=concurrency,
            queue=queue,
            isolation=isolation,
            interrupt=interrupt,
            openai=openai,
            model=model,
        )
        return self._decorator(name, make)

    def set_needs(self, name: str, needs: Needs) -> None:
        """Have the calls of a command wait until there is what they need beside their permits.

        Args:
            name: Of the command.
            needs: Returns what a call needs, by its request id and its arguments; or None.
        """
        self._commands[name] = replace(self._commands[name], needs=needs)

    def on_close(self, callback: Callable[[], object]) -> None:
        """Have ``callback()`` called once when the app stops, after the state is closed; it may be async.

        The last one registered is called first.
        """
        self._closers.append(callback)

    async def aclose(self) -> None:
        """Call what ``on_close`` registered; an exception is logged."""
        while self._closers:
            closer = self._closers.pop()
            await close(repr(closer), closer)

    def bound_commands(self) -> Mapping[str, BoundCommand]:
        """Return the commands with their parameters told apart.

        Raises:
            AuthoringError: The project as a whole does not fit together.
        """
        if INITIALIZE in self._commands and CLEANUP not in self._commands:
            self.command(CLEANUP)(drop_state)
        names = frozenset(self.manifest.state)
        settings = self.manifest.commands
        bound = {
            name: bind(command, names, settings.get(name, NO_SETTINGS))
            for name, command in self._commands.items()
        }
        for command in bound.values():
            self._check_state(command)
        return MappingProxyType(bound)

    def _decorator(self, name: str, make: Callable[..., Command]) -> Callable[[F], F]:
        def register(function: F) -> F:
            command = make(function)
            if name in self._commands:
                raise AuthoringError(f"command {name!r} is defined twice; give one of them another name")
            self._commands[name] = command
            # A bound method takes no attributes; it is registered all the same.
            if not hasattr(function, "__self__"):
                setattr(function, DEFINITION, command)
            return function

        return register

    def _check_state(self, bound: BoundCommand) -> None:
        missing = [p.name for p in bound.state if p.required]
        if missing and INITIALIZE not in self._commands:
            raise AuthoringError(
                f"command {bound.command.name!r} needs state {', '.join(missing)}, but nothing provides it: "
                "add an `initialize` command that returns it, or give the parameter a default"
            )


def describe(
    manifest: Manifest, commands: Mapping[str, BoundCommand], workflows: Mapping[str, Workflow]
) -> Description:
    """Return what a project serves."""
    return Description(
        name=manifest.name,
        version=manifest.version,
        default_command=manifest.default_command,
        commands={name: _described(command) for name, command in commands.items()},
        workflows={name: workflow.describe() for name, workflow in workflows.items()},
    )


def _described(bound: BoundCommand) -> CommandDescription:
    description = bound.description
    if bound.command.name in (INITIALIZE, CLEANUP):  # what they return stays here; callers see the names
        return msgspec.structs.replace(description, item_schema=STATE_NAMES)
    return description


def _locate(path: Path, made_in: str) -> Path:
    """Return the first place where a relative manifest path exists; the path itself if none does."""
    folders = (project_folder.get(), Path(made_in).parent, Path.cwd())
    candidates = [folder / path for folder in folders if folder is not None]
    return next((candidate for candidate in candidates if candidate.is_file()), path)
