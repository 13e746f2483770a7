"""`/mcp`: the official SDK's streamable HTTP transport behind our own door."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
)

from penstock.calls.tasks import TaskOwner
from penstock.protocol.dispatch import Caller, CommandDescription, Dispatcher
from penstock.server.exchange import Exchange
from penstock.server.mcp.tools import ADMINS, call_tool, tool_of

_CALLER = "penstock.caller"  # in the scope of a request


class McpDoor:
    """Answers clients of the Model Context Protocol.

    Args:
        dispatcher: Whose commands are the tools.
        tasks: Owns the task that serves the sessions, from the first request on.
        max_body: Largest body, in bytes.
    """

    def __init__(self, dispatcher: Dispatcher, tasks: TaskOwner, max_body: int) -> None:
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._max_body = max_body
        self._manager: asyncio.Future[StreamableHTTPSessionManager] | None = None

    async def handle(self, exchange: Exchange) -> None:
        """`/mcp`, whatever the method: the SDK tells them apart."""
        if self._manager is None:
            self._manager = asyncio.get_running_loop().create_future()
            self._tasks.start(self._serve(self._manager), name="mcp")
        manager = await asyncio.shield(self._manager)
        caller, scope = exchange.caller, exchange.scope
        scope[_CALLER] = caller
        # Sessions belong to the key that opened them.
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=caller.key, scopes=[]))
        exchange.started = True
        await manager.handle_request(scope, exchange.receive, exchange.noting_send)

    async def _serve(self, ready: asyncio.Future[StreamableHTTPSessionManager]) -> None:
        """Serve sessions until this task is cancelled."""
        try:
            described = await self._dispatcher.describe()
            server: Server[Any] = Server(
                described.name, version=described.version, on_list_tools=self._list, on_call_tool=self._call
            )
            manager = StreamableHTTPSessionManager(server, max_request_body_size=self._max_body)
            async with manager.run():
                ready.set_result(manager)
                await asyncio.Event().wait()
        finally:
            self._manager = None
            ready.cancel()

    async def _commands(self) -> dict[str, CommandDescription]:
        described = await self._dispatcher.describe()
        return {name: told for name, told in described.commands.items() if name not in ADMINS}

    async def _list(
        self, context: ServerRequestContext[Any, Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        commands = await self._commands()
        return ListToolsResult(tools=[tool_of(name, told) for name, told in commands.items()])

    async def _call(
        self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult:
        if params.name not in await self._commands():
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name[:100]!r}")
        caller: Caller = context.request.scope[_CALLER] if context.request is not None else Caller()

        async def progress(items: float, text: str) -> None:
            await context.session.report_progress(items, message=text)

        return await call_tool(self._dispatcher, caller, params.name, params.arguments or {}, progress)
