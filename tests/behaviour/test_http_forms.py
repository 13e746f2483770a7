"""How calls stand in HTTP: the samples of the protocol page, key by key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from behaviour.connect import Frame, HttpNdjson
from behaviour.promises import promise
from behaviour.raw_http import Reply
from behaviour.served import Connect
from penstock import CallError, CommandError, Runtime
from penstock.runtime.manifest import Manifest

pytestmark = pytest.mark.anyio

STATUSES = {
    "completes": (200, "completed", None),
    "command_failed": (500, "error", "command_failed"),
    "says_why": (500, "error", "command_failed"),
    "invalid_output": (500, "error", "invalid_output"),
    "resource_exhausted": (429, "error", "resource_exhausted"),
    "unavailable": (503, "error", "unavailable"),
    "deadline_exceeded": (504, "error", "deadline_exceeded"),
    "upstream_failed": (502, "error", "upstream_failed"),
    "not_implemented": (501, "error", "not_implemented"),
}


def _runtime() -> Runtime:
    rt = Runtime(Manifest(default_command="predict"))

    @rt.streaming_command("predict")
    async def predict(prompt: str):
        yield {"text": "Hello", "chunk": "Hello", "finished": False}
        yield {"text": "Hello world", "chunk": " world", "finished": True}

    @rt.command("add")
    async def add(a: int, b: int):
        """Add two numbers."""
        return a + b

    @rt.command("end")
    async def end(how: str):
        if how == "says_why":
            raise CommandError("the story is over")
        if how == "command_failed":
            raise ValueError("a secret of the author's")
        if how == "invalid_output":
            return {"n": float("inf")}
        if how in STATUSES and how != "completes":
            raise CallError(f"as asked: {how}", how, retry_after_s=7)
        return {"how": how}

    return rt


@pytest.fixture
async def http(connect_http: Connect) -> AsyncIterator[HttpNdjson]:
    """A few commands behind HTTP."""
    async with connect_http(_runtime()) as way:
        yield way


async def _post(http: HttpNdjson, path: str, body: Frame, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.request("POST", path, json.dumps(body).encode(), named)


def _frames(reply: Reply) -> list[Frame]:
    return [json.loads(line) for line in reply.body.splitlines()]


@promise("W1")
async def test_a_v2_stream_stands_as_on_the_page(http: HttpNdjson) -> None:
    body = {
        "command": "predict",
        "input": {"prompt": "x"},
        "output_config": {},
        "is_stream": True,
        "task_id": "predict_123",
    }
    reply = await _post(http, "/v2/execute", body)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    assert reply.body.endswith(b"\n")
    page = ["type", "status", "timestamp", "version", "command", "task_id", "seq"]
    with_data = ["type", "status", "data", "timestamp", "version", "command", "task_id", "seq"]
    frames = _frames(reply)
    assert [list(frame) for frame in frames] == [
        [*page, "request_id"],
        with_data,
        with_data,
        [*page, "metrics"],
    ]
    assert [frame["seq"] for frame in frames] == [0, 1, 2, 3]
    assert {(frame["type"], frame["version"], frame["command"], frame["task_id"]) for frame in frames} == {
        ("task", "v2", "predict", "predict_123")
    }
    assert frames[2]["data"] == {"text": "Hello world", "chunk": " world", "finished": True}


@promise("W1")
@pytest.mark.parametrize("path", ["/predict", "/task"])
async def test_a_v1_stream_carries_neither_version_nor_command(http: HttpNdjson, path: str) -> None:
    reply = await _post(http, path, {"input": {"prompt": "x"}, "is_stream": True, "command": "add"})
    frames = _frames(reply)
    assert [frame["status"] for frame in frames] == ["accepted", "streaming", "streaming", "completed"]
    for frame in frames:
        assert not {"version", "command"} & set(frame)
        assert list(frame)[:2] == ["type", "status"]
    assert list(frames[1]) == ["type", "status", "data", "timestamp", "task_id", "seq"]


@promise("W1")
async def test_an_answer_stands_as_on_the_page(http: HttpNdjson) -> None:
    reply = await _post(http, "/predict", {"input": {"prompt": "x"}})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    frame = json.loads(reply.body)
    assert list(frame)[:4] == ["type", "status", "data", "timestamp"]
    assert frame["data"] == {"text": "Hello world", "chunk": " world", "finished": True}
    assert not {"version", "command"} & set(frame)


@promise("W1")
async def test_an_error_stands_as_on_the_page(http: HttpNdjson) -> None:
    body = {"command": "end", "input": {"how": "command_failed"}, "is_stream": True}
    last = _frames(await _post(http, "/v2/execute", body))[-1]
    page = ["type", "status", "error", "timestamp", "version", "command"]
    assert list(last) == [*page, "task_id", "seq", "code", "retryable"]
    v1 = json.loads((await _post(http, "/predict", {"input": {}})).body)
    assert list(v1)[:4] == ["type", "status", "error", "timestamp"]


@promise("W2")
@pytest.mark.parametrize("how", STATUSES)
async def test_an_answer_has_the_status_of_its_outcome(http: HttpNdjson, how: str) -> None:
    status, outcome, code = STATUSES[how]
    reply = await _post(http, "/v2/execute", {"command": "end", "input": {"how": how}})
    frame = json.loads(reply.body)
    assert (reply.status, frame["status"], frame.get("code")) == (status, outcome, code)
    if code and code not in ("command_failed", "invalid_output"):
        assert (reply.headers["retry-after"], frame["retry_after_s"]) == ("7", 7)


@promise("W2")
@pytest.mark.parametrize("how", STATUSES)
async def test_a_stream_is_200_whatever_comes_of_it(http: HttpNdjson, how: str) -> None:
    _, outcome, code = STATUSES[how]
    body = {"command": "end", "input": {"how": how}, "is_stream": True}
    reply = await _post(http, "/v2/execute", body)
    frames = _frames(reply)
    assert reply.status == 200
    assert [frame["status"] for frame in frames] == ["accepted", outcome]
    assert frames[-1].get("code") == code


@promise("W2")
async def test_a_cancelled_answer_is_499(connect_http: Connect) -> None:
    rt = Runtime()
    started = asyncio.Event()

    @rt.command("wait")
    async def wait():
        started.set()
        await asyncio.Event().wait()

    async with connect_http(rt) as way:
        call = await way.open("wait", is_stream=False)
        await asyncio.wait_for(started.wait(), 5)
        await call.cancel()
        assert (await call.last())["status"] == "cancelled"
        assert call.reply.status == 499


@promise("P39")
async def test_an_authors_exception_is_named_but_not_told(http: HttpNdjson) -> None:
    reply = await _post(http, "/v2/execute", {"command": "end", "input": {"how": "command_failed"}})
    assert json.loads(reply.body)["error"] == "end failed (ValueError)"
    assert b"secret" not in reply.body
    said = await _post(http, "/v2/execute", {"command": "end", "input": {"how": "says_why"}})
    assert json.loads(said.body)["error"] == "the story is over"


@promise("W2")
@pytest.mark.parametrize(
    ("accept", "is_stream", "kind"),
    [
        (None, None, "application/json"),
        ("*/*", None, "application/json"),
        ("application/json", None, "application/json"),
        ("text/event-stream", None, "text/event-stream"),
        ("application/x-ndjson", None, "application/x-ndjson"),
        ("text/event-stream", True, "text/event-stream"),
        ("text/event-stream", False, "application/json"),
        ("application/json", True, "application/x-ndjson"),
        (None, True, "application/x-ndjson"),
        (None, False, "application/json"),
    ],
)
async def test_who_asks_for_a_stream_gets_one(
    http: HttpNdjson, accept: str | None, is_stream: bool | None, kind: str
) -> None:
    body = {"command": "predict", "input": {"prompt": "x"}, "is_stream": is_stream}
    headers = {} if accept is None else {"accept": accept}
    reply = await _post(http, "/v2/execute", body, **headers)
    assert (reply.status, reply.headers["content-type"]) == (200, kind)
    if kind != "application/json":
        assert (reply.headers["cache-control"], reply.headers["x-accel-buffering"]) == ("no-cache", "no")


@promise("W1", "P3")
async def test_server_sent_events_are_the_same_bytes_with_their_numbers(http: HttpNdjson) -> None:
    body = {"command": "predict", "input": {"prompt": "x"}, "task_id": "one"}
    reply = await _post(http, "/v2/execute", body, accept="text/event-stream")
    lines = (await http.request("GET", "/tasks/one/events")).body.splitlines()
    assert len(lines) == 4
    expected = b"".join(b"id: %d\ndata: %b\n\n" % (seq, line) for seq, line in enumerate(lines))
    assert reply.body == expected


@promise("W1")
async def test_a_command_that_does_not_stream_answers_a_stream_with_two_frames(http: HttpNdjson) -> None:
    body = {"command": "add", "input": {"a": 1, "b": 2}, "is_stream": True}
    frames = _frames(await _post(http, "/v2/execute", body))
    assert [frame["status"] for frame in frames] == ["accepted", "completed"]
    assert frames[1]["data"] == 3


@promise("W3")
async def test_the_correlation_id_is_echoed(http: HttpNdjson) -> None:
    for path, body in (("/v2/execute", {"command": "add", "input": {"a": 1, "b": 2}}), ("/predict", {})):
        reply = await _post(http, path, body, x_request_id="my id: 7")
        assert reply.headers["x-request-id"] == "my id: 7"
    refused = await http.request("GET", "/nowhere", headers={"x-request-id": "a"})
    assert refused.headers["x-request-id"] == "a"


@promise("W3")
async def test_a_correlation_id_is_capped_and_printable(http: HttpNdjson) -> None:
    for given, echoed in (("x" * 127, 127), ("x" * 128, 128), ("x" * 129, 128), ("x" * 4000, 128)):
        reply = await http.request("GET", "/health", headers={"x-request-id": given})
        assert reply.headers["x-request-id"] == "x" * echoed
    reply = await http.request("GET", "/health", headers={"x-request-id": "a\tb\xe9c"})
    assert reply.headers["x-request-id"] == "abc"


@promise("W3")
async def test_a_correlation_id_is_invented_where_there_is_none(http: HttpNdjson) -> None:
    first, second = [(await http.request("GET", "/health")).headers["x-request-id"] for _ in range(2)]
    assert len(first) == len(second) == 32
    assert first != second


@promise("W3")
async def test_the_task_routes_tell_of_calls(http: HttpNdjson) -> None:
    body = {"command": "add", "input": {"a": 1, "b": 2}, "task_id": "sum"}
    await _post(http, "/v2/execute", body)
    record = json.loads((await http.request("GET", "/tasks/sum")).body)
    assert (record["task_id"], record["command"], record["status"]) == ("sum", "add", "completed")
    assert record["result"] == 3
    assert record["accepted_at"] <= record["started_at"] <= record["finished_at"]
    listed = json.loads((await http.request("GET", "/tasks")).body)["tasks"]
    assert [task["task_id"] for task in listed] == ["sum"]
    for method, path in (("POST", "/tasks/sum/cancel"), ("DELETE", "/tasks/sum")):
        outcome = json.loads((await http.request(method, path)).body)
        assert outcome == {"task_id": "sum", "outcome": "already_finished", "status": "completed"}


@promise("W3")
async def test_commands_are_described_with_their_schemas(http: HttpNdjson) -> None:
    told = json.loads((await http.request("GET", "/v2/commands")).body)
    assert list(told) == ["commands", "workflows", "version", "timestamp"]
    add = told["commands"]["add"]
    assert (add["description"], add["streaming"]) == ("Add two numbers.", False)
    assert add["input_schema"]["required"] == ["a", "b"]
    assert add["input_schema"]["additionalProperties"] is False
    assert told["commands"]["predict"]["streaming"] is True


@promise("W3")
async def test_health_says_how_it_is(http: HttpNdjson) -> None:
    health = json.loads((await http.request("GET", "/health")).body)
    assert list(health) == ["status", "name", "version", "uptime_s", "in_flight", "timestamp"]
    assert (health["status"], health["in_flight"]) == ("healthy", 0)
