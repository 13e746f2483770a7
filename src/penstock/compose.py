"""Joins what may not know each other: a project or an engine becomes an ``App`` that a server can host."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET
from pydantic import Field, GetPydanticSchema, PositiveInt, model_validator
from typing_extensions import NotRequired, Self, TypedDict

from penstock import engines
from penstock.calls.limits import CallLimits
from penstock.calls.observer import NOBODY, Observer
from penstock.engines.base import Engine, conversation, raise_if_failed, report_end
from penstock.errors import AuthoringError, CallError, ErrorCode
from penstock.gateway.door import RunnerDoor
from penstock.gateway.hub import Hub
from penstock.gateway.routes import RunnerRoutes
from penstock.gateway.settings import GatewaySettings
from penstock.integrations.model_folder.folder import import_model, is_model_folder, read_model_folder
from penstock.integrations.names import install
from penstock.protocol.dispatch import Description, OpenAIKind
from penstock.protocol.events import EngineDelta, EngineEnd, EngineEvent, EngineRequest
from penstock.protocol.inference import Request, StreamEvent, WireModel, request_to_engine
from penstock.protocol.runners import PATH
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.app import App
from penstock.runtime.context import current_call
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_fit import check_fit
from penstock.runtime.project import ProjectSource, import_project, read_project
from penstock.runtime.runtime import Runtime, describe
from penstock.server.asgi import Extension, Route
from penstock.server.meta import Exposition
from penstock.server.settings import ServerSettings

STREAMING_MODE = "SPI_STREAMING_ENV_VAR"
"""Set to ``true`` before a project is imported (streaming mode guide, Command Execution)."""

Temperature: TypeAlias = Annotated[float, Field(ge=0, le=2)]
Penalty: TypeAlias = Annotated[float, Field(ge=-2, le=2)]
TopP: TypeAlias = Annotated[float, Field(gt=0, le=1)]
_PLAIN = 3  # keys of an item that holds nothing but text
EventItem: TypeAlias = Annotated[
    EngineEvent, GetPydanticSchema(lambda _, handler: handler.generate_schema(StreamEvent))
]


class TextItem(TypedDict):
    """A piece of an answer, as text commands yield it: all so far, the new part, whether that is all.

    What a model thinks and the tools it calls stand beside that where they come, piece by piece as well.
    """

    text: str
    chunk: str
    finished: bool
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]


class Turn(WireModel):
    """A message of a conversation: that of the protocol v0.1, and what calling tools needs beside it."""

    role: Literal["system", "user", "assistant", "function", "tool"]
    content: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is needed, unless the message calls tools")
        return self


def build_metrics(settings: ServerSettings) -> tuple[Observer, Exposition | None]:
    """Return what counts the calls of an app, and shows that at `/metrics`; nothing where they are off."""
    if not settings.metrics:
        return NOBODY, None
    # Workers import this file too, and count nothing: their calls are the server's.
    from penstock.observability import exposition, recorder

    counted = recorder.Recorder()
    return counted, exposition.Exposition(counted)


def build_app(
    project: Path | None,
    engine: str | None,
    settings: ServerSettings,
    *,
    compat: bool = True,
    observer: Observer = NOBODY,
) -> App:
    """Return the app of a project, of an engine, or of a project with an engine's commands beside its own.

    The project is imported and the engine opened when the app starts; with workers only they open it.

    Args:
        project: A folder with manifest.yml, a Clarifai model folder, or a Python file.
        engine: An engine spec, instead of the one the manifest names.
        settings: Where the bounds on calls are taken from, and the number of workers, if not from the
            manifest.
        compat: The project may import penstock by the names of the reference systems.
        observer: Is told what happens to every call.

    Raises:
        AuthoringError: There is no project there, or its manifest has mistakes.
    """
    manifest, entrypoint = find_project(project)
    where = {"project": "" if project is None else str(project.resolve()), "engine": engine or ""}
    source = ProjectSource(
        f"{__name__}:{load_project.__name__}", {**where, "compat": "yes" if compat else ""}
    )

    def load(owner: AbortCallbacks) -> Runtime:
        runtime = _import_project(project, manifest, entrypoint, compat, owner)
        if settings.workers is not None:
            runtime.manifest = runtime.manifest.model_copy(update={"workers": settings.workers})
        _add_engine(runtime, engine, runtime.manifest.workers)
        return runtime

    return App(
        load,
        manifest=manifest,
        limits=CallLimits(drain_s=settings.drain_s),
        source=source,
        observer=observer,
    )


def build_gateway(
    name: str,
    settings: ServerSettings,
    gateway: GatewaySettings | None = None,
    *,
    default_command: str | None = None,
    observer: Observer = NOBODY,
) -> tuple[Hub, Extension]:
    """Return a gateway's dispatcher, and what its server answers besides calls.

    Args:
        name: Shown to callers.
        settings: Where the bounds on calls are taken from.
        gateway: How runners are treated.
        default_command: Of calls that name none; None leaves it to what runners offer.
        observer: Is told what happens to every call.
    """
    limits = CallLimits(drain_s=settings.drain_s)
    given = {"name": name} if default_command is None else {"name": name, "default_command": default_command}
    hub = Hub(Manifest.model_validate(given), settings=gateway, limits=limits, observer=observer)
    routes = tuple(Route(path, handlers) for path, handlers in RunnerRoutes(hub).table().items())
    return hub, Extension(routes, {PATH: RunnerDoor(hub, settings.max_body)})


def load_project(owner: AbortCallbacks, project: str = "", engine: str = "", compat: str = "") -> Runtime:
    """Import a project and open its engine, in a worker or in a process of one of its commands.

    Args:
        owner: Of the abort callbacks that it registers.
        project: Its path; empty for none.
        engine: An engine spec, instead of the one the manifest names.
        compat: Not empty: it may import penstock by the names of the reference systems.

    Raises:
        AuthoringError: There is no project there, or it has mistakes.
        Exception: Whatever the author's file raises.
    """
    path = Path(project) if project else None
    runtime = _import_project(path, *find_project(path), bool(compat), owner)
    _add_engine(runtime, engine or None, workers=0)
    return runtime


def _import_project(
    project: Path | None, manifest: Manifest, entrypoint: Path | None, compat: bool, owner: AbortCallbacks
) -> Runtime:
    if compat:
        install(first=True)
    os.environ[STREAMING_MODE] = "true"
    return _import(project, manifest, entrypoint, owner)


def _add_engine(runtime: Runtime, engine: str | None, workers: int) -> None:
    """Give the project the engine that it or the command line names."""
    spec = engine or runtime.manifest.engine
    if spec is not None:
        serve_engine(runtime, EngineOfWorkers(spec, workers) if workers else engines.open(spec))


class EngineOfWorkers(Engine):
    """Stands in the server for the engines that its workers have, one each.

    Args:
        spec: Of each of them.
        workers: How many there are.

    Raises:
        CallError: There is no such engine, or its model is not there.
    """

    def __init__(self, spec: str, workers: int) -> None:
        self.engine_id = spec
        self.model = spec
        self.capacity = workers * engines.capacity(spec)

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Refuse: nothing is generated here."""
        raise CallError(f"{self.engine_id} is open in the workers only", ErrorCode.INTERNAL)

    def close(self) -> None:
        """Do nothing: the workers close theirs."""


def find_project(project: Path | None) -> tuple[Manifest, Path | None]:
    """Return a project's manifest and the file to import, if there is one.

    Args:
        project: A project folder, a Clarifai model folder, or a Python file.

    Raises:
        AuthoringError: There is no project there, or its manifest has mistakes.
    """
    if project is None:
        return Manifest(), None
    return read_model_folder(project) if is_model_folder(project) else read_project(project)


def describe_project(project: Path) -> Description:
    """Return what a project would serve; it is imported, and nothing is initialised.

    Raises:
        AuthoringError: It has mistakes.
        Exception: Whatever the author's file raises while it is imported.
    """
    install(first=True)
    runtime = _import(project, *find_project(project), AbortCallbacks())
    if runtime.manifest.engine is not None:
        serve_engine(runtime, engines.open("scripted"))  # every engine serves the same commands
    commands = runtime.bound_commands()
    return describe(runtime.manifest, commands, check_fit(runtime.manifest, commands))


def serve_engine(runtime: Runtime, engine: Engine) -> None:
    """Give a runtime the commands that an engine serves with no code: ``predict``, ``chat``, ``generate``.

    A name the author has taken stays the author's.  The engine is closed when the app stops.
    """
    runtime.on_close(engine.aclose)
    commands = EngineCommands(engine)
    served: Mapping[Callable[..., Any], OpenAIKind | None] = {
        commands.predict: None,
        commands.chat: "chat",
        commands.complete: "completion",
        commands.generate: None,
    }
    for function, openai in served.items():
        if function.__name__ not in runtime.commands:
            runtime.streaming_command(
                function.__name__,
                # More at once would only wait inside the engine, where nobody sees their place in the queue.
                concurrency=engine.capacity,
                openai=openai,
                model=engine.model if openai else None,
            )(function)


class EngineCommands:
    """The commands of one engine; their signatures are the inputs callers may send."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def predict(
        self,
        prompt: str,
        system_prompt: str | None = None,
        max_tokens: PositiveInt = 256,
        temperature: Temperature | None = None,
        top_p: TopP | None = None,
        stop: str | list[str] | None = None,
    ) -> AsyncIterator[TextItem]:
        """Answer a prompt piece by piece."""
        pieces = self._engine.chat_pieces(
            conversation(prompt, system_prompt),
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
        )
        async with aclosing(_growing(pieces)) as items:
            async for item in items:
                yield item

    async def chat(
        self,
        messages: Annotated[list[Turn], Field(min_length=1)],
        max_tokens: PositiveInt = 256,
        temperature: Temperature | None = None,
        top_p: TopP | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        presence_penalty: Penalty | None = None,
        frequency_penalty: Penalty | None = None,
        tools: list[dict[str, Any]] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> AsyncIterator[TextItem]:
        """Continue a conversation piece by piece; `tools` and `response_format` are as OpenAI has them."""
        pieces = self._engine.chat_pieces(
            [message.model_dump(exclude_none=True) for message in messages],
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
            seed=seed,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            tools=tools,
            response_format=response_format,
        )
        async with aclosing(_growing(pieces)) as items:
            async for item in items:
                yield item

    async def complete(
        self,
        prompt: Annotated[str, Field(min_length=1)],
        max_tokens: PositiveInt = 256,
        temperature: Temperature | None = None,
        top_p: TopP | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        presence_penalty: Penalty | None = None,
        frequency_penalty: Penalty | None = None,
    ) -> AsyncIterator[TextItem]:
        """Continue a text as it stands, piece by piece."""
        pieces = self._engine.text_pieces(
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
            seed=seed,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
        )
        async with aclosing(_growing(pieces)) as items:
            async for item in items:
                yield item

    async def generate(self, request: Request) -> AsyncIterator[EventItem]:
        """Answer a typed request with its events: start, deltas, end (protocol v0.1, StreamEvent).

        The events carry this server's request id, which is unique across callers; `trace_id` is the
        caller's own.
        """
        asked = msgspec.structs.replace(request_to_engine(request), request_id=current_call().request_id)
        async with aclosing(self._engine.generate(asked)) as events:
            async for event in events:
                yield event
                if type(event) is EngineEnd:
                    report_end(event)
                    raise_if_failed(event)
                    return
        raise CallError(
            f"{self._engine.engine_id} ended its stream without an end event; the answer may be incomplete",
            ErrorCode.UPSTREAM_FAILED,
        )


async def _growing(pieces: AsyncGenerator[EngineDelta, None]) -> AsyncGenerator[TextItem, None]:
    text = ""
    async with aclosing(pieces):
        async for piece in pieces:
            chunk = piece.chunk
            text += chunk
            item: TextItem = {"text": text, "chunk": chunk, "finished": False}
            if piece.reasoning is not UNSET:
                item["reasoning"] = piece.reasoning
            if piece.tool_calls is not UNSET:
                item["tool_calls"] = piece.tool_calls
            if chunk or len(item) > _PLAIN:
                yield item
    yield {"text": text, "chunk": "", "finished": True}


def _import(
    project: Path | None, manifest: Manifest, entrypoint: Path | None, owner: AbortCallbacks
) -> Runtime:
    if project is None or entrypoint is None:
        return Runtime(manifest)
    try:
        if is_model_folder(project):
            return import_model(project, manifest, owner)
        runtime = import_project(entrypoint, owner)
    except SystemExit as error:
        # Carried into the event loop it would end the server, with the status the project chose.
        raise AuthoringError(
            f"{entrypoint} called sys.exit({error.code!r}) while it was imported; remove that"
        ) from error
    if runtime.manifest == Manifest():
        runtime.manifest = manifest
    return runtime
