"""The HTTP transport, on httpx (routes: WIRE.md section 3)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from penstock.client.http_reply import HttpReply, describe, distrusted, foreign, read_body, refusal
from penstock.client.request import fields_of
from penstock.client.transport import Asked, Offer, Reply, ServerHealth, Task, closed
from penstock.errors import CallError, ConnectionFailed, ErrorCode
from penstock.protocol.codec import JSON_TYPE, MAX_FRAME, NDJSON_TYPE, SSE_TYPE
from penstock.protocol.dispatch import CancelOutcome
from penstock.protocol.messages import Frame, decode_frame

StreamForm = Literal["ndjson", "sse"]

CONNECT_S = 10.0
SHORT_S = 30.0  # for a question that no model has to answer
SILENCE_S = 45.0  # without even a sign of life, which servers give after 15 s

_TYPES: Mapping[StreamForm, str] = {"ndjson": NDJSON_TYPE, "sse": SSE_TYPE}
_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))

T = TypeVar("T")


class _Tasks(msgspec.Struct):
    tasks: list[Task]


class _Cancelled(msgspec.Struct):
    outcome: CancelOutcome


class HttpTransport:
    """Runs calls on a server.

    Args:
        url: Where it is, such as ``http://127.0.0.1:8000``.
        api_key: Sent as a bearer token.
        form: How streams travel.
        silence_s: Seconds a stream may be silent before its connection counts as broken; None: for ever.
            Servers give a sign of life after 15 s.
        max_frame: Largest frame or answer that is taken, in bytes.
        tls: What the server's certificate is judged by; None is by those that the machine trusts.
        http: An httpx client to use instead of an own one, for proxies or tests; closing this transport does
            not close it.

    Raises:
        ValueError: ``url`` is no http or https URL.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        form: StreamForm = "ndjson",
        silence_s: float | None = SILENCE_S,
        max_frame: int = MAX_FRAME,
        tls: ssl.SSLContext | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._url = _checked(url)
        self._headers = {"accept-encoding": "identity"}
        if api_key is not None:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._stream_type = _TYPES[form]
        self._silence_s = silence_s
        self._max_frame = max_frame
        self._owned = http is None
        self._closed = False
        self._http = http or _client(self._url, tls)

    async def run(self, asked: Asked) -> Frame:
        """See ``Transport.run``."""
        response = await self._execute(asked, JSON_TYPE, asked.patience_s)
        body = await read_body(response, self._max_frame)
        if response.status_code not in (200, 499):
            raise refusal(response, body)
        try:
            return decode_frame(body)
        except CallError as error:
            raise foreign(response, body) from error

    async def open(self, asked: Asked) -> Reply:
        """See ``Transport.open``."""
        if asked.start.more_input:
            raise CallError(
                f"input streams do not travel over HTTP; give the client the server's WebSocket URL, "
                f"such as {self._url.replace('http', 'ws', 1)}",
                ErrorCode.NOT_IMPLEMENTED,
            )
        return await self._reply(await self._execute(asked, self._stream_type, self._silence_s))

    async def resume(self, call_id: str, after: int, correlation_id: str) -> Reply:
        """See ``Transport.resume``."""
        path = f"{_path(call_id)}/events?after={after}"
        return await self._reply(
            await self._send(
                "GET",
                path,
                accept=self._stream_type,
                read_s=self._silence_s,
                headers={"x-request-id": correlation_id},
            )
        )

    async def cancel(self, task_id: str) -> CancelOutcome:
        """See ``Transport.cancel``."""
        return (await self._ask("POST", f"{_path(task_id)}/cancel", _Cancelled)).outcome

    async def task(self, task_id: str) -> Task:
        """See ``Transport.task``."""
        return await self._ask("GET", _path(task_id), Task)

    async def tasks(self) -> list[Task]:
        """See ``Transport.tasks``."""
        return (await self._ask("GET", "/tasks", _Tasks)).tasks

    async def offer(self) -> Offer:
        """See ``Transport.offer``."""
        return await self._ask("GET", "/v2/commands", Offer)

    async def health(self) -> ServerHealth:
        """See ``Transport.health``."""
        return await self._ask("GET", "/health", ServerHealth, also=503)

    async def aclose(self) -> None:
        """See ``Transport.aclose``."""
        self._closed = True
        if self._owned:
            await self._http.aclose()

    # -- inside --------------------------------------------------------------------------------------

    async def _execute(self, asked: Asked, accept: str, read_s: float | None) -> httpx.Response:
        headers = {"content-type": JSON_TYPE, "x-request-id": asked.correlation_id}
        if asked.idempotency_key is not None:
            headers["idempotency-key"] = asked.idempotency_key
        return await self._send(
            "POST",
            "/v2/execute" if asked.start.workflow_id is None else "/v2/workflow",
            accept=accept,
            read_s=read_s,
            body=msgspec.json.encode(fields_of(asked.start)),
            headers=headers,
        )

    async def _ask(self, method: str, path: str, kind: type[T], *, also: int = 200) -> T:
        """Return the answer to a question that no model has to answer."""
        response = await self._send(method, path, accept=JSON_TYPE, read_s=SHORT_S)
        body = await read_body(response, self._max_frame)
        try:
            if response.status_code in (200, also):
                return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise foreign(response, body) from error
        raise refusal(response, body)

    async def _reply(self, response: httpx.Response) -> Reply:
        try:
            if response.status_code == 200:
                return HttpReply(response, self._max_frame)
            raise refusal(response, await read_body(response, self._max_frame))
        except BaseException:
            await response.aclose()
            raise

    async def _send(
        self,
        method: str,
        path: str,
        *,
        accept: str,
        read_s: float | None,
        body: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> httpx.Response:
        """Send a request; return the response with its body unread."""
        if self._closed:
            raise closed()
        request = self._http.build_request(
            method,
            self._url + path,
            content=body,
            headers={**self._headers, "accept": accept, **headers},
            timeout=httpx.Timeout(read_s, connect=CONNECT_S, write=SHORT_S, pool=None),
        )
        try:
            return await self._http.send(request, stream=True, follow_redirects=False)
        except httpx.TransportError as error:
            raise self._failed(error) from error

    def _failed(self, error: httpx.TransportError) -> CallError:
        if isinstance(error, httpx.LocalProtocolError):
            return CallError(f"the request cannot be sent: {error}", ErrorCode.INVALID_ARGUMENT)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return distrusted(self._url, str(error).partition("failed: ")[2] or str(error))
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return ConnectionFailed(
                f"no server answers at {self._url} ({describe(error)}): "
                "start one with `penstock run PROJECT`, or check the address",
                sent=False,
            )
        if isinstance(error, httpx.TimeoutException):
            return ConnectionFailed(f"{self._url} did not answer in time ({describe(error)})")
        return ConnectionFailed(f"{self._url} went away before it answered ({describe(error)}); try again")


def _checked(url: str) -> str:
    mistake = ValueError(f"{url!r} is no server's URL; write it like http://127.0.0.1:8000")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise mistake from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise mistake
    return str(parsed).rstrip("/")


def is_loopback(url: httpx.URL) -> bool:
    """Whether ``url`` is on this machine, to which no proxy is a way."""
    return url.host in _LOOPBACK


def _client(url: str, tls: ssl.SSLContext | None) -> httpx.AsyncClient:
    """Return a client with as many connections as there are streams, so that a cancel never waits for one.
    A proxy of the environment is no way to this machine itself."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    trust_env = not is_loopback(httpx.URL(url))
    if url.startswith("https:"):
        return httpx.AsyncClient(limits=limits, trust_env=trust_env, verify=True if tls is None else tls)
    # Reading the certificates takes 20 ms.  A context without any trusts nobody, should it ever be used.
    trusts_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(limits=limits, trust_env=trust_env, verify=trusts_nobody)


def _path(task_id: str) -> str:
    return f"/tasks/{quote(task_id, safe='')}"
