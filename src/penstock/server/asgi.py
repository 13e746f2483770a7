"""The ASGI application: a table of routes in front of a dispatcher.

Raw ASGI, one owned task per call: no framework object stands between a token and its socket.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from penstock.calls.caches import CACHES
from penstock.calls.clock import Clock, SystemClock
from penstock.calls.tasks import TaskOwner
from penstock.calls.traffic import ELSEWHERE, Traffic
from penstock.errors import FAULTS, CallError, ErrorCode, PenstockError
from penstock.protocol.dispatch import Caller, Dispatcher
from penstock.protocol.messages import Start, WireForm
from penstock.server.contracts import ContractRoutes
from penstock.server.door import PREFLIGHT, Door, Guest, chosen_subprotocol
from penstock.server.exchange import (
    ClientGone,
    Exchange,
    Header,
    Receive,
    Send,
    correlation_id,
    header_of,
)
from penstock.server.keepalive import KeepAlive
from penstock.server.kv import KvRoutes
from penstock.server.meta import Exposition, MetaRoutes, MetricsRoute
from penstock.server.once import Once
from penstock.server.openai.routes import OpenAIRoutes
from penstock.server.openapi.operations import COMMAND, WORKFLOW
from penstock.server.pages import Pages
from penstock.server.pump import Pump
from penstock.server.refusal import refuse_socket
from penstock.server.requests import read_named_start, read_start, read_workflow_start, stream_form
from penstock.server.settings import ServerSettings
from penstock.server.tasks import TaskRoutes
from penstock.server.websocket import Socket

_log = logging.getLogger("penstock.server")

MCP = "/mcp"
"""Where clients of the Model Context Protocol go, if they may; no OpenAPI document tells their language."""
SWITCHING_PROTOCOLS = 101  # the status of a WebSocket that is opened
SOCKETS = ("/ws", "/v2/ws")  # either speaks V1 (`task` messages) and V2 (`command`)

Handler = Callable[..., Awaitable[None]]


class Route(NamedTuple):
    """One path and what answers it, by method.

    Attributes:
        path: ``{id}`` stands for one segment, ``{file}`` for all that is left.
        listed: Whether the OpenAPI document has it.
    """

    path: str
    handlers: Mapping[str, Handler]
    listed: bool = True


class Service(Protocol):
    """Serves the same dispatcher in another language, on a port of its own."""

    async def start(self) -> None:
        """Listen.

        Raises:
            PenstockError: That cannot be.
        """
        ...

    def drain(self) -> None:
        """Take nobody more; calls that were accepted go on."""
        ...

    async def aclose(self) -> None:
        """Stop; no call runs any more."""
        ...


class Extension(NamedTuple):
    """What somebody else answers on this server.

    Attributes:
        routes: Behind the same door as all; they look themselves at what their caller may do.
        hosts: WebSockets, by path, for hosts that offer commands.
        services: What is served beside it, each made with the door that all go through.
    """

    routes: tuple[Route, ...] = ()
    hosts: Mapping[str, Callable[[Receive, Send, Guest], Awaitable[None]]] = {}
    services: tuple[Callable[[Door], Service], ...] = ()


class Application:
    """Serves a dispatcher over HTTP.

    Args:
        dispatcher: What runs the calls.
        settings: Limits.
        clock: Tells the time.
        exposition: What `/metrics` shows; without it there is no such route.
        door: Lets requests in; without it everybody is, as it is right behind somebody else's door.
        extension: More that is answered.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: ServerSettings | None = None,
        clock: Clock | None = None,
        exposition: Exposition | None = None,
        door: Door | None = None,
        extension: Extension | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._extension = extension or Extension()
        self._door = door or Door(None)
        self._exposition = exposition
        self._settings = settings or ServerSettings()
        self._clock = clock or SystemClock()
        self._watches = TaskOwner()
        self._keepalive = KeepAlive(self._clock, self._settings.silent_s)
        self._pump = Pump(self._keepalive)
        self._once = Once(dispatcher)
        self._sockets: set[Socket] = set()
        self.traffic = Traffic()
        self.routes = (*self._routes(), *self._extension.routes)
        self._exact = {route.path: route for route in self.routes if "{" not in route.path}
        self._patterns = [(_pattern(route.path), route) for route in self.routes if "{" in route.path]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        exchange = Exchange(
            scope,
            receive,
            send,
            wall=self._clock.wall,
            max_body=self._settings.max_body,
            max_correlation=self._settings.max_request_id,
            tasks=self._watches,
        )
        route, arguments = self._find(scope["path"])
        named = ELSEWHERE if route is None else route.path
        self.traffic.answering[named] += 1
        try:
            if self._door.enter(exchange):
                await self._answer(exchange, route, arguments)
            else:
                await exchange.nothing(PREFLIGHT)
        except CallError as error:
            await exchange.refuse(error)
        except ClientGone:
            pass
        except Exception:  # the top of a request: a bug of ours is told with its id, and logged
            _log.exception("request %s failed", exchange.caller.correlation_id)
            if exchange.started:
                raise
            await exchange.refuse(CallError(f"internal error; its id is {exchange.caller.correlation_id}"))
        finally:
            self.traffic.answering[named] -= 1
            if exchange.status:  # else the client left before there was one
                self.traffic.answered(named, exchange.status, exchange.code)

    def refused(self, error: CallError) -> None:
        """Count what was answered before it became a request."""
        self.traffic.answered(ELSEWHERE, FAULTS[error.code].http, error.code.value)

    async def _websocket(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        correlation = correlation_id(header_of(scope, b"x-request-id"), self._settings.max_request_id)
        asked = Caller(correlation_id=correlation, trace_parent=header_of(scope, b"traceparent"))
        path = scope["path"]
        host = self._extension.hosts.get(path)
        route = path if host is not None or path in SOCKETS else ELSEWHERE
        guest: Guest | None = None
        try:
            if host is not None:
                guest = self._door.enter_host(scope)
            else:
                caller = self._door.enter_socket(scope, asked)
                if route is ELSEWHERE:
                    raise CallError("there is no WebSocket at this path", ErrorCode.PERMISSION_DENIED)
        except CallError as error:
            await receive()
            await refuse_socket(error, scope, send)
            self.traffic.answered(route, FAULTS[error.code].http, error.code.value)
            return
        self.traffic.answered(route, SWITCHING_PROTOCOLS)
        self.traffic.sockets[route] += 1
        try:
            if host is not None and guest is not None:
                await host(receive, send, guest)
            else:
                await self._serve_socket(scope, receive, send, caller)
        finally:
            self.traffic.sockets[route] -= 1

    async def _serve_socket(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, caller: Caller
    ) -> None:
        socket = Socket(
            self._dispatcher,
            caller,
            self._clock.wall,
            send,
            scope.get("extensions") or {},
            partial(self._door.still, caller),
            self._refused_message,
        )
        self._sockets.add(socket)
        try:
            await socket.serve(receive, chosen_subprotocol(scope))
        finally:
            self._sockets.discard(socket)

    def _refused_message(self, error: CallError) -> None:
        self.traffic.messages[error.code.value] += 1

    async def close_sockets(self) -> None:
        """Close every WebSocket, behind the terminal frames of its calls; returns within a few seconds."""
        closing = [self._watches.start(socket.finish(), name="closing") for socket in self._sockets]
        if closing:
            await asyncio.wait(closing)

    async def aclose(self) -> None:
        """Stop what was started here."""
        self._keepalive.close()
        await self._watches.aclose()

    def _routes(self) -> tuple[Route, ...]:
        meta = MetaRoutes(self._dispatcher)
        tasks = TaskRoutes(self._dispatcher, self._pump)
        kv = KvRoutes(CACHES, self._pump)
        needs_key = self._door.keys is not None
        contracts = ContractRoutes(self._dispatcher, self._listed, SOCKETS, needs_key=needs_key)
        openai = OpenAIRoutes(self._dispatcher, self._once, self._keepalive, self._watches).table()
        shown = () if self._exposition is None else (MetricsRoute(self._exposition, self.traffic),)
        return (
            Route("/v2/execute", {"POST": self._execute_v2}),
            Route("/v2/workflow", {"POST": self._execute_workflow}),
            Route(COMMAND, {"POST": self._execute_command}),
            Route(WORKFLOW, {"POST": self._execute_named_workflow}),
            Route("/predict", {"POST": self._execute_v1}),
            Route("/task", {"POST": self._execute_v1}),
            Route("/v2/commands", {"GET": meta.commands}),
            Route("/openapi.json", {"GET": contracts.openapi}),
            Route("/asyncapi.json", {"GET": contracts.asyncapi}),
            Route("/health", {"GET": meta.health}),
            Route("/livez", {"GET": meta.livez}),
            Route("/readyz", {"GET": meta.readyz}),
            Route("/startupz", {"GET": meta.startupz}),
            *(Route("/metrics", {"GET": metrics.show}) for metrics in shown),
            Route("/v2/kv", {"GET": kv.show}),
            Route("/v2/kv/events", {"GET": kv.events}),
            Route("/tasks", {"GET": tasks.list}),
            Route("/tasks/{id}", {"GET": tasks.show, "DELETE": tasks.cancel}),
            Route("/tasks/{id}/cancel", {"POST": tasks.cancel}),
            Route("/tasks/{id}/events", {"GET": tasks.events}),
            *(Route(path, handlers) for path, handlers in openai.items()),
            *self._mcp(),
            *self._pages(),
        )

    def _mcp(self) -> tuple[Route, ...]:
        if not self._settings.mcp:
            return ()
        try:
            from penstock.server.mcp.door import McpDoor
        except ModuleNotFoundError as error:
            text = "the Model Context Protocol needs the package mcp: pip install 'penstock[mcp]'"
            raise PenstockError(text) from error
        door = McpDoor(self._dispatcher, self._watches, self._settings.max_body)
        return (Route(MCP, dict.fromkeys(("GET", "POST", "DELETE"), door.handle), listed=False),)

    def _pages(self) -> tuple[Route, ...]:
        if not self._settings.playground:
            return ()
        return tuple(Route(path, handlers, listed=False) for path, handlers in Pages().table().items())

    async def _answer(self, exchange: Exchange, route: Route | None, arguments: tuple[str, ...]) -> None:
        path, method = exchange.scope["path"], exchange.scope["method"]
        if route is None:
            raise CallError(f"there is nothing at {path[:100]!r}", ErrorCode.NOT_FOUND)
        handler = route.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            await exchange.refuse(*_not_allowed(method, path, route.handlers))
        else:
            await handler(exchange, *arguments)

    def _find(self, path: str) -> tuple[Route | None, tuple[str, ...]]:
        """Return the route of a path and what stands in the places of its names; None where there is none."""
        if (route := self._exact.get(path)) is not None:
            return route, ()
        for pattern, route in self._patterns:
            if (match := pattern.match(path)) is not None:
                return route, match.groups()
        return None, ()

    async def _execute_v1(self, exchange: Exchange) -> None:
        await self._execute(exchange, WireForm.V1)

    async def _execute_v2(self, exchange: Exchange) -> None:
        await self._execute(exchange, WireForm.V2)

    async def _execute(self, exchange: Exchange, form: WireForm) -> None:
        body = await exchange.json_body()
        await self._run(exchange, body, read_start(exchange, body, form))

    async def _execute_workflow(self, exchange: Exchange) -> None:
        body = await exchange.json_body()
        await self._run(exchange, body, read_workflow_start(exchange, body))

    async def _execute_command(self, exchange: Exchange, name: str) -> None:
        body = await exchange.json_body()
        await self._run(exchange, body, read_named_start(exchange, body, command=name))

    async def _execute_named_workflow(self, exchange: Exchange, name: str) -> None:
        body = await exchange.json_body()
        await self._run(exchange, body, read_named_start(exchange, body, workflow_id=name))

    def _listed(self) -> list[tuple[str, str]]:
        return [(method, route.path) for route in self.routes if route.listed for method in route.handlers]

    async def _run(self, exchange: Exchange, body: bytes, start: Start) -> None:
        [live] = await self._once.open(exchange, body, start)
        if start.is_stream:
            await self._pump.stream(exchange, live, stream_form(exchange))
        else:
            await self._pump.answer(exchange, live)


def _pattern(path: str) -> re.Pattern[str]:
    spelt = re.escape(path).replace(r"\{id\}", "([^/]+)").replace(r"\{file\}", "(.+)")
    return re.compile(spelt + r"\Z")


def _not_allowed(
    method: str, path: str, handlers: Mapping[str, Handler]
) -> tuple[CallError, tuple[Header, ...]]:
    allowed = ", ".join(sorted(handlers))
    error = CallError(f"{path} takes {allowed}, not {method[:20]}", ErrorCode.METHOD_NOT_ALLOWED)
    return error, ((b"allow", allowed.encode()),)
