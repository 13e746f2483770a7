"""Bad input: refused before anything runs, typed, and with what to do about it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from behaviour.connect import Frame, HttpNdjson, Refused, Way
from behaviour.promises import promise
from behaviour.raw_http import Connection, Reply
from behaviour.seam import Watched
from behaviour.served import Connect, hosted
from penstock import Runtime
from penstock.runtime.app import App
from penstock.testing.zoo import model_zoo

pytestmark = pytest.mark.anyio

MAX_BODY = 1000


class Point(BaseModel):
    x: int
    y: int = 0


def _runtime() -> Runtime:
    rt = Runtime()

    @rt.command("predict")
    async def predict(prompt: str, max_tokens: int = 10, at: Point | None = None):
        return {"prompt": prompt, "max_tokens": max_tokens}

    return rt


@pytest.fixture
async def way(connect: Connect) -> AsyncIterator[Way]:
    """One command behind each way in."""
    async with connect(_runtime()) as way:
        yield way


@pytest.fixture
async def http(connect_http: Connect) -> AsyncIterator[HttpNdjson]:
    """One command behind HTTP."""
    async with connect_http(_runtime()) as way:
        yield way


async def _refusal(way: Way, command: str, input: Frame, **more: Any) -> Refused:
    before = len(way.dispatcher.calls)
    with pytest.raises(Refused) as refused:
        await way.open(command, input, **more)
    assert len(way.dispatcher.calls) == before, "it was refused, and yet a call was opened"
    return refused.value


@promise("P25")
async def test_an_unknown_command_is_not_found_and_the_nearest_is_named(way: Way) -> None:
    refused = await _refusal(way, "predcit", {"prompt": "x"})
    assert (refused.status, refused.code) == (404, "not_found")
    assert "did you mean predict?" in refused.error


@promise("P25")
async def test_an_unknown_field_is_refused_and_the_nearest_is_named(way: Way) -> None:
    refused = await _refusal(way, "predict", {"prompt": "x", "max_token": 3})
    assert (refused.status, refused.code) == (400, "invalid_argument")
    assert "did you mean max_tokens?" in refused.error
    assert refused.envelope["details"] == [{"path": ["input", "max_token"], "reason": "extra_forbidden"}]


@promise("P25")
@pytest.mark.parametrize(
    ("input", "paths"),
    [
        ({}, [["input", "prompt"]]),
        ({"prompt": 3}, [["input", "prompt"]]),
        ({"prompt": "x", "max_tokens": "many"}, [["input", "max_tokens"]]),
        ({"prompt": "x", "max_tokens": None}, [["input", "max_tokens"]]),
        ({"prompt": "x", "at": {"y": 1}}, [["input", "at", "x"]]),
        ({"max_tokens": []}, [["input", "prompt"], ["input", "max_tokens"]]),
    ],
)
async def test_every_fault_of_an_input_is_named(way: Way, input: Frame, paths: list[list[str]]) -> None:
    refused = await _refusal(way, "predict", input)
    assert (refused.status, refused.code) == (400, "invalid_argument")
    assert [detail["path"] for detail in refused.envelope["details"]] == paths
    for path in paths:
        assert path[-1] in refused.error


@promise("P35")
@pytest.mark.parametrize(
    "task_id", ["", "a/b", "../x", "a b", "-a", ".a", ":a", "a\n", "a\0", "ü", "a" * 129, "%2f"]
)
async def test_a_task_id_that_is_none_is_refused(http: HttpNdjson, task_id: str) -> None:
    refused = await _refusal(http, "predict", {"prompt": "x"}, task_id=task_id)
    assert (refused.status, refused.code) == (400, "invalid_argument")
    assert refused.envelope["details"][0]["path"] == ["task_id"]


@promise("P35")
@pytest.mark.parametrize("task_id", ["a", "_", "0", "a.b:c-d_e", "a" * 128])
async def test_a_task_id_that_is_one_is_taken(way: Way, task_id: str) -> None:
    frame = await way.ask("predict", {"prompt": "x"}, task_id=task_id)
    assert (frame["status"], frame["task_id"]) == ("completed", task_id)


@promise("P25")
@pytest.mark.parametrize("policy", ["stay", {"grace_s": "x"}, {"grace_s": -1}, {"grace_s": 1, "x": 1}, 3, []])
async def test_an_unknown_disconnect_policy_is_refused(http: HttpNdjson, policy: object) -> None:
    refused = await _refusal(http, "predict", {"prompt": "x"}, on_disconnect=policy)
    assert (refused.status, refused.code) == (400, "invalid_argument")


BAD_BODIES = {
    "nothing": b"",
    "no json": b"prompt=x",
    "cut short": b'{"command": "predict", "input": {"prompt": "x"',
    "more behind": b'{"command": "predict", "input": {"prompt": "x"}} {}',
    "an array": b'[{"command": "predict"}]',
    "a number": b"3",
    "null": b"null",
    "bad utf-8": b'{"command": "predict", "input": {"prompt": "\xff"}}',
    "a lone surrogate": b'{"command": "predict", "input": {"prompt": "\\ud800"}}',
    "NaN": b'{"command": "predict", "input": {"prompt": "x", "max_tokens": NaN}}',
    "an input that is an array": b'{"command": "predict", "input": []}',
    "an input that is text": b'{"command": "predict", "input": "x"}',
    "no command": b'{"input": {"prompt": "x"}}',
    "a command that is a number": b'{"command": 3, "input": {"prompt": "x"}}',
    "a stream that is text": b'{"command": "predict", "input": {"prompt": "x"}, "is_stream": "yes"}',
    "a huge number": b'{"command": "predict", "input": {"prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}}",
}


@promise("P25", "P39")
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_body_that_is_no_request_is_refused(http: HttpNdjson, body: bytes) -> None:
    reply = await http.request("POST", "/v2/execute", body)
    _is_refusal(reply, 400, "invalid_argument")
    assert not http.dispatcher.calls
    assert (await http.ask("predict", {"prompt": "x"}))["status"] == "completed"


@promise("P25")
@pytest.mark.parametrize("path", ["/predict", "/task", "/v2/execute", "/v2/workflow"])
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"]
)
async def test_a_body_of_another_type_is_refused(http: HttpNdjson, path: str, kind: str) -> None:
    body = b'{"command": "predict", "input": {"prompt": "x"}}'
    reply = await http.request("POST", path, body, {"content-type": kind})
    _is_refusal(reply, 415, "unsupported_media_type")
    assert "application/json" in json.loads(reply.body)["error"]


@promise("P25")
async def test_a_compressed_body_is_refused(http: HttpNdjson) -> None:
    for encoding in ("gzip", "br", "deflate"):
        reply = await http.request("POST", "/v2/execute", b"{}", {"content-encoding": encoding})
        _is_refusal(reply, 415, "unsupported_media_type")


@promise("P25")
async def test_json_with_parameters_and_json_of_a_kind_are_json(http: HttpNdjson) -> None:
    body = b'{"command": "predict", "input": {"prompt": "x"}}'
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"):
        assert (await http.request("POST", "/v2/execute", body, {"content-type": kind})).status == 200


@promise("P25")
async def test_keys_beside_the_input_that_nobody_knows_are_ignored(http: HttpNdjson) -> None:
    body = b'{"command": "predict", "input": {"prompt": "x"}, "model": "gpt", "stream": true}'
    assert (await http.request("POST", "/v2/execute", body)).status == 200


def _request_of(size: int) -> bytes:
    frame = b'{"command": "predict", "input": {"prompt": "%b"}}'
    return frame % (b"x" * (size - len(frame) + 2))


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 300):
        piece = body[start : start + 300]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


@promise("P26")
@pytest.mark.parametrize(("size", "status"), [(MAX_BODY - 1, 200), (MAX_BODY, 200), (MAX_BODY + 1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_limit_of_a_body_is_exact(size: int, status: int, chunked: bool) -> None:
    dispatcher = Watched(App(_runtime()))
    async with hosted(dispatcher, max_body=MAX_BODY) as (_, address):
        connection = await Connection.open(address)
        if chunked:
            headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
            connection.request("POST", "/v2/execute", headers=headers)
            connection.send(b"".join(_chunks(_request_of(size))))
        else:
            connection.request("POST", "/v2/execute", _request_of(size))
        reply = await connection.reply()
        assert reply.status == status
        assert len(dispatcher.calls) == (1 if status == 200 else 0)
        if status == 413:
            _is_refusal(reply, 413, "too_large")
            assert str(MAX_BODY) in json.loads(reply.body)["error"]
        await connection.aclose()


@promise("P26")
async def test_a_body_said_to_be_too_large_is_not_waited_for() -> None:
    dispatcher = Watched(App(_runtime()))
    async with hosted(dispatcher, max_body=MAX_BODY) as (_, address):
        connection = await Connection.open(address)
        headers = {"content-type": "application/json", "content-length": "100000000000"}
        connection.request("POST", "/v2/execute", headers=headers)
        _is_refusal(await connection.reply(), 413, "too_large")
        await connection.aclose()


@promise("P25", "P28")
async def test_a_request_that_is_never_completed_runs_nothing(http: HttpNdjson) -> None:
    for how in ("fin", "rst", "half"):
        connection = await Connection.open(http.address)
        headers = {"content-type": "application/json", "content-length": "100"}
        connection.request("POST", "/v2/execute", headers=headers)
        connection.send(b'{"command": "predict", ')
        await connection.leave(how)
        await connection.aclose()
    assert (await http.ask("predict", {"prompt": "x"}))["status"] == "completed"
    assert len(http.dispatcher.calls) == 1


@promise("P25", "P39")
@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nowhere", 404, "not_found", None),
        ("POST", "/nowhere", 404, "not_found", None),
        ("POST", "/", 405, "method_not_allowed", "GET"),
        ("GET", "/tasks/", 404, "not_found", None),
        ("GET", "/tasks/x/y", 404, "not_found", None),
        ("GET", "/tasks/..%2f..%2fetc%2fpasswd", 404, "not_found", None),
        ("GET", "/tasks/%00", 404, "not_found", None),
        ("GET", "/v2/execute", 405, "method_not_allowed", "POST"),
        ("HEAD", "/v2/execute", 405, "method_not_allowed", "POST"),
        ("PUT", "/tasks/x", 405, "method_not_allowed", "DELETE, GET"),
        ("POST", "/health", 405, "method_not_allowed", "GET"),
        ("GET", "/tasks/x/cancel", 405, "method_not_allowed", "POST"),
        ("OPTIONS", "/predict", 405, "method_not_allowed", "POST"),
        ("HEAD", "/nowhere", 404, "not_found", None),
    ],
)
async def test_what_is_not_there_is_refused_in_the_one_shape(
    http: HttpNdjson, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    reply = await http.request(method, path)
    assert (reply.status, reply.headers.get("allow")) == (status, allow)
    if method == "HEAD":
        assert not reply.body
    else:
        _is_refusal(reply, status, code)


@promise("P25")
@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/startupz", "/v2/commands", "/tasks"])
async def test_head_is_get_without_a_body(http: HttpNdjson, path: str) -> None:
    head, get = await http.request("HEAD", path), await http.request("GET", path)
    assert (head.status, get.status) == (200, 200)
    assert not head.body
    assert json.loads(get.body)
    assert head.headers["content-type"] == get.headers["content-type"] == "application/json"


@promise("P25")
async def test_head_of_a_stream_does_not_wait_for_it(connect_http: Connect) -> None:
    zoo = model_zoo()
    async with connect_http(zoo.runtime) as way:
        call = await way.open("silent", on_disconnect="continue")
        await zoo.journal.wait("started")
        reply = await way.request("HEAD", f"/tasks/{call.request_id}/events")
        assert (reply.status, reply.headers["content-type"], reply.body) == (200, "application/x-ndjson", b"")
        await call.drop()
        await way.request("HEAD", f"/tasks/{call.request_id}/events")
        assert (await way.record(call.request_id))["status"] == "accepted"


def _is_refusal(reply: Reply, status: int, code: str) -> None:
    """Check the one shape of an error that belongs to no call."""
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    envelope = json.loads(reply.body)
    assert list(envelope)[:6] == ["type", "status", "error", "timestamp", "code", "retryable"]
    assert (envelope["type"], envelope["status"], envelope["code"]) == ("task", "error", code)
    assert envelope["error"]
    for secret in ("Traceback", 'File "', "/site-packages", "0x"):
        assert secret not in envelope["error"]
