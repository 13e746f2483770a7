"""Spans of calls and steps: what they tell, what they stand below, and that they reach a collector."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import anyio
import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cli.processes import Server, started
from penstock import CommandError, Runtime, current_call
from penstock.client.client import AsyncClient
from penstock.errors import CallError
from penstock.observability.recorder import Recorder
from penstock.observability.several import Several
from penstock.observability.tracing import Tracing
from penstock.protocol.dispatch import LOCAL, Caller
from penstock.protocol.messages import CancelReason, Start
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest

pytestmark = pytest.mark.anyio

ABOVE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WORKFLOW = {"steps": [{"id": "one", "command": "say"}, {"id": "two", "command": "say"}]}


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider.get_tracer("test"))


@pytest.fixture
async def app(tracing: Tracing) -> AsyncIterator[App]:
    rt = Runtime(Manifest.model_validate({"workflows": {"both": WORKFLOW}}))

    @rt.streaming_command("say")
    async def say() -> AsyncIterator[str]:
        current_call().report_usage(3, 2, cached_tokens=1)
        yield current_call().metadata["traceparent"]

    @rt.command("fail")
    async def fail() -> None:
        raise CommandError("secret", "not_found")

    @rt.streaming_command("hang")
    async def hang() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async with App(rt, observer=Several(tracing, Recorder())) as app:
        yield app
    assert len(tracing) == 0


async def test_a_span_tells_what_is_counted(app: App, spans: InMemorySpanExporter) -> None:
    live = await app.open(Start(command="say", is_stream=True, task_id="mine"), Caller(trace_parent=ABOVE))
    async with live.reader() as reader:
        [_ async for _ in reader]
    [span] = spans.get_finished_spans()
    assert (span.name, span.status.is_ok or span.status.is_unset) == ("say", True)
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" in ABOVE
    told = dict(span.attributes or {})
    assert told.pop("gen_ai.response.time_to_first_chunk") >= 0
    assert told == {
        "penstock.command": "say",
        "penstock.request_id": live.request_id,
        "penstock.task_id": "mine",
        "penstock.status": "completed",
        "penstock.items": 1,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 1,
    }
    assert [event.name for event in span.events] == ["started", "first_item"]


async def test_what_is_done_for_a_call_stands_below_its_span(app: App, spans: InMemorySpanExporter) -> None:
    async with AsyncClient(app) as client, client.stream("say") as stream:
        below = [item async for item in stream]
    [span] = spans.get_finished_spans()
    assert span.context is not None
    assert below[0].rpartition("-")[0] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}"


async def test_steps_stand_below_their_workflow(app: App, spans: InMemorySpanExporter) -> None:
    live = await app.open(Start(workflow_id="both", is_stream=True), LOCAL)
    async with live.reader() as reader:
        [_ async for _ in reader]
    one, two, whole = spans.get_finished_spans()
    assert [one.name, two.name, whole.name] == ["say", "say", "both"]
    assert whole.context is not None
    for step in (one, two):
        assert step.parent is not None
        assert step.parent.span_id == whole.context.span_id


async def test_a_failure_is_told_by_its_code(app: App, spans: InMemorySpanExporter) -> None:
    async with AsyncClient(app) as client:
        with pytest.raises(CallError):
            await client.run("fail")
    [span] = spans.get_finished_spans()
    assert span.status.description == "error"
    assert (span.attributes or {})["error.type"] == "not_found"
    assert "secret" not in span.to_json()


async def test_a_span_of_a_cancelled_call_ends_when_its_work_has_stopped(
    app: App, spans: InMemorySpanExporter
) -> None:
    live = await app.open(Start(command="hang", is_stream=True), LOCAL)
    async with live.reader() as reader:
        async for batch in reader:
            if batch.first_seq + len(batch.lines) > 1:
                live.cancel(CancelReason.CALLER)
    with anyio.fail_after(10):
        while not spans.get_finished_spans():
            await anyio.lowlevel.checkpoint()
    [span] = spans.get_finished_spans()
    assert [event.name for event in span.events] == ["started", "first_item", "cancelled"]
    assert (span.attributes or {})["penstock.status"] == "cancelled"


@contextmanager
def collector() -> Iterator[tuple[str, list[Any], threading.Event]]:
    """A collector that takes OTLP over HTTP."""
    taken: list[Any] = []
    came = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()
            came.set()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", taken, came
        finally:
            server.shutdown()
            thread.join()


def test_spans_reach_a_collector() -> None:
    with collector() as (url, taken, came):
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "mine", "NO_PROXY": "127.0.0.1"}
        with started("run", "--engine", "scripted", "--port", 0, "--traces", **env) as process:
            body = {"command": "predict", "input": {"prompt": "x"}}
            server = Server(process)
            httpx.post(f"{server.url}/v2/execute", json=body, headers={"traceparent": ABOVE})
            assert server.stop() == 0  # what it has not sent yet, it sends before it goes
        assert came.wait(5)
    [resource] = taken[0].resource_spans
    names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    [span] = resource.scope_spans[0].spans
    assert (names["service.name"], span.name) == ("mine", "predict")
    assert span.parent_span_id.hex() in ABOVE
