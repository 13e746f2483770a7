"""Input that means harm, or no sense: a typed error or a valid reply, and the server goes on as before."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from behaviour.connect import Frame, HttpNdjson
from behaviour.promises import promise
from behaviour.raw_http import Connection, Reply, tells_nothing
from behaviour.served import Connect, hosted
from penstock import Runtime
from penstock.errors import FAULTS, ErrorCode
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from server.peer import Peer

pytestmark = pytest.mark.anyio

SECRETS = ("Traceback", 'File "', "site-packages", ".py", "0x7", "127.0.0.1", "pydantic", "msgspec")
MAX_DEPTH = 64


def _runtime() -> Runtime:
    rt = Runtime(Manifest(default_command="anything"))

    @rt.command("anything")
    async def anything(v: Any):
        return v

    @rt.command("integer")
    async def integer(v: int):
        return v

    @rt.command("number")
    async def number(v: float):
        return v

    @rt.command("text")
    async def text(v: str):
        return v

    @rt.command("table")
    async def table(v: dict[str, int]):
        return v

    @rt.streaming_command("items")
    async def items(v: Any):
        yield v
        yield v

    return rt


@pytest.fixture
async def http(connect_http: Connect) -> AsyncIterator[HttpNdjson]:
    """Commands that take all sorts, behind HTTP."""
    async with connect_http(_runtime()) as way:
        yield way


def _typed(reply: Reply) -> Frame:
    """Check that a reply says what it is, and nothing of the inside; return its last frame."""
    frame: Frame = json.loads(reply.body.splitlines()[-1])
    assert frame["type"] == "task"
    if frame["status"] == "completed":
        assert reply.status == 200
    else:
        assert frame["status"] == "error"
        assert reply.status in (FAULTS[ErrorCode(frame["code"])].http, 200)
        assert frame["code"] != "internal"
        assert len(frame["error"]) < 3000
        for secret in SECRETS:
            assert secret not in frame["error"]
    return frame


async def _alive(http: HttpNdjson) -> None:
    assert (await http.ask("integer", {"v": 1}))["data"] == 1


VALUES = {
    "5,000 digits": b"9" * 5000,
    "4,300 digits": b"9" * 4300,
    "past 64 bits": b"18446744073709551616",
    "below 64 bits": b"-9223372036854775809",
    "a great exponent": b"1e400",
    "a small exponent": b"1e-400",
    "many decimals": b"1." + b"1" * 5000,
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "-0": b"-0",
    "a zero before": b"01",
    "a plus": b"+1",
    "hexadecimal": b"0x1",
    "a lone high surrogate": b'"\\ud800"',
    "a lone low surrogate": b'"\\udc00x"',
    "surrogates turned": b'"\\udc00\\ud800"',
    "a lone surrogate in a key": b'{"\\ud800": 1}',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "bytes that are no UTF-8": b'"\xff"',
    "UTF-8 that is too long": b'"\xc0\xaf"',
    "a NUL": b'"\\u0000"',
    "a NUL in a key": b'{"\\u0000": 1}',
    "a control character": b'"\x01"',
    "an unknown escape": b'"\\x41"',
    "keys twice": b'{"a": 1, "a": 2}',
    "a huge key": b'{"' + b"k" * 1_000_000 + b'": 1}',
    "many keys": b"{" + b",".join(b'"%d": 1' % n for n in range(100_000)) + b"}",
    "a huge text": b'"' + b"x" * 5_000_000 + b'"',
    "a comment": b"/* */1",
    "a trailing comma": b"[1,]",
    "single quotes": b"'a'",
    "Python": b"True",
    "nothing": b"",
    "null": b"null",
    "an empty list": b"[]",
    "the name of an attribute": b'{"__class__": 1, "__proto__": 2}',
}


@promise("P25", "P39")
@pytest.mark.parametrize("command", ["anything", "integer", "number", "text", "table", "items"])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_any_value_is_taken_or_refused_by_name(http: HttpNdjson, command: str, value: bytes) -> None:
    for stream in (b"false", b"true"):
        body = b'{"command": "%b", "input": {"v": %b}, "is_stream": %b}' % (command.encode(), value, stream)
        frame = _typed(await http.request("POST", "/v2/execute", body))
        assert frame["status"] == "completed" or frame["code"] in ("invalid_argument", "invalid_output")
    await _alive(http)


@promise("P25")
async def test_of_keys_that_stand_twice_the_last_counts(http: HttpNdjson) -> None:
    body = b'{"command": "text", "command": "integer", "input": {"v": "x"}, "input": {"v": 1, "v": 2}}'
    assert _typed(await http.request("POST", "/v2/execute", body))["data"] == 2


BODIES = {
    "a BOM": b'\xef\xbb\xbf{"input": {"v": 1}}',
    "UTF-16": '{"input": {"v": 1}}'.encode("utf-16"),
    "UTF-32": '{"input": {"v": 1}}'.encode("utf-32"),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "text": b'"predict"',
    "true": b"true",
    "a list": b"[]",
    "an empty object": b"{}",
    "blanks": b" \r\n\t",
    "NULs": b"\0" * 100,
    "two": b"{}{}",
    "lines": b"{}\n{}",
    "open": b'{"input": {"v": "',
    "an input of another kind": b'{"input": 1}',
    "no input": b'{"input": null}',
    "a number for a name": b'{"command": 1, "workflow_id": 1, "task_id": 1}',
    "a timeout past all numbers": b'{"input": {"v": 1}, "timeout": 1e999}',
    "a timeout of many digits": b'{"input": {"v": 1}, "timeout": ' + b"9" * 5000 + b"}",
    "a negative timeout": b'{"input": {"v": 1}, "timeout": -1}',
    "no time": b'{"input": {"v": 1}, "timeout": 0}',
    "a timeout that is NaN": b'{"input": {"v": 1}, "timeout": NaN}',
    "a grace past all numbers": b'{"input": {"v": 1}, "on_disconnect": {"grace_s": 1e308}}',
    "an unknown config": b'{"input": {"v": 1}, "output_config": []}',
}


@promise("P25", "P39")
@pytest.mark.parametrize("path", ["/predict", "/task", "/v2/execute", "/v2/workflow"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_any_body_is_refused_by_name(http: HttpNdjson, path: str, body: bytes) -> None:
    frame = _typed(await http.request("POST", path, body))
    assert frame["status"] == "error"
    assert frame["code"] in ("invalid_argument", "not_found")
    assert not http.dispatcher.calls
    await _alive(http)


@promise("P25", "P26")
@pytest.mark.parametrize(
    ("levels", "deep"), [(MAX_DEPTH - 1, False), (MAX_DEPTH, False), (MAX_DEPTH + 1, True)]
)
@pytest.mark.parametrize("path", ["/predict", "/v2/execute"])
async def test_the_limit_of_the_depth_is_exact(http: HttpNdjson, path: str, levels: int, deep: bool) -> None:
    value = b"[" * (levels - 2) + b"]" * (levels - 2)
    body = b'{"command": "anything", "input": {"v": %b}}' % value
    reply = await http.request("POST", path, body)
    frame = _typed(reply)
    if deep:
        assert (reply.status, frame["code"]) == (413, "too_large")
        assert str(MAX_DEPTH) in frame["error"]
        assert not http.dispatcher.calls
    else:
        assert frame["status"] == "completed"


@promise("P25", "P26")
@pytest.mark.parametrize("path", ["/predict", "/v2/execute", "/v2/workflow"])
@pytest.mark.parametrize(
    "bomb",
    [b"[" * 1_000_000, b'{"a":' * 1_000_000, b"[" * 500_000 + b"]" * 500_000, b'{"input":' + b"[{" * 99_999],
)
async def test_a_bomb_is_too_deep(http: HttpNdjson, path: str, bomb: bytes) -> None:
    reply = await http.request("POST", path, bomb)
    assert (reply.status, _typed(reply)["code"]) == (413, "too_large")
    await _alive(http)


MANY = 200_000
LARGE = {
    "a huge command": b'{"command": "%b"}' % (b"integer" * MANY),
    "a huge workflow": b'{"workflow_id": "%b"}' % (b"x" * MANY),
    "a huge name": b'{"command": "integer", "input": {"%b": 1}}' % (b"v" * MANY),
    "many names": b'{"command": "integer", "input": {%b}}' % b",".join(b'"v%d": 1' % n for n in range(MANY)),
    "many faults": b'{"command": "table", "input": {"v": {%b}}}'
    % b",".join(b'"%d": "x"' % n for n in range(MANY)),
    "some faults": b'{"command": "table", "input": {"v": {%b}}}'
    % b",".join(b'"%d": "x"' % n for n in range(100)),
    "a huge key": b'{"command": "table", "input": {"v": {"%b": "x"}}}' % (b"k" * MANY),
    "a huge id": b'{"command": "integer", "task_id": "%b", "input": {"v": 1}}' % (b"x" * MANY),
}


@promise("P25")
@pytest.mark.parametrize("path", ["/v2/execute", "/v2/workflow"])
@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
async def test_a_large_fault_gets_a_small_answer(http: HttpNdjson, path: str, body: bytes) -> None:
    reply = await http.request("POST", path, body)
    frame = _typed(reply)
    assert (frame["status"], reply.status) in (("error", 400), ("error", 404))
    assert len(reply.body) < 5000
    assert len(frame.get("details", ())) <= 20


TIMEOUTS = [
    "nan",
    "inf",
    "-inf",
    "Infinity",
    "-1",
    "0",
    "1e999",
    "9" * 400,
    "1_0",
    "",
    " ",
    "1s",
    "0x1",
    "1,0",
    "604801",
]


@promise("P25")
@pytest.mark.parametrize("timeout", TIMEOUTS)
async def test_a_timeout_that_is_none_is_refused(http: HttpNdjson, timeout: str) -> None:
    body = b'{"command": "integer", "input": {"v": 1}}'
    reply = await http.request("POST", "/v2/execute", body, {"x-request-timeout": timeout})
    assert (reply.status, _typed(reply)["code"]) == (400, "invalid_argument")
    assert not http.dispatcher.calls


@promise("P25")
@pytest.mark.parametrize("timeout", ["1", "0.5", "604800", "10.000"])
async def test_a_timeout_is_a_number_of_seconds(http: HttpNdjson, timeout: str) -> None:
    body = b'{"command": "integer", "input": {"v": 1}}'
    reply = await http.request("POST", "/v2/execute", body, {"x-request-timeout": timeout})
    assert _typed(reply)["status"] == "completed"


IDS = [
    "..",
    "../x",
    "..%2fx",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%2f",
    "x%2fy",
    "%00",
    "x%00",
    "%ff",
    "%c3%a9",
    "%u0041",
    "%",
    "%zz",
    "x%0d%0aset-cookie:a",
    "x%20y",
    "*",
    "'",
    "%22%3e%3cscript%3e",
    "a" * 129,
    "a" * 5000,
    "-1",
    "null",
    "..\\x",
    "x;y",
    "%252f",
]


@promise("P25", "P35", "P39")
@pytest.mark.parametrize("id", IDS)
async def test_an_id_in_a_path_leads_nowhere(http: HttpNdjson, id: str) -> None:
    for method, path in (
        ("GET", f"/tasks/{id}"),
        ("DELETE", f"/tasks/{id}"),
        ("POST", f"/tasks/{id}/cancel"),
        ("GET", f"/tasks/{id}/events"),
    ):
        reply = await http.request(method, path)
        assert (reply.status, _typed(reply)["code"]) == (404, "not_found")
        assert set(reply.headers) == {"date", "content-type", "content-length", "x-request-id"}
    await _alive(http)


PATHS = [
    "//",
    "/../../etc/passwd",
    "/v2/../health",
    "/v2//execute",
    "/HEALTH",
    "/health/",
    "/health%00",
    "/%2fhealth",
]


@promise("P25", "P35")
@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_is_none_leads_nowhere(http: HttpNdjson, path: str) -> None:
    reply = await http.request("GET", path)
    assert (reply.status, _typed(reply)["code"]) == (404, "not_found")


@promise("P25")
@pytest.mark.parametrize(
    "after", ["x", "", "1.5", "1e3", "0x0", "--1", "%00", "%ff", "9" * 15, "9" * 100, "1_0", "-2"]
)
async def test_a_cursor_that_is_none_is_refused(http: HttpNdjson, after: str) -> None:
    await http.ask("integer", {"v": 1}, task_id="one")
    reply = await http.request("GET", f"/tasks/one/events?after={after}")
    assert (reply.status, _typed(reply)["code"]) == (400, "invalid_argument")


@promise("P25")
@pytest.mark.parametrize(
    "query", ["", "after", "&&&", "=", "%", "x=%ff", "a=1&a=2&after=0", "after=0;x", "?" * 100]
)
async def test_junk_in_a_query_does_no_harm(http: HttpNdjson, query: str) -> None:
    await http.ask("integer", {"v": 1}, task_id="one")
    for path in ("/health", "/tasks", "/tasks/one", "/v2/commands"):
        assert (await http.request("GET", f"{path}?{query}")).status == 200
    assert _typed(await http.request("GET", f"/tasks/one/events?{query}"))["status"] in ("completed", "error")


HEADERS = {
    "charset": ("content-type", "application/json; charset=utf-16", 200),
    "a type of junk": ("content-type", ";;;", 415),
    "two types in one": ("content-type", "application/json, text/plain", 415),
    "gzip": ("content-encoding", "gzip", 415),
    "identity": ("content-encoding", "identity", 200),
    "a chain": ("content-encoding", "identity, gzip", 415),
    "accept of junk": ("accept", "\xff;q=x", 200),
    "an id of controls": ("x-request-id", "\x9b31m\xff", 200),
    "a cursor of junk": ("last-event-id", "\xff", 200),
    "expect of junk": ("expect", "magic", 200),
    "a range": ("range", "bytes=0-0", 200),
    "another method": ("x-http-method-override", "DELETE", 200),
    "trace of junk": ("traceparent", "\xff" * 1000, 200),
}


@promise("P25", "P39")
@pytest.mark.parametrize(("name", "value", "status"), HEADERS.values(), ids=HEADERS)
async def test_headers_that_make_no_sense_do_no_harm(
    http: HttpNdjson, name: str, value: str, status: int
) -> None:
    body = b'{"command": "integer", "input": {"v": 1}}'
    reply = await http.request("POST", "/v2/execute", body, {name: value})
    assert reply.status == status
    _typed(reply)
    assert all(" " <= letter <= "~" for letter in reply.headers["x-request-id"])


@promise("P25")
@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "PROPFIND", "SEARCH"])
@pytest.mark.parametrize("path", ["/health", "/v2/execute", "/tasks/x"])
async def test_a_method_that_is_not_there_is_refused(http: HttpNdjson, method: str, path: str) -> None:
    reply = await http.request(method, path)
    assert (reply.status, _typed(reply)["code"]) == (405, "method_not_allowed")


@promise("P25", "P39")
@pytest.mark.parametrize(
    "junk",
    [
        b"\0",
        b"\r\n\r\n\r\n\r\nx\r\n\r\n",
        b"GET",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"SSH-2.0-x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"\xff" * 100,
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        b"POST /v2/execute HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_http_is_answered_in_our_own_form(http: HttpNdjson, junk: bytes) -> None:
    connection = await Connection.open(http.address)
    connection.send(junk + b"\r\n\r\n\n\n")
    reply = await connection.reply()
    frame = _typed(reply)
    assert (reply.status, frame["code"]) == (400, "invalid_argument")
    assert reply.headers["connection"] == "close"
    assert await connection.ended() == b""
    await connection.aclose()
    await _alive(http)


@promise("P26")
@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_the_limit_of_a_head_is_exact(http: HttpNdjson, more: int) -> None:
    head = b"GET /health HTTP/1.1\r\nhost: test\r\nx: %b\r\n\r\n"
    connection = await Connection.open(http.address)
    connection.send(head % (b"y" * (32 * 1024 + more - len(head) + 2)))
    reply = await connection.reply()
    if more > 0:
        assert (reply.status, _typed(reply)["code"]) == (431, "headers_too_large")
        assert await connection.ended() == b""
    else:
        assert reply.status == 200
    await connection.aclose()


@promise("P26")
@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_the_limit_of_a_uri_is_exact(http: HttpNdjson, more: int) -> None:
    connection = await Connection.open(http.address)
    connection.request("GET", "/health?" + "x" * (8 * 1024 + more - len("/health?")))
    reply = await connection.reply()
    if more > 0:
        assert (reply.status, _typed(reply)["code"]) == (414, "uri_too_long")
        assert await connection.ended() == b""
    else:
        assert reply.status == 200
    await connection.aclose()


@promise("P26")
@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_the_limit_of_a_message_is_exact(more: int) -> None:
    limit = 1000
    head, tail = b'{"type": "command", "command": "text", "input": {"v": "', b'"}}'
    message = head + b"x" * (limit + more - len(head + tail)) + tail
    async with hosted(App(_runtime()), max_body=limit) as (_, address), Peer.open(address) as peer:
        peer.text(message)
        if more > 0:
            assert await peer.ended() == FAULTS[ErrorCode.TOO_LARGE].ws_close
        else:
            assert (await peer.receive())["status"] == "completed"


@promise("P25", "P26")
@pytest.mark.parametrize(("levels", "deep"), [(MAX_DEPTH, False), (MAX_DEPTH + 1, True)])
async def test_the_limit_of_a_messages_depth_is_exact(http: HttpNdjson, levels: int, deep: bool) -> None:
    value = b"[" * (levels - 2) + b"]" * (levels - 2)
    async with Peer.open(http.address) as peer:
        peer.text(b'{"type": "command", "command": "anything", "input": {"v": %b}}' % value)
        frame = await peer.receive()
        assert (frame["status"], frame.get("code")) == (
            ("error", "too_large") if deep else ("completed", None)
        )
        assert await peer.until_pong() == []


@promise("P25", "P39")
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_any_value_in_a_message_is_taken_or_refused_by_name(http: HttpNdjson, value: bytes) -> None:
    async with Peer.open(http.address) as peer:
        peer.text(b'{"type": "command", "command": "anything", "input": {"v": %b}}' % value)
        if not _is_utf8(value):
            assert await peer.ended() == 1007  # not even a message
            return
        frame = await peer.receive()
        assert frame["status"] == "completed" or frame["code"] in ("invalid_argument", "invalid_output")
        tells_nothing(json.dumps(frame).encode())
    await _alive(http)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
