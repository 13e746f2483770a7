"""Joins what may not know each other: a project or an engine becomes an ``App`` that a server can host."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from penstock import engines
from penstock.calls.caches import CACHES
from penstock.calls.observer import NOBODY, Observer
from penstock.client import AsyncClient
from penstock.engine_commands import serve_engine
from penstock.engines.base import Engine
from penstock.errors import AuthoringError, CallError, ErrorCode, PenstockError
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.gateway.door import RunnerDoor, Visitor
from penstock.gateway.hub import Hub
from penstock.gateway.routes import RunnerRoutes
from penstock.gateway.settings import GatewaySettings
from penstock.integrations.model_folder.folder import import_model, is_model_folder, read_model_folder
from penstock.integrations.names import install
from penstock.protocol.dispatch import Caller, Description
from penstock.protocol.events import EngineEvent, EngineRequest
from penstock.protocol.runners import PATH
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_fit import check_fit
from penstock.runtime.project import ProjectSource, import_project, read_project
from penstock.runtime.runtime import Runtime, describe
from penstock.server.asgi import Extension, Route, Service
from penstock.server.door import Door
from penstock.server.meta import Exposition
from penstock.server.settings import ServerSettings

STREAMING_MODE = "SPI_STREAMING_ENV_VAR"
"""Set to ``true`` before a project is imported (streaming mode guide, Command Execution)."""


def build_observer(settings: ServerSettings) -> tuple[Observer, Exposition | None]:
    """Return what watches the calls of an app, as far as that is on, and what shows its counts at `/metrics`.

    Raises:
        PenstockError: Calls are to be traced, and the package for it is not there.
    """
    # Workers import this file too, and watch nothing: their calls are the server's.
    from penstock.observability import exposition, recorder
    from penstock.observability.several import Several

    tracing = _open_tracing() if settings.traces else None
    counted = recorder.Recorder() if settings.metrics else None
    watching = [observer for observer in (tracing, counted) if observer is not None]
    observer = watching[0] if len(watching) == 1 else Several(*watching) if watching else NOBODY
    return observer, None if counted is None else exposition.Exposition(counted, CACHES)


def _open_tracing() -> Observer:
    try:
        from penstock.observability.tracing import open_tracing
    except ModuleNotFoundError as error:
        raise PenstockError("traces need OpenTelemetry: pip install 'penstock[otel]'") from error
    return open_tracing()


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
        limits=settings.call_limits(),
        source=source,
        observer=observer,
    )


def local_model(project: Path | str) -> Callable[[], AbstractAsyncContextManager[AsyncClient]]:
    """Return what opens a project in this process and gives a client of it, as ``annotate`` takes it.

    Args:
        project: A folder with manifest.yml, a Clarifai model folder, or a Python file.
    """

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncClient]:
        async with build_app(Path(project), None, ServerSettings()) as app, AsyncClient(app) as client:
            yield client

    return opened


def build_gateway(
    name: str,
    settings: ServerSettings,
    gateway: GatewaySettings | None = None,
    *,
    default_command: str | None = None,
    observer: Observer = NOBODY,
    clarifai: LinkSettings | None = None,
    listening: Callable[[str], None] = lambda _: None,
) -> tuple[Hub, Extension]:
    """Return a gateway's dispatcher, and what its server answers besides calls.

    Args:
        name: Shown to callers.
        settings: Where the bounds on calls are taken from.
        gateway: How runners are treated.
        default_command: Of calls that name none; None leaves it to what runners offer.
        observer: Is told what happens to every call.
        clarifai: How Clarifai's runners and clients are served; without a port they are not.
        listening: Told where they are.

    Raises:
        PenstockError: They are to be served, but the extra is missing.
    """
    limits = settings.call_limits()
    given = {"name": name} if default_command is None else {"name": name, "default_command": default_command}
    hub = Hub(Manifest.model_validate(given), settings=gateway, limits=limits, observer=observer)
    routes = tuple(Route(path, handlers) for path, handlers in RunnerRoutes(hub).table().items())
    services = () if clarifai is None else _serve_clarifai(hub, settings, clarifai, listening)
    return hub, Extension(routes, {PATH: RunnerDoor(hub, settings.max_body)}, services)


def _serve_clarifai(
    hub: Hub, settings: ServerSettings, link: LinkSettings, listening: Callable[[str], None]
) -> tuple[Callable[[Door], Service], ...]:
    if link.port is None:
        return ()
    try:
        from penstock.gateway.clarifai.clients import serve_clients
        from penstock.gateway.clarifai.server import ClarifaiServer, Tls
    except ImportError as error:
        raise PenstockError(
            f"--clarifai-port needs packages that are not there ({error}): pip install 'penstock[clarifai]'"
        ) from error

    tls = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        tls = Tls(settings.tls_cert, settings.tls_key)

    def serve(door: Door) -> Service:
        guard = KeyGuard(door)
        clients = serve_clients(hub, guard)
        bindings, services = clients.bindings, clients.services
        return ClarifaiServer(hub, guard, settings.host, link, bindings, services, tls, listening)

    return (serve,)


class KeyGuard:
    """Lets in over gRPC whom the door lets in; ``penstock.gateway.clarifai.guard.Guard``."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def enter(self, token: str | None, asked: Caller) -> Caller:
        """See ``Guard.enter``."""
        return self._door.enter_with(token, asked)

    def enter_host(self, token: str | None) -> Visitor:
        """See ``Guard.enter_host``."""
        return self._door.enter_host_with(token)

    def still(self, caller: Caller) -> bool:
        """See ``Guard.still``."""
        return self._door.still(caller)


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
