"""``AsyncClient``: the same methods in process, over HTTP and over WebSocket."""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from penstock.client.http import HttpTransport, StreamForm
from penstock.client.local import LocalTransport
from penstock.client.outcome import answer_of
from penstock.client.request import encode_input, join_input, read_route
from penstock.client.stream import AsyncStream
from penstock.client.transport import ServerHealth, Task, Transport
from penstock.protocol.codec import MAX_FRAME
from penstock.protocol.dispatch import CancelOutcome, CommandDescription, Dispatcher
from penstock.protocol.messages import OnDisconnect, Route, Start


class AsyncClient:
    """Runs commands, here or on a server.

    ::

        async with AsyncClient("http://127.0.0.1:8000") as client:
            answer = await client.run("predict", prompt="A fox")

    Args:
        target: A server's URL, or a dispatcher in this process (it stays the caller's to close).  Under a
            ``ws://`` or ``wss://`` URL all calls share a WebSocket, and its host answers other questions
            over HTTP.
        api_key: This caller's key, where the server needs one; by default what ``PENSTOCK_API_KEY`` says.
        timeout_s: Total budget of each call that names no other, in seconds.
        form: How streams travel over HTTP.
        silence_s: Seconds a stream over HTTP may be silent before it is given up; None: for ever.
        max_frame: Largest frame or answer that is taken over a network, in bytes.
        tls: What a server's certificate is judged by, such as
            ``ssl.create_default_context(cafile="ca.pem")``; by default those that the machine trusts.
        http: An httpx client to use instead of an own one, for proxies or tests; it stays the caller's to
            close.

    Raises:
        ValueError: ``target`` is text, but no http, https, ws or wss URL.
    """

    def __init__(
        self,
        target: str | Dispatcher,
        *,
        api_key: str | None = None,
        timeout_s: float | None = None,
        form: StreamForm = "ndjson",
        silence_s: float | None = None,
        max_frame: int = MAX_FRAME,
        tls: ssl.SSLContext | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._transport: Transport
        api_key = os.environ.get("PENSTOCK_API_KEY") if api_key is None else api_key
        if isinstance(target, str) and target.startswith(("ws:", "wss:")):
            # Loaded where it is used: it takes as long as the rest of this module.
            from penstock.client.websocket import WebSocketTransport

            self._transport = WebSocketTransport(
                target, api_key=api_key, max_frame=max_frame, tls=tls, http=http
            )
        elif isinstance(target, str):
            self._transport = HttpTransport(
                target,
                api_key=api_key,
                form=form,
                silence_s=silence_s,
                max_frame=max_frame,
                tls=tls,
                http=http,
            )
        else:
            self._transport = LocalTransport(target)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    # -- calls ---------------------------------------------------------------------------------------

    async def run(
        self,
        command: str,
        input: Mapping[str, Any] | None = None,
        /,
        *,
        task_id: str | None = None,
        timeout_s: float | None = None,
        on_disconnect: object = None,
        route: Route | Mapping[str, Any] | None = None,
        output_config: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
        **named: Any,
    ) -> Any:
        """Run a command; return its answer, of a streaming command the last item.

        Input is given as a mapping, as keywords, or as both; a parameter whose name is one of the options
        below goes into the mapping.

        Args:
            command: Its name.
            input: Its input.
            task_id: A name for the call, by which it can be cancelled and read again.
            timeout_s: Total budget in seconds.
            on_disconnect: What becomes of the call when this caller leaves: ``"cancel"``, ``"continue"`` or
                ``{"grace_s": seconds}``; without it what the command's settings say, else ``"cancel"``.
            route: Which runner of a gateway it is for: ``{"labels": {...}}`` that it has, ``{"sticky": key}``
                the same one as others of that key, or both; elsewhere it means nothing.
            output_config: Passed to the command as it is.
            correlation_id: `X-Request-Id`; invented if absent.
            **named: More input.

        Raises:
            CallError: The call was refused or failed.
            ConnectionFailed: No server answered.
            CallCancelled: The call was cancelled.
            RemoteProtocolError: The answer is not penstock's.
        """
        start = self._start(
            command,
            join_input(input, named),
            is_stream=False,
            task_id=task_id,
            timeout_s=timeout_s,
            on_disconnect=on_disconnect,
            route=route,
            output_config=output_config,
        )
        return await self._answer(start, correlation_id)

    def stream(
        self,
        command: str,
        input: Mapping[str, Any] | None = None,
        /,
        *,
        task_id: str | None = None,
        timeout_s: float | None = None,
        on_disconnect: object = None,
        route: Route | Mapping[str, Any] | None = None,
        output_config: Mapping[str, Any] | None = None,
        notes: bool = False,
        more_input: bool = False,
        correlation_id: str | None = None,
        **named: Any,
    ) -> AsyncStream:
        """Return a command's stream, to be used as ``async with ... as stream: async for item in stream``.

        Args:
            command: Its name.
            input: Its input; see ``run`` for this and the other arguments.
            task_id: A name for the call.
            timeout_s: Total budget in seconds.
            on_disconnect: What becomes of the call when its stream is left.
            route: Which runner of a gateway it is for.
            output_config: Passed to the command as it is.
            notes: Whether ``stream.frames()`` shows the place in the queue and progress, too.
            more_input: Whether ``stream.send`` gives more items to a command that takes a stream, until
                ``stream.end_input``; in process and over WebSocket.
            correlation_id: `X-Request-Id`; invented if absent.
            **named: More input.

        Raises:
            CallError: ``invalid_argument``: the request cannot be written.  What entering and iterating
                raise is told at ``AsyncStream``.
        """
        start = self._start(
            command,
            join_input(input, named),
            is_stream=True,
            task_id=task_id,
            timeout_s=timeout_s,
            on_disconnect=on_disconnect,
            route=route,
            output_config=output_config,
            notes=notes,
            more_input=more_input,
        )
        return self._stream(start, correlation_id)

    def workflow(
        self,
        workflow_id: str,
        input: Mapping[str, Any] | None = None,
        /,
        *,
        task_id: str | None = None,
        timeout_s: float | None = None,
        on_disconnect: object = None,
        route: Route | Mapping[str, Any] | None = None,
        **named: Any,
    ) -> AsyncStream:
        """Return a workflow's stream: the items of its steps, then its output.

        ``frames()`` tells by ``step`` which step an item is of; for the other arguments see ``run``.

        Raises:
            CallError: ``invalid_argument``: the request cannot be written.
        """
        start = self._start(
            "",
            join_input(input, named),
            workflow_id=workflow_id,
            is_stream=True,
            task_id=task_id,
            timeout_s=timeout_s,
            on_disconnect=on_disconnect,
            route=route,
        )
        return self._stream(start)

    async def run_workflow(
        self,
        workflow_id: str,
        input: Mapping[str, Any] | None = None,
        /,
        *,
        task_id: str | None = None,
        timeout_s: float | None = None,
        on_disconnect: object = None,
        route: Route | Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Any:
        """Run a workflow; return its output.  Arguments and errors as for ``run``."""
        start = self._start(
            "",
            join_input(input, named),
            workflow_id=workflow_id,
            is_stream=False,
            task_id=task_id,
            timeout_s=timeout_s,
            on_disconnect=on_disconnect,
            route=route,
        )
        return await self._answer(start)

    def resume(self, task_id: str, after: int = -1) -> AsyncStream:
        """Return the stream of a call that was opened before, from behind frame number ``after`` on.

        Entering it raises ``not_found`` (unknown, forgotten, or another key's) or ``ReplayTruncated``.
        """
        transport = self._transport
        return AsyncStream(transport, lambda: transport.resume(task_id, after), task_id=task_id, after=after)

    async def cancel(self, task_id: str) -> CancelOutcome:
        """Cancel a call by its task id or request id; return ``"cancelled"`` or ``"already_finished"``.

        Raises:
            CallError: ``not_found``.
        """
        return await self._transport.cancel(task_id)

    async def task(self, task_id: str) -> Task:
        """Return what is known of a call.

        Raises:
            CallError: ``not_found``.
        """
        return await self._transport.task(task_id)

    async def tasks(self) -> list[Task]:
        """Return what is known of this caller's calls, oldest first."""
        return await self._transport.tasks()

    # -- the server ----------------------------------------------------------------------------------

    async def commands(self) -> Mapping[str, CommandDescription]:
        """Return what can be called, with schemas."""
        return await self._transport.commands()

    async def health(self) -> ServerHealth:
        """Return how the server is, also while it starts or drains."""
        return await self._transport.health()

    async def _answer(self, start: Start, correlation_id: str | None = None) -> Any:
        return answer_of(await self._transport.run(start, correlation_id or secrets.token_hex(16)))

    def _stream(self, start: Start, correlation_id: str | None = None) -> AsyncStream:
        transport, correlation = self._transport, correlation_id or secrets.token_hex(16)
        return AsyncStream(transport, lambda: transport.open(start, correlation), task_id=start.task_id)

    def _start(
        self,
        command: str,
        input: Mapping[str, Any],
        *,
        is_stream: bool,
        task_id: str | None,
        timeout_s: float | None,
        on_disconnect: object,
        route: Route | Mapping[str, Any] | None,
        output_config: Mapping[str, Any] | None = None,
        notes: bool = False,
        more_input: bool = False,
        workflow_id: str | None = None,
    ) -> Start:
        return Start(
            command=command,
            workflow_id=workflow_id,
            input=encode_input(input),
            task_id=task_id,
            output_config=output_config or {},
            is_stream=is_stream,
            notes=notes,
            on_disconnect=None if on_disconnect is None else OnDisconnect.parse(on_disconnect),
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            more_input=more_input,
            route=read_route(route),
        )
