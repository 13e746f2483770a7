"""Reading HTTP responses: streams of frames, answers, refusals, and what is none of penstock's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import cast

import httpx
import msgspec

from penstock.client.outcome import code_of_status, error_of
from penstock.errors import (
    CallError,
    ConnectionFailed,
    ErrorCode,
    PenstockError,
    RemoteProtocolError,
    StreamTruncated,
)
from penstock.protocol.codec import NDJSON_TYPE, SSE_TYPE, NdjsonDecoder, SseDecoder
from penstock.protocol.messages import Frame, decode_frame

_SHOWN = 120  # bytes of a foreign answer that an error message shows


class HttpReply:
    """A streamed response, giving frames; ``penstock.client.transport.Reply``.

    Args:
        response: Open, its body not read yet; ``aclose`` closes it.
        max_frame: Largest frame, in bytes.

    Raises:
        RemoteProtocolError: It is not a stream of frames.
    """

    def __init__(self, response: httpx.Response, max_frame: int) -> None:
        self._response = response
        self._lines = _line_decoder(response, max_frame)
        self._chunks = cast("AsyncGenerator[bytes, None]", response.aiter_raw())
        self._fault: PenstockError | None = None  # raised once the frames before it are handed out

    async def __anext__(self) -> list[Frame]:
        while self._fault is None:
            if frames := self._frames(self._lines(await self._chunk())):
                return frames
        raise self._fault

    async def aclose(self) -> None:
        await self._chunks.aclose()
        await self._response.aclose()

    async def send(self, item: bytes) -> None:
        """See ``Reply.send``."""
        raise _no_input()

    async def end_input(self) -> None:
        """See ``Reply.end_input``."""
        raise _no_input()

    async def _chunk(self) -> bytes:
        try:
            return await self._chunks.__anext__()
        except httpx.ReadTimeout as error:
            raise StreamTruncated("the server fell silent: not even a keep-alive came") from error
        except httpx.TransportError as error:
            raise StreamTruncated(f"the connection broke within the stream ({describe(error)})") from error

    def _frames(self, lines: list[bytes]) -> list[Frame]:
        try:
            return [frame for line in lines if (frame := decode_frame(line)).type == "task"]
        except CallError:
            return self._frames_around_others(lines)

    def _frames_around_others(self, lines: list[bytes]) -> list[Frame]:
        """Return the frames among ``lines``: skip what is of another type, such as a keep-alive, and stop
        at what is no frame."""
        frames: list[Frame] = []
        for line in lines:
            if type_of(line) not in ("task", None):
                continue
            try:
                frames.append(decode_frame(line))
            except CallError as error:
                self._fault = RemoteProtocolError(f"the server sent {_excerpt(line)}, {error.message}")
                break
        return frames


async def read_body(response: httpx.Response, max_body: int) -> bytes:
    """Read a whole response and close it.

    Raises:
        CallError: ``too_large``.
        ConnectionFailed: The connection broke.
    """
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_body:
                raise CallError(f"the answer is longer than {max_body} bytes", ErrorCode.TOO_LARGE)
    except httpx.TransportError as error:
        raise ConnectionFailed(f"the connection broke within the answer ({describe(error)})") from error
    finally:
        await response.aclose()
    return bytes(body)


def refusal(response: httpx.Response, body: bytes) -> PenstockError:
    """Return the exception that a response which is no success stands for."""
    status = response.status_code
    try:
        frame = decode_frame(body)
    except CallError:
        frame = None
    if frame is not None and frame.status == "error":
        return error_of(frame, status, _retry_after(response))
    if status < 400:
        return foreign(response, body)
    return CallError(
        f"{response.url} answered HTTP {status} with {_excerpt(body)}, which is no answer of penstock's",
        code_of_status(status),
        retry_after_s=_retry_after(response),
    )


def foreign(response: httpx.Response, body: bytes = b"") -> RemoteProtocolError:
    """Return the exception for an answer that penstock never gives."""
    if response.has_redirect_location:
        where = response.headers["location"][:_SHOWN]
        return RemoteProtocolError(
            f"{response.url} redirects to {where!r}; give the client that server's URL"
        )
    kind = _media_type(response) or "no content type"
    return RemoteProtocolError(
        f"{response.url} answered HTTP {response.status_code} with {kind}, {_excerpt(body)}: "
        "is it penstock that serves there?"
    )


def _no_input() -> CallError:
    return CallError("input streams do not travel over HTTP", ErrorCode.NOT_IMPLEMENTED)


def describe(error: httpx.TransportError) -> str:
    """Return what happened to a connection; some of httpx's errors have no text."""
    return str(error) or type(error).__name__


def distrusted(url: str, why: str) -> ConnectionFailed:
    """Return what is raised where a server's certificate is not trusted."""
    return ConnectionFailed(
        f"{url} shows a certificate that is not trusted here ({why}): give the client the CA that vouches "
        "for it (tls=, or --ca), or check the address"
    )


class _Typed(msgspec.Struct):
    type: str


def type_of(line: bytes) -> str | None:
    """Return what kind of message a line is; None where it is none."""
    try:
        return msgspec.json.decode(line, type=_Typed).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _line_decoder(response: httpx.Response, max_frame: int) -> Callable[[bytes], list[bytes]]:
    kind = _media_type(response)
    if kind == NDJSON_TYPE:
        return NdjsonDecoder(max_frame).feed
    if kind == SSE_TYPE:
        feed = SseDecoder(max_frame).feed
        return lambda data: [event.data for event in feed(data)]
    raise foreign(response)


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _excerpt(body: bytes) -> str:
    return repr(body[:_SHOWN].decode("utf-8", "replace")) if body else "no body"
