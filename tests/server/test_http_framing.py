"""Where a request ends: wherever the bytes are cut, the same requests are handled, one at a time."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from behaviour.checks import until
from behaviour.raw_http import Connection
from penstock.server.framing import Boundary
from server.edge import HEADS, SMUGGLED, Edge, edge, is_refusal

pytestmark = pytest.mark.anyio
GET, POST = HEADS["get"], HEADS["post"]
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"

# What two parsers might read differently; each is followed by a request that must not be taken for one.
AMBIGUOUS = {
    "both lengths": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, turned": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "one length twice": POST + b"content-length: 1\r\ncontent-length: 1\r\n\r\nx",
    "a list of lengths": POST + b"content-length: 1, 1\r\n\r\nx",
    "a length with a sign": POST + b"content-length: +1\r\n\r\nx",
    "a negative length": POST + b"content-length: -1\r\n\r\nx",
    "a hexadecimal length": POST + b"content-length: 0x1\r\n\r\nx",
    "an underscore in a length": POST + b"content-length: 1_0\r\n\r\n0123456789",
    "two lengths in one": POST + b"content-length: 1 1\r\n\r\nx",
    "an empty length": POST + b"content-length: \r\n\r\n",
    "a length past 64 bits": POST + b"content-length: 18446744073709551617\r\n\r\nx",
    "a length of 5,000 digits": POST + b"content-length: " + b"0" * 4999 + b"1\r\n\r\nx",
    "an unknown coding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"transfer-encoding: identity\r\n\r\n",
    "a coding behind chunked": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding before chunked": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice in one": POST + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a control before chunked": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"/1.1", b"/1.0") + b"0\r\n\r\n",
    "a space before a colon": POST + b"content-length : 1\r\n\r\nx",
    "a space before a name": GET.replace(b"host", b" host") + b"\r\n",
    "a folded header": GET + b"x: a\r\n b\r\n\r\n",
    "a folded coding": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare LF behind the first line": b"GET / HTTP/1.1\nhost: test\r\n\r\n",
    "a bare LF behind a header": GET + b"x: y\nz: w\r\n\r\n",
    "a bare LF at the end": GET + b"\n",
    "a bare CR": GET + b"x: y\rz: w\r\n\r\n",
    "a NUL in a header": GET + b"x: \0\r\n\r\n",
    "a NUL in the target": b"GET /\0 HTTP/1.1\r\nhost: test\r\n\r\n",
    "no name": GET + b": y\r\n\r\n",
    "a name that is not ASCII": GET + b"\xe9: y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"host: other\r\n\r\n",
    "a fragment": GET.replace(b"/ ", b"/#a ") + b"\r\n",
    "a space in the target": GET.replace(b"/ ", b"/a b ") + b"\r\n",
    "a target that is not ASCII": GET.replace(b"/ ", b"/\xc3\xa9 ") + b"\r\n",
    "an authority": b"CONNECT test:1 HTTP/1.1\r\nhost: test\r\n\r\n",
    "a method in small letters": GET.lower().replace(b"http/", b"HTTP/") + b"\r\n",
    "an unknown method": GET.replace(b"GET", b"FOO") + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": GET.replace(b"/1.1", b"/1.2") + b"\r\n",
    "HTTP/2.0": GET.replace(b"/1.1", b"/2.0") + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a bare LF behind a chunk's size": CHUNKED + b"1\nx\r\n0\r\n\r\n",
    "a bare LF behind a chunk": CHUNKED + b"1\r\nx\n0\r\n\r\n",
    "a bare LF behind an extension": CHUNKED + b"1;a\nx\r\n0\r\n\r\n",
    "a bare CR in an extension": CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "a space behind a chunk's size": CHUNKED + b"1 \r\nx\r\n0\r\n\r\n",
    "a chunk with a sign": CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
    "a hexadecimal chunk": CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
    "a chunk past 64 bits": CHUNKED + b"10000000000000001\r\nx\r\n0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "a length among the trailers": CHUNKED + b"0\r\ncontent-length: 5\r\n\r\n",
    "a body behind an upgrade": POST + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 40\r\n\r\n",
    "chunks behind an upgrade": CHUNKED[:-2] + b"connection: upgrade\r\nupgrade: foo\r\n\r\n",
}
CODINGS = {"an unknown coding", "identity", "a coding before chunked"}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_what_can_be_read_in_two_ways_is_refused(data: bytes, request: pytest.FixtureRequest) -> None:
    async with edge() as served:
        reply, connection = await served.probe(data + SMUGGLED)
        if request.node.callspec.id in CODINGS:
            is_refusal(reply, 501, "not_implemented")
        else:
            is_refusal(reply, 400, "invalid_argument")
        connection.send(SMUGGLED)
        assert await connection.ended() == b""
        assert served.handled == []
        assert set(served.begun) <= {"/"}
        await connection.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n" + GET + b"\r\n",
        CHUNKED + b"1;a=b;c\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"0001\r\nx\r\n0\r\n\r\n",
        CHUNKED.replace(b"chunked", b"CHUNKED") + b"1\r\nx\r\n0\r\n\r\n",
        GET.replace(b"/ ", b"http://elsewhere/ ") + b"\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
async def test_what_is_odd_but_clear_is_handled_once(data: bytes) -> None:
    async with edge() as served:
        reply, connection = await served.probe(data)
        assert reply.status == 200
        assert [handled.target for handled in served.handled] == ["/"]
        await connection.aclose()


async def test_trailers_are_no_headers() -> None:
    async with edge() as served:
        data = CHUNKED + b"1\r\nx\r\n0\r\nauthorization: Bearer x\r\nx-trailer: y\r\n\r\n"
        reply, connection = await served.probe(data)
        assert reply.body == b"/ 1"
        assert set(served.handled[0].headers) == {"host", "transfer-encoding"}
        await connection.aclose()


@pytest.mark.parametrize("behind", [b"", b"\x00\x00\x12\x04", SMUGGLED])
async def test_an_upgrade_to_what_is_not_spoken_is_answered_in_http_and_is_the_last(behind: bytes) -> None:
    async with edge() as served:
        data = GET + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n\r\n"
        reply, connection = await served.probe(data + behind)
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        connection.send(SMUGGLED)
        assert await connection.ended() == b""
        assert served.begun == ["/"]
        await connection.aclose()


# -- any cut -----------------------------------------------------------------------------------------


def sized(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length: %d\r\n\r\n" % len(body) + body, body


def chunked(parts: list[bytes]) -> tuple[bytes, bytes]:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    return b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", b"".join(parts)


# Bodies that look like the ends of messages.
PIECES = st.sampled_from([b"\r\n\r\n", b"\r\n", b"\r", b"\n", b"0\r\n\r\n", SMUGGLED, b"x", b"GET"])
BODIES = st.lists(PIECES, max_size=4).map(b"".join)
REQUESTS = st.lists(
    st.one_of(
        st.just((b"\r\n", b"")),
        BODIES.map(sized),
        st.lists(BODIES, max_size=3).map(chunked),
    ),
    min_size=1,
    max_size=5,
)


def cut(data: bytes, places: list[float]) -> list[bytes]:
    marks = sorted({0, len(data), *(int(place * len(data)) for place in places)})
    return [data[begin:end] for begin, end in itertools.pairwise(marks)]


@given(REQUESTS, st.lists(st.floats(0, 1), max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_the_bytes_are_cut_the_same_requests_are_handled(
    requests: list[tuple[bytes, bytes]], places: list[float]
) -> None:
    asyncio.run(_same_requests(requests, places))


async def _same_requests(requests: list[tuple[bytes, bytes]], places: list[float]) -> None:
    wire = b"".join(
        b"POST /%d HTTP/1.1\r\nhost: test\r\n%b" % (n, rest) for n, (rest, _) in enumerate(requests)
    )
    async with edge() as served:
        connection = await Connection.open(served.address)
        for part in cut(wire, places):
            connection.send(part)
            await asyncio.sleep(0)
        for n, (_, body) in enumerate(requests):
            assert (await connection.reply()).body == b"/%d %d" % (n, len(body))
        assert [(each.target, each.body) for each in served.handled] == [
            (f"/{n}", body) for n, (_, body) in enumerate(requests)
        ]
        await connection.aclose()


@given(REQUESTS, st.lists(st.floats(0, 1), max_size=8))
def test_a_part_never_reaches_into_the_next_request(
    requests: list[tuple[bytes, bytes]], places: list[float]
) -> None:
    for rest, body in requests:
        boundary = Boundary()
        head = b"POST / HTTP/1.1\r\n" + rest[: rest.index(b"\r\n\r\n") + 4 if rest != b"\r\n" else 2]
        message = b"POST / HTTP/1.1\r\n" + rest
        boundary.head()
        at = 0
        for part in cut(message + SMUGGLED, places):
            begin = 0
            while begin < len(part) and at < len(message):
                end = boundary.cut(part, begin)
                assert end > begin
                at += end - begin
                begin = end
                if at == len(head):
                    boundary.chunked() if b"chunked" in head else boundary.sized(len(body))
                    if not body and b"chunked" not in head:
                        break
                assert at <= len(message)
            if at == len(message):
                break
        assert at == len(message)


# -- one at a time -----------------------------------------------------------------------------------


async def test_requests_sent_ahead_are_handled_in_turn() -> None:
    async with edge() as served:
        served.go.clear()
        connection = await Connection.open(served.address)
        for n in range(100):
            connection.request("POST", f"/{n}", b"x" * n)
        await connection.head()
        assert served.begun == ["/0"]
        served.go.set()
        assert await connection.body() == b"/0 0"
        for n in range(1, 100):
            assert (await connection.reply()).body == b"/%d %d" % (n, n)
        assert served.begun == [f"/{n}" for n in range(100)]
        await connection.aclose()


@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_what_is_sent_ahead_is_bounded(more: int) -> None:
    async with edge(max_ahead=1000) as served:
        served.go.clear()
        connection = await Connection.open(served.address)
        connection.request("GET", "/0")
        await connection.head()
        ahead = b"POST /1 HTTP/1.1\r\nhost: test\r\ncontent-length: 925\r\n\r\n"
        connection.send(ahead + b"x" * (1000 - len(ahead) + more))
        if more > 0:
            assert await served.gone() == "/0"
            assert await connection.ended() == b""
        else:
            await _arrived(served, 1000 + more)
            served.go.set()
            assert await connection.body() == b"/0 0"
        assert served.begun[:1] == ["/0"]
        await connection.aclose()


async def _arrived(served: Edge, size: int) -> None:
    (connection,) = served.state.connections
    await until(lambda: len(connection._ahead) == size, lambda: len(connection._ahead))


async def test_a_fault_behind_a_stream_ends_the_connection_behind_the_stream() -> None:
    async with edge() as served:
        served.go.clear()
        connection = await Connection.open(served.address)
        connection.request("GET", "/0")
        connection.send(b"no HTTP\r\n\r\n")
        await connection.head()
        served.go.set()
        assert await connection.body() == b"/0 0"
        reply = await connection.reply()
        is_refusal(reply, 400, "invalid_argument")
        assert json.loads(reply.body)["retryable"] is False
        await connection.aclose()
