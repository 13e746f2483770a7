"""``AsyncClient``: the same methods in process, over HTTP and over WebSocket."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import httpx

from penstock.client.backoff import Backoff, Retry, safe_to_repeat
from penstock.client.http import SILENCE_S, StreamForm
from penstock.client.outcome import answer_of
from penstock.client.pacing import sleep
from penstock.client.reaching import reach
from penstock.client.request import Defaults, join_input, start_of
from penstock.client.stream import AsyncSource, AsyncStream
from penstock.client.transport import Asked, ServerHealth, Task, Transport
from penstock.errors import CallError, PenstockError
from penstock.protocol.codec import MAX_FRAME
from penstock.protocol.dispatch import CancelOutcome, CommandDescription, Dispatcher, WorkflowDescription
from penstock.protocol.messages import Frame, Route, Start

T = TypeVar("T")


class AsyncClient:
    """Runs commands, here or on a server.

    ::

        async with AsyncClient("http://127.0.0.1:8000") as client:
            answer = await client.run("predict", prompt="A fox")

    Args:
        target: A server's URL, or a dispatcher such as an ``App``.  Under a ``ws://`` or ``wss://`` URL all
            calls share a WebSocket, and its host answers other questions over HTTP.
        api_key: This caller's key, where the server needs one; by default what ``PENSTOCK_API_KEY`` says.
        timeout_s: Total budget of each call that names no other, in seconds.
        on_disconnect: What becomes of each call that says nothing of it when its reader leaves; see ``run``.
        retry: Bounds of trying again.  A stream is read on where its connection dropped; a request is sent
            again only where it cannot run twice.
        form: How streams travel over HTTP.
        silence_s: Seconds a stream over HTTP may be silent before its connection counts as broken; None: for
            ever.
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
        on_disconnect: object = None,
        retry: Retry | None = None,
        form: StreamForm = "ndjson",
        silence_s: float | None = SILENCE_S,
        max_frame: int = MAX_FRAME,
        tls: ssl.SSLContext | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._defaults = Defaults(timeout_s, on_disconnect)
        self._retry = retry or Retry()
        self._transport: Transport = reach(
            target, api_key=api_key, form=form, silence_s=silence_s, max_frame=max_frame, tls=tls, http=http
        )

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
        idempotency_key: str | None = None,
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
            correlation_id: `X-Request-Id`, which the server logs; invented if absent.
            idempotency_key: The same request under the same key runs once, so that it can be sent again; over
                HTTP only.
            **named: More input.

        Raises:
            CallError: The call was refused or failed.
            ConnectionFailed: No server answered.
            CallCancelled: The call was cancelled.
            RemoteProtocolError: The answer is not penstock's.
        """
        start = start_of(
            self._defaults,
            join_input(input, named),
            command=command,
            task_id=task_id,
            timeout_s=timeout_s,
            on_disconnect=on_disconnect,
            route=route,
            output_config=output_config or {},
        )
        return await self._answer(start, correlation_id, idempotency_key)

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
        idempotency_key: str | None = None,
        **named: Any,
    ) -> AsyncStream[Any]:
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
                ``stream.end_input``; in process and over WebSocket.  Such a stream is not read on by itself.
            correlation_id: `X-Request-Id`; invented if absent.
            idempotency_key: The same request under the same key runs once; over HTTP only.
            **named: More input.

        Raises:
            CallError: ``invalid_argument``: the request cannot be written.  What entering and iterating
                raise is told at ``AsyncStream``.
        """
        start = start_of(
            self._defaults,
            join_input(input, named),
            command=command,
            is_stream=True,
            task_id=task_id or _own_name(idempotency_key),
            timeout_s=timeout_s,
            on_disconnect=on_disconnect,
            route=route,
            output_config=output_config or {},
            notes=notes,
            more_input=more_input,
        )
        return self._stream(start, correlation_id, idempotency_key, own_name=task_id is None)

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
        correlation_id: str | None = None,
        idempotency_key: str | None = None,
        **named: Any,
    ) -> AsyncStream[Any]:
        """Return a workflow's stream: the items of its steps, then its output.

        ``frames()`` tells by ``step`` which step an item is of; for the other arguments see ``run``.

        Raises:
            CallError: ``invalid_argument``: the request cannot be written.
        """
        start = start_of(
            self._defaults,
            join_input(input, named),
            workflow_id=workflow_id,
            is_stream=True,
            task_id=task_id or _own_name(idempotency_key),
            timeout_s=timeout_s,
            on_disconnect=on_disconnect,
            route=route,
        )
        return self._stream(start, correlation_id, idempotency_key, own_name=task_id is None)

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
        correlation_id: str | None = None,
        idempotency_key: str | None = None,
        **named: Any,
    ) -> Any:
        """Run a workflow; return its output.  Arguments and errors as for ``run``."""
        start = start_of(
            self._defaults,
            join_input(input, named),
            workflow_id=workflow_id,
            is_stream=False,
            task_id=task_id,
            timeout_s=timeout_s,
            on_disconnect=on_disconnect,
            route=route,
        )
        return await self._answer(start, correlation_id, idempotency_key)

    def resume(self, task_id: str, after: int = -1) -> AsyncStream[Any]:
        """Return the stream of a call that was opened before, from behind frame number ``after`` on.

        Entering it raises ``not_found`` (unknown, forgotten, or another key's) or ``ReplayTruncated``.
        """
        source = AsyncSource(self._transport, self._retry, None, self.cancel, secrets.token_hex(16))
        return AsyncStream(source, task_id=task_id, after=after)

    async def cancel(self, task_id: str) -> CancelOutcome:
        """Cancel a call by its task id or request id; return ``"cancelled"`` or ``"already_finished"``.

        Raises:
            CallError: ``not_found``.
        """
        return await self._repeated(lambda: self._transport.cancel(task_id))

    async def task(self, task_id: str) -> Task:
        """Return what is known of a call.

        Raises:
            CallError: ``not_found``.
        """
        return await self._repeated(lambda: self._transport.task(task_id))

    async def tasks(self) -> list[Task]:
        """Return what is known of this caller's calls, oldest first."""
        return await self._repeated(self._transport.tasks)

    # -- the server ----------------------------------------------------------------------------------

    async def commands(self) -> Mapping[str, CommandDescription]:
        """Return what can be called, with schemas."""
        return (await self._repeated(self._transport.offer)).commands

    async def workflows(self) -> Mapping[str, WorkflowDescription]:
        """Return the workflows there are, with the schemas of their inputs and their steps."""
        return (await self._repeated(self._transport.offer)).workflows

    async def health(self) -> ServerHealth:
        """Return how the server is, also while it starts or drains."""
        return await self._transport.health()

    # -- inside --------------------------------------------------------------------------------------

    async def _answer(self, start: Start, correlation_id: str | None, idempotency_key: str | None) -> Any:
        asked = Asked(start, correlation_id or secrets.token_hex(16), idempotency_key)
        run: Callable[[], Awaitable[Frame]] = lambda: self._transport.run(asked)  # noqa: E731
        try:
            return answer_of(await self._repeated(run, idempotent=idempotency_key is not None))
        except PenstockError as error:
            error.correlation_id = asked.correlation_id
            raise

    def _stream(
        self, start: Start, correlation_id: str | None, idempotency_key: str | None, *, own_name: bool
    ) -> AsyncStream[Any]:
        asked = Asked(start, correlation_id or secrets.token_hex(16), idempotency_key)
        transport = self._transport
        source = AsyncSource(
            transport,
            self._retry,
            lambda: transport.open(asked),
            self.cancel,
            asked.correlation_id,
            idempotent=idempotency_key is not None,
            own_name=own_name,
            resumable=not start.more_input,
        )
        return AsyncStream(source, task_id=start.task_id)

    async def _repeated(self, work: Callable[[], Awaitable[T]], *, idempotent: bool = True) -> T:
        backoff = Backoff(self._retry)
        while True:
            try:
                return await work()
            except CallError as error:
                safe = safe_to_repeat(error, idempotent=idempotent)
                if (pause_s := backoff.pause(error) if safe else None) is None:
                    raise
            await sleep(pause_s)


def _own_name(idempotency_key: str | None) -> str | None:
    """Return a name that nobody else gives a call, so that it is found again before the server has said
    anything.  Not so under a key: the same request must have the same body each time, or it is a conflict."""
    return secrets.token_hex(16) if idempotency_key is None else None
