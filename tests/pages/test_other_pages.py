"""The snippets of the typed protocol's page and of the runner protocol's page run here unchanged."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import penstock.compat  # noqa: F401 - makes the pages' import names available
from pages.served import fixture
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, Start
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio


def run(source: str, **names: Any) -> dict[str, Any]:
    """Execute a snippet as a module would be, and return its names."""
    space = {"__name__": "page", **names}
    exec(compile(source, "page", "exec"), space)
    return space


def test_quick_start_of_the_typed_protocol() -> None:
    space = run(fixture("sagellm_quickstart.py.txt"))
    assert space["req"].model == "llama2-7b"
    assert space["resp"].metrics.ttft_ms == 45.2
    assert space["ErrorCode"].UNAVAILABLE == "unavailable"


async def test_model_of_the_runner_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MyModel` runs verbatim; its abort callback posts the cancelled call's id."""
    pytest.importorskip("requests", reason="the page's model needs requests, a development dependency")
    posted: list[tuple[str, dict[str, str]]] = []
    arrived = threading.Event()

    def post(url: str, json: dict[str, str], timeout: float) -> None:
        posted.append((url, json))
        arrived.set()

    monkeypatch.setattr("requests.post", post)
    model_type = run(fixture("clarifai_model.py.txt"))["MyModel"]
    held = threading.Event()

    def call_sglang(self: object, prompt: str, req_id: str) -> Any:
        yield req_id
        held.wait(10)
        yield "late"

    model_type._call_sglang = call_sglang  # the page leaves it out
    runtime = Runtime()
    runtime.streaming_command("generate")(model_type().generate)
    async with App(runtime) as app:
        live = await app.open(Start(command="generate", input=b'{"prompt":"hi"}', is_stream=True), LOCAL)
        async with live.reader() as reader:
            lines: list[bytes] = []
            while len(lines) < 2:
                lines += (await reader.__anext__()).lines
            assert live.request_id.encode() in lines[1]
            assert live.cancel(CancelReason.CALLER) == "cancelled"
            assert arrived.wait(5)
            held.set()
    assert posted == [("http://localhost:30000/abort_request", {"rid": live.request_id})]
