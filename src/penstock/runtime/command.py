"""Commands: what a decorator learns about an author's function, once, at start-up."""

from __future__ import annotations

import inspect
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from penstock.calls.admission import Need
from penstock.calls.budgets import Budgets
from penstock.calls.inputs import InputStream
from penstock.errors import AuthoringError
from penstock.protocol.dispatch import CommandDescription, OpenAIKind
from penstock.protocol.messages import Start
from penstock.runtime.manifest_parts import NO_SETTINGS, CommandSettings, Isolation
from penstock.runtime.parameters import InputSchema, Parameter, read_parameters, written_schema_of

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
DEFAULT_ASYNC_CONCURRENCY = 100
DEFAULT_SYNC_CONCURRENCY = 32
DEFAULT_QUEUE = 256

Function = Callable[..., Any]
Needs = Callable[[str, Mapping[str, Any]], Need | None]
"""Returns what a call needs beside its permit, by its request id and its arguments."""


class Kind(Enum):
    """What calling the function gives."""

    VALUE = "def"
    AWAITABLE = "async def"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"
    BATCHES = "batches"  # of items; never an author's

    @property
    def streaming(self) -> bool:
        """Whether it yields items."""
        return self in (Kind.GENERATOR, Kind.ASYNC_GENERATOR, Kind.BATCHES)

    @property
    def blocking(self) -> bool:
        """Whether it runs in a thread."""
        return self in (Kind.VALUE, Kind.GENERATOR)


@dataclass(frozen=True)
class Command:
    """One command, checked: what `@rt.command` hangs on a function.

    Attributes:
        concurrency: How many calls run at once.
        queue: How many more may wait.
        isolation: Where its code runs: on the server's event loop (a blocking function always has a thread),
            in a thread with a loop of its own, or in a process of its own.
        interrupt: Whether a cancel may throw ``CallInterrupted`` into the thread that runs it.
        openai: Which OpenAI-compatible route it serves.
        model: What it is called there, if not by its own name.
        needs: What its calls need beside their permits, if they need anything.
    """

    name: str
    function: Function
    kind: Kind
    description: str
    parameters: tuple[Parameter, ...]
    concurrency: int
    queue: int
    isolation: Isolation = "inline"
    interrupt: bool = False
    openai: OpenAIKind | None = None
    model: str | None = None
    needs: Needs | None = None

    @property
    def streaming(self) -> bool:
        """Whether it yields items."""
        return self.kind.streaming


@dataclass(frozen=True)
class BoundCommand:
    """A command whose parameters are told apart: ``input`` from callers, ``state`` from `initialize`; with
    the manifest's settings."""

    command: Command
    input: InputSchema
    state: tuple[Parameter, ...]
    settings: CommandSettings = NO_SETTINGS

    @property
    def concurrency(self) -> int:
        """How many calls run at once."""
        return self.settings.concurrency or self.command.concurrency

    @property
    def queue(self) -> int:
        """How many more may wait."""
        return self.command.queue if self.settings.queue is None else self.settings.queue

    def need(self, request_id: str, arguments: Mapping[str, Any]) -> Need | None:
        """Return what a call needs beside its permit."""
        return None if self.command.needs is None else self.command.needs(request_id, arguments)

    @property
    def isolation(self) -> Isolation:
        """Where its code runs."""
        return self.settings.isolation or self.command.isolation

    @property
    def interrupt(self) -> bool:
        """Whether a cancel may throw ``CallInterrupted`` into the thread that runs it."""
        allowed = self.settings.interrupt
        return self.command.kind.blocking and (self.command.interrupt if allowed is None else allowed)

    @property
    def on_the_loop(self) -> bool:
        """Whether it runs on the server's event loop, which it can hold."""
        return not self.command.kind.blocking and self.isolation == "inline"

    @cached_property
    def budgets(self) -> Budgets:
        """What a call may spend, besides its total."""
        timeouts = self.settings.timeouts
        return Budgets(timeouts.queue_s, timeouts.first_item_s, timeouts.gap_s)

    def settle(self, start: Start) -> Start:
        """Return ``start`` with the name, and with what these settings decide where it is silent.

        What ends earlier wins: its own timeout, or the total budget.  Its input is dropped, as an ended call
        is kept for minutes, and its input may be large, and secret.
        """
        totals = [s for s in (start.timeout_s, self.settings.timeouts.total_s) if s is not None]
        return msgspec.structs.replace(
            start,
            command=self.command.name,
            input=b"{}",
            on_disconnect=start.on_disconnect or self.settings.on_disconnect,
            timeout_s=min(totals, default=None),
        )

    def take_stream(self, arguments: dict[str, Any], start: Start) -> InputStream | None:
        """Put an input stream in the place of the items that came with the request; None if it takes none."""
        parameter = self.input.stream
        if parameter is None:
            return None
        stream = InputStream(parameter.name, self.input.check_item)
        stream.preload(arguments.get(parameter.name, []))
        if not start.more_input:
            stream.end()
        arguments[parameter.name] = stream
        return stream

    @cached_property
    def description(self) -> CommandDescription:
        """What `GET /v2/commands` shows."""
        command = self.command
        return CommandDescription(
            description=command.description,
            streaming=command.streaming,
            input_schema=self.input.json_schema,
            item_schema=item_schema(command.function),
            openai=self.settings.openai or command.openai,
            model=command.model,
        )


def define(
    name: str,
    function: Function,
    *,
    streaming: bool,
    concurrency: int | None,
    queue: int,
    isolation: Isolation = "inline",
    interrupt: bool = False,
    openai: OpenAIKind | None = None,
    model: str | None = None,
) -> Command:
    """Check an author's function and describe it.

    Raises:
        AuthoringError: It cannot be a command; the message says how to fix it.
    """
    where = f"command {name!r} ({_place(function)})"
    if not NAME.match(str(name)):  # a decorator used without its parentheses passes the function
        raise AuthoringError(
            f"{name!r} is not a command name: use 1 to 64 letters, digits, '_', '.' or '-', "
            "starting with a letter or '_'"
        )
    kind = _kind(function, where)
    if streaming and not kind.streaming:
        raise AuthoringError(f"{where} never yields: yield its items, or use @command instead")
    if kind.streaming and not streaming:
        raise AuthoringError(f"{where} yields: use @streaming_command, or return its answer")
    parameters = read_parameters(function, where)
    if kind.blocking and any(parameter.is_stream for parameter in parameters):
        raise AuthoringError(f"{where} takes an async iterator, so it must be an async function")
    if interrupt and not kind.blocking:
        raise AuthoringError(f"{where} is async: a cancel reaches it at its awaits; take `interrupt` off it")
    default = DEFAULT_SYNC_CONCURRENCY if kind.blocking else DEFAULT_ASYNC_CONCURRENCY
    limit = default if concurrency is None else concurrency
    if limit < 1 or queue < 0:
        raise AuthoringError(f"{where}: concurrency is at least 1 and queue at least 0")
    if isolation not in get_args(Isolation):
        raise AuthoringError(f"{where}: isolation is one of {', '.join(get_args(Isolation))}")
    if openai is not None and openai not in get_args(OpenAIKind):
        raise AuthoringError(f"{where}: openai is one of {', '.join(get_args(OpenAIKind))}")
    description = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    return Command(
        name, function, kind, description, parameters, limit, queue, isolation, interrupt, openai, model
    )


def bind(command: Command, state_names: frozenset[str], settings: CommandSettings) -> BoundCommand:
    """Tell a command's parameters apart, now that the project's state names are known.

    Raises:
        AuthoringError: A public parameter has a type that no JSON can be checked against.
    """
    state = tuple(p for p in command.parameters if p.is_state or p.name in state_names)
    public = tuple(p for p in command.parameters if p not in state)
    return BoundCommand(command, InputSchema(public, f"command {command.name!r}"), state, settings)


def item_schema(function: Function) -> Mapping[str, Any]:
    """Return the JSON Schema of an answer or item; the open one, {}, where the author does not say."""
    try:
        returned = get_type_hints(function, include_extras=True).get("return", Any)
    except NameError:
        return {}
    if get_origin(returned) in _ITERATORS:
        returned = (get_args(returned) or (Any,))[0]
    schema = written_schema_of(returned)
    return {} if schema is None else schema


_ITERATORS = (AsyncIterator, AsyncIterable, AsyncGenerator, Iterator, Iterable, Generator)


def _kind(function: Function, where: str) -> Kind:
    if not callable(function):
        raise AuthoringError(f"{where} is not a function")
    if isinstance(function, partial) or not inspect.isroutine(function):
        # Where its type hints are is not the same on every Python; a program may even change it as it runs.
        raise AuthoringError(f"{where} is an object and no function; write a def that calls it")
    if inspect.isasyncgenfunction(function):
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return Kind.GENERATOR
    if inspect.iscoroutinefunction(function):
        return Kind.AWAITABLE
    return Kind.VALUE


def _place(function: Function) -> str:
    while isinstance(function, partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)
