"""The bounds of the HTTP protocol: sizes, times, and clients that leave, vanish or do not read."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import anyio
import pytest

from behaviour.checks import until
from behaviour.raw_http import Connection, Departure
from penstock.server.host import listen_all
from penstock.server.http_protocol import FRAMING_OVERHEAD, HttpProtocol
from penstock.server.settings import ServerSettings
from penstock.server.tcp import NOT_SENT_LOW
from server.conftest import Serve, Told
from server.edge import HEADS, SMUGGLED, Edge, edge, is_refusal

pytestmark = pytest.mark.anyio
GET, POST = HEADS["get"], HEADS["post"]
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
ONE_SIDED = [-1, 0, 1]

LOOPS = [pytest.param("asyncio", id="asyncio")]
try:
    import uvloop  # noqa: F401
except ImportError:
    pass
else:
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(scope="module", params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Transports differ between event loops."""
    return request.param


# -- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", ONE_SIDED)
@pytest.mark.parametrize("parts", [1, 7])
async def test_the_limit_of_a_head_is_exact(more: int, parts: int) -> None:
    head = GET + b"x: %b\r\n\r\n"
    head %= b"y" * (1000 - len(head) + 2 + more)
    async with edge(max_header=1000, max_uri=1000) as served:
        connection = await Connection.open(served.address)
        for begin in range(0, len(head), len(head) // parts + 1):
            connection.send(head[begin : begin + len(head) // parts + 1])
            await asyncio.sleep(0)
        reply = await connection.reply()
        if more > 0:
            is_refusal(reply, 431, "headers_too_large")
            assert "1000 bytes" in json.loads(reply.body)["error"]
            assert served.begun == []
        else:
            assert (reply.status, served.begun) == (200, ["/"])
        await connection.aclose()


async def test_every_head_has_the_whole_limit_to_itself() -> None:
    head = GET + b"x: " + b"y" * 900 + b"\r\n\r\n"
    async with edge(max_header=1000) as served:
        connection = await Connection.open(served.address)
        connection.send(head * 5)
        for _ in range(5):
            assert (await connection.reply()).status == 200
        await connection.aclose()


@pytest.mark.parametrize("more", ONE_SIDED)
async def test_the_limit_of_a_target_is_exact(more: int) -> None:
    target = b"/" + b"a" * 49 + b"?" + b"b" * (49 + more)
    async with edge(max_uri=100) as served:
        reply, connection = await served.probe(b"GET %b HTTP/1.1\r\nhost: test\r\n\r\n" % target)
        if more > 0:
            is_refusal(reply, 414, "uri_too_long")
            assert "100 bytes" in json.loads(reply.body)["error"]
            assert served.begun == []
        else:
            assert reply.status == 200
        await connection.aclose()


async def test_a_head_that_never_ends_is_not_waited_for() -> None:
    async with edge() as served:
        connection = await Connection.open(served.address)
        connection.send(b"GET /" + b"a" * 20_000_000)
        is_refusal(await connection.reply(), 414, "uri_too_long")
        await connection.aclose()
        connection = await Connection.open(served.address)
        connection.send(GET + b"x: y\r\n" * 4_000_000)
        is_refusal(await connection.reply(), 431, "headers_too_large")
        await connection.aclose()


@pytest.mark.parametrize(
    "framing",
    [
        b"1;" + b"a" * FRAMING_OVERHEAD,
        b"0" * FRAMING_OVERHEAD + b"1",
        b"1\r\nx\r\n0\r\nx: " + b"y" * FRAMING_OVERHEAD,
    ],
    ids=["an extension", "zeros", "a trailer"],
)
async def test_a_chunked_body_is_not_all_framing(framing: bytes) -> None:
    async with edge() as served:
        reply, connection = await served.probe(CHUNKED + framing)
        is_refusal(reply, 413, "too_large")
        assert served.handled == []
        await connection.aclose()


async def test_a_body_in_chunks_of_a_byte_is_taken() -> None:
    async with edge() as served:
        reply, connection = await served.probe(CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
        assert reply.body == b"/ 20000"
        await connection.aclose()


async def test_an_answer_that_comes_early_is_received_whatever_is_still_sent() -> None:
    async with edge() as served:
        served.early = True
        connection = await Connection.open(served.address)
        connection.request("POST", "/", headers={"content-length": "50000000"})
        head = await connection.head()
        assert (head.status, head.headers["connection"]) == (413, "close")
        connection.send(b"x" * 20_000_000)  # more than the kernel would keep
        await connection.drained()
        assert await connection.body() == b"no"
        assert await connection.ended() == b""
        connection.send(SMUGGLED)
        await connection.aclose()
    assert served.begun == ["/"]


# -- times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"G", b"\r\n", GET[:-2], GET + b"x: y\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    async with edge(header_s=0.1) as served:
        reply, connection = await served.probe(begun)
        is_refusal(reply, 408, "request_timeout")
        assert await connection.ended() == b""
        assert served.begun == []
        await connection.aclose()


async def test_a_head_in_drips_has_no_more_time_than_another() -> None:
    async with edge(header_s=0.3) as served:
        connection = await Connection.open(served.address)
        began = asyncio.get_running_loop().time()
        reply = asyncio.ensure_future(connection.reply())  # noqa: TID251 - awaited below
        for byte in GET * 1000:
            connection.send(bytes((byte,)))
            if (await asyncio.wait((reply,), timeout=0.01))[0]:
                break
        is_refusal(await reply, 408, "request_timeout")
        assert asyncio.get_running_loop().time() - began < 2
        await connection.aclose()


@pytest.mark.parametrize("coding", [b"content-length: 100\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n9"])
@pytest.mark.parametrize("begun", [b"", b"\r\nxx"])
async def test_a_body_that_does_not_come_is_not_waited_for(coding: bytes, begun: bytes) -> None:
    async with edge(body_idle_s=0.1) as served:
        reply, connection = await served.probe(POST + coding + begun)
        is_refusal(reply, 408, "request_timeout")
        assert await served.gone() == "/"
        assert served.handled == []
        assert await connection.ended() == b""
        await connection.aclose()


async def test_a_body_may_take_long_while_it_moves() -> None:
    async with edge(body_idle_s=1.0, header_s=0.05) as served:
        connection = await Connection.open(served.address)
        connection.request("POST", "/", headers={"content-length": "20"})
        protocol = await _begun(served)
        for _ in range(20):
            before = protocol._timer
            assert before is not None
            connection.send(b"x")
            await until(lambda: protocol._timer is not before, lambda: before)  # noqa: B023
        assert (await connection.reply()).body == b"/ 20"
        await connection.aclose()


async def test_the_times_are_those_of_one_request() -> None:
    async with edge(header_s=0.05, body_idle_s=0.05) as served:
        served.go.clear()
        connection = await Connection.open(served.address)
        connection.request("POST", "/1", b"x")
        await connection.head()
        connection.send(GET[:5])  # of the next request, which has its time when it is its turn
        (protocol,) = served.state.connections
        assert isinstance(protocol, HttpProtocol)
        await until(lambda: len(protocol._ahead) == 5, lambda: protocol._ahead)
        assert protocol._timer is None
        served.go.set()
        assert await connection.body() == b"/1 1"
        is_refusal(await connection.reply(), 408, "request_timeout")
        await connection.aclose()


async def test_a_connection_without_a_request_is_closed_without_a_word() -> None:
    async with edge() as served:
        connection = await Connection.open(served.address)
        protocol = await _connected(served)
        assert protocol.timeout_keep_alive_task is not None
        protocol.timeout_keep_alive_handler()
        assert await connection.ended() == b""
        await connection.aclose()


# -- clients that leave ------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1, 50, 500])
@pytest.mark.parametrize("how", ["fin", "rst", "half"])
async def test_a_client_that_leaves_is_noticed_whatever_it_sent_ahead(how: Departure, ahead: int) -> None:
    async with edge() as served:
        served.go.clear()
        connection = await Connection.open(served.address)
        connection.request("GET", "/stream")
        await connection.head()
        for n in range(ahead):
            connection.request("POST", f"/{n}", b"x" * 100)
        await connection.drained()
        await connection.leave(how)
        assert await served.gone() == "/stream"
        assert served.begun == ["/stream"]
        await connection.aclose()


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
@pytest.mark.parametrize("ahead", [0, 50])
async def test_a_client_that_leaves_is_noticed_though_it_has_not_read(how: Departure, ahead: int) -> None:
    async with edge() as served:
        served.go.clear()
        served.body = b"x" * 30_000_000
        connection = await Connection.open(served.address)
        for _ in range(ahead + 1):
            connection.request("GET", "/stream")
        await connection.head()
        await _stuffed(served)
        await connection.leave(how)
        assert await served.gone() == "/stream"
        await until(lambda: not served.state.connections, lambda: "connected")
        await connection.aclose()


async def _stuffed(served: Edge) -> HttpProtocol:
    """Return the one connection, once nothing more can be written to it."""
    protocol = next(iter(served.state.connections))
    assert isinstance(protocol, HttpProtocol)
    await until(lambda: protocol.flow.write_paused, lambda: "writing")
    return protocol


async def test_a_client_that_leaves_behind_its_answer_gets_all_of_it() -> None:
    async with edge() as served:
        served.body = b"x" * 1_000_000
        connection = await Connection.open(served.address)
        connection.request("GET", "/")
        await connection.head()
        assert await connection.body() == served.body + b"/ 0"
        await connection.leave("half")
        assert await connection.ended() == b""
        await connection.aclose()


# -- clients that do not read ------------------------------------------------------------------------


async def test_a_client_that_reads_nothing_is_dropped() -> None:
    async with edge(slow_reader_s=0.1) as served:
        served.go.clear()
        served.body = b"x" * 30_000_000
        connection = await Connection.open(served.address)
        connection.pause()
        connection.request("GET", "/stream")
        assert await served.gone() == "/stream"
        await connection.aclose()


async def test_a_client_that_reads_slowly_is_kept() -> None:
    async with edge() as served:
        served.body = b"x" * 30_000_000
        connection = await Connection.open(served.address)
        connection.pause()
        connection.request("GET", "/stream")
        await until(lambda: bool(served.begun), lambda: "nothing")
        protocol = await _stuffed(served)
        for _ in range(3):
            left = protocol.transport.get_write_buffer_size()
            connection.resume()
            await until(lambda: protocol.transport.get_write_buffer_size() < left, lambda: "the same")  # noqa: B023
            connection.pause()
            protocol._peer._look()  # as if its patience had ended
            assert not protocol.transport.is_closing()
            assert protocol._peer.waited_for
        connection.resume()
        assert len(await connection.reply()) == 3
        assert not protocol._peer.waited_for
        await connection.aclose()


async def test_a_connection_that_is_closed_may_take_its_time_for_the_rest_but_not_all_time() -> None:
    async with edge() as served:
        served.body = b"x" * 30_000_000
        connection = await Connection.open(served.address)
        connection.pause()
        protocol = await _connected(served)
        protocol.transport.set_write_buffer_limits(high=2 * len(served.body))  # the handler does not wait
        connection.request("GET", "/", headers={"connection": "close"})
        await until(lambda: protocol._peer._leaving is not None, lambda: "no bound")
        assert protocol.transport.is_closing()
        await connection.aclose()


async def _connected(served: Edge) -> HttpProtocol:
    await until(lambda: bool(served.state.connections), lambda: "no connection")
    (protocol,) = served.state.connections
    assert isinstance(protocol, HttpProtocol)
    return protocol


async def _begun(served: Edge) -> HttpProtocol:
    await until(lambda: bool(served.begun), lambda: "nothing")
    return await _connected(served)


# -- clients that vanish -----------------------------------------------------------------------------


async def test_every_listener_finds_the_vanished_and_buffers_little() -> None:
    listeners = listen_all(ServerSettings(port=0, ws_port=0))
    try:
        for listener in listeners:
            with socket.create_connection(listener.getsockname()) as _:
                accepted, _ = listener.accept()
                with accepted:
                    told = [
                        accepted.getsockopt(socket.IPPROTO_TCP, option)
                        for option in (
                            socket.TCP_USER_TIMEOUT,
                            socket.TCP_KEEPIDLE,
                            socket.TCP_KEEPINTVL,
                            socket.TCP_NOTSENT_LOWAT,
                            socket.TCP_NODELAY,
                        )
                    ]
                    assert told == [30_000, 15, 10, NOT_SENT_LOW, 1]
                    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    finally:
        for listener in listeners:
            listener.close()


# -- a server that stops -----------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [GET[:7], POST + b"content-length: 5\r\n\r\nxx"])
async def test_a_request_that_is_not_complete_when_the_server_stops_is_told(begun: bytes) -> None:
    async with edge() as served:
        connection = await Connection.open(served.address)
        connection.send(begun)
        protocol = await _connected(served)
        await until(lambda: protocol._timer is not None, lambda: "nothing came")
        protocol.shutdown()
        reply = await connection.reply()
        is_refusal(reply, 503, "unavailable")
        assert reply.headers["retry-after"] == "1"
        assert await connection.ended() == b""
        assert served.handled == []
        await connection.aclose()


async def test_an_answer_that_is_due_when_the_server_stops_is_given() -> None:
    async with edge() as served:
        served.go.clear()
        connection = await Connection.open(served.address)
        connection.request("GET", "/")
        connection.request("GET", "/ahead")
        protocol = await _begun(served)
        await connection.head()
        protocol.shutdown()
        served.go.set()
        assert await connection.body() == b"/ 0"
        assert await connection.ended() == b""
        assert served.begun == ["/"]
        await connection.aclose()


@pytest.mark.parametrize("requests_before", [0, 1])
@pytest.mark.parametrize("size", [1_000, 100_000, 1_000_000])
async def test_who_leaves_behind_a_large_body_is_noticed(
    serve: Serve, told: Told, requests_before: int, size: int
) -> None:
    async with serve() as served:
        connection = await Connection.open(served.address)
        for _ in range(requests_before):
            connection.request("POST", "/v2/execute", b'{"command": "echo", "input": {"text": "a"}}')
            assert (await connection.reply()).status == 200
        body = b'{"command": "hang", "input": {}, "is_stream": false, "padding": "%b"}' % (b"x" * size)
        connection.request("POST", "/v2/execute", body)
        with anyio.fail_after(10):
            await told.started.wait()
            await connection.leave("fin")
            await told.stopped.wait()
        await connection.aclose()
