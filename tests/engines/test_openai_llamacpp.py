"""The openai adapter against a real server of others: that of llama.cpp, over TCP, with a key."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import aclosing
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import pytest

from engines.upstream.talk import call
from penstock import AsyncClient, engines
from penstock.compose import STREAMING_MODE, build_app
from penstock.engines.openai import OpenAIEngine
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEnd, EngineRequest, EngineStart, Sampling
from penstock.protocol.inference import Request
from penstock.server.settings import ServerSettings
from penstock.testing import check_engine, check_events

pytestmark = pytest.mark.anyio

KEY = "a-key-of-this-test"
GREEDY = Sampling(temperature=0)
SLOTS, CONTEXT = 2, 2048


class Upstream(NamedTuple):
    """A running llama.cpp server, asked behind the adapter's back."""

    port: int
    http: httpx.Client

    def busy(self) -> int:
        """How many of its slots generate."""
        return sum(slot["is_processing"] for slot in self.http.get("/slots").json())

    def generated(self) -> int:
        """Tokens it has generated since it began."""
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith("llamacpp:tokens_predicted_total "):
                return int(float(line.split()[1]))
        raise AssertionError("it does not tell")

    async def idle(self) -> None:
        """Wait until no slot generates."""
        with anyio.fail_after(90):  # a prompt that is being read may have to be read to its end
            while await asyncio.to_thread(self.busy):
                await anyio.lowlevel.checkpoint()


@pytest.fixture(scope="module")
def upstream(model_path: Path) -> Iterator[Upstream]:
    library = import_module("xllamacpp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    params = library.CommonParams()
    params.model.path = str(model_path)
    params.n_parallel, params.n_ctx = SLOTS, CONTEXT * SLOTS
    params.n_batch = params.n_ubatch = 64
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], port, [KEY]
    params.ui, params.verbosity = False, -1
    params.endpoint_slots = params.endpoint_metrics = True
    params.cpuparams.n_threads = max(1, len(os.sched_getaffinity(0)) - 1)
    server = library.Server(params)
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as http:
        yield Upstream(port, http)
    del server


@pytest.fixture
def engine(upstream: Upstream) -> Iterator[OpenAIEngine]:
    opened = engines.open(f"openai://127.0.0.1:{upstream.port}", api_key=KEY, capacity=SLOTS)
    assert isinstance(opened, OpenAIEngine)
    yield opened
    opened.close()


def chat(text: str, max_tokens: int = 16, **fields: Any) -> EngineRequest:
    fields = {"sampling": GREEDY, "messages": ({"role": "user", "content": text},)} | fields
    return EngineRequest(request_id="r", trace_id="t", model="m", max_tokens=max_tokens, **fields)


def endless() -> EngineRequest:
    """What the model goes on with for as long as it may."""
    return chat("", 1500, messages=None, prompt="Count: 1, 2, 3, 4, 5,")


async def end_of(engine: OpenAIEngine, asked: EngineRequest) -> EngineEnd:
    with anyio.fail_after(60):
        events = [event async for event in engine.generate(asked)]
    return check_events(events, asked, engine.engine_id)


async def test_it_behaves_as_an_engine_should(engine: OpenAIEngine) -> None:
    await check_engine(engine)


async def test_a_real_model_answers_and_is_counted(engine: OpenAIEngine) -> None:
    end = await end_of(engine, chat("What color is the sky?", 24))
    assert "blue" in end.output_text
    assert end.engine_id == "openai:SmolLM2-135M-Instruct.Q4_1.gguf"
    assert end.usage.prompt_tokens > 10
    assert end.usage.completion_tokens <= 24
    again = await end_of(engine, chat("What color is the sky?", 24))
    assert again.usage.cached_tokens > 0
    assert 0 < again.metrics.prefix_hit_rate <= 1


async def test_a_prompt_alone_is_continued_as_it_stands(engine: OpenAIEngine) -> None:
    asked = chat("", 4, messages=None, prompt="one two three four five six seven")
    assert "eight" in (await end_of(engine, asked)).output_text


async def test_sampling_reaches_the_model(engine: OpenAIEngine) -> None:
    hot = Sampling(temperature=1.5, top_k=50, seed=7, repeat_penalty=1.1)
    one, two = [(await end_of(engine, chat("Tell a story.", 12, sampling=hot))).output_text for _ in range(2)]
    assert one == two
    stopped = await end_of(
        engine, chat("Count: 1, 2, 3", 40, sampling=Sampling(temperature=0, stop=("5", "6")))
    )
    assert stopped.finish_reason == "stop"
    assert "5" not in stopped.output_text


async def test_an_answer_has_the_form_that_was_asked_for(engine: OpenAIEngine) -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"sky": {"enum": ["red"]}}}},
    }
    end = await end_of(engine, chat("What color is the sky?", 24, response_format=form))
    assert end.output_text.lstrip().startswith("{")


async def test_a_prompt_beyond_the_context_is_refused_in_the_server_s_words(engine: OpenAIEngine) -> None:
    with pytest.raises(CallError, match=r"exceeds the available context size \(2048") as raised:
        await end_of(engine, chat("boats " * 3000))
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_wrong_key_is_the_operator_s_fault(upstream: Upstream) -> None:
    engine = engines.open(f"openai://127.0.0.1:{upstream.port}", api_key="wrong", model="m")
    with pytest.raises(CallError, match="does not accept this server's key") as raised:
        [piece async for piece in engine.stream_text("hello")]
    assert (raised.value.code, raised.value.retryable) == (ErrorCode.UPSTREAM_FAILED, False)
    await engine.aclose()


@pytest.mark.parametrize("wanted", [EngineStart, EngineDelta])
async def test_a_cancel_stops_the_model_itself(
    engine: OpenAIEngine, upstream: Upstream, wanted: type[EngineStart | EngineDelta]
) -> None:
    await upstream.idle()
    before = upstream.generated()
    with anyio.fail_after(180), call() as around:
        async with aclosing(engine.generate(endless())) as events:
            async for event in events:
                if type(event) is wanted:
                    break
            assert await asyncio.to_thread(upstream.busy) == 1
        assert around.confirmed == 1
        await upstream.idle()
    # Far from the 1,500 it was asked for: it stopped, and did not finish.
    assert upstream.generated() - before < 300
    assert (await end_of(engine, chat("hello", 2))).finish_reason == "length"


async def test_a_cancel_while_it_reads_a_long_prompt_stops_it_too(
    engine: OpenAIEngine, upstream: Upstream
) -> None:
    await end_of(engine, chat("hello", 1))
    await upstream.idle()
    before = upstream.generated()
    with anyio.fail_after(180), call() as around:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end_of, engine, chat(f"{time.time()}" + " boats" * 1700, 300))
                while not await asyncio.to_thread(upstream.busy):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        assert around.confirmed == 1
        await upstream.idle()
    # On a busy machine the prompt may be done before we hear that it is read; the 300 tokens are not.
    assert upstream.generated() - before < 50


async def test_a_call_s_remaining_time_stops_the_model_as_well(
    engine: OpenAIEngine, upstream: Upstream
) -> None:
    await end_of(engine, chat("hello", 1))
    with anyio.fail_after(60), call(1.0):
        end = await end_of(engine, endless())
        assert end.error is not None
        assert end.error.code == "deadline_exceeded"
        assert "(total budget)" in end.error.message
        await upstream.idle()


async def test_it_serves_commands_with_no_code(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STREAMING_MODE, "")
    monkeypatch.setenv("LLAMA_KEY", KEY)
    spec = f"openai://127.0.0.1:{upstream.port}?key_env=LLAMA_KEY&capacity={SLOTS}"
    app = build_app(None, spec, ServerSettings(drain_s=7))
    turns = [{"role": "user", "content": "What color is the sky?"}]
    typed = Request(request_id="q", trace_id="t", model="m", prompt="one two", max_tokens=4, stream=True)
    with anyio.fail_after(60):
        async with app, AsyncClient(app) as client:
            async with client.stream("predict", prompt="Say yes", max_tokens=4) as stream:
                items = [item async for item in stream]
            assert items[-1] == {"text": items[-2]["text"], "chunk": "", "finished": True}
            async with client.stream("chat", messages=turns, max_tokens=24, temperature=0) as stream:
                *_, last = [item async for item in stream]
            assert "blue" in last["text"]
            async with client.stream("generate", request=typed) as stream:
                events = [item async for item in stream]
            assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
            assert events[-1]["usage"]["completion_tokens"] == 4
            assert events[-1]["raw_finish_reason"] == "length"
            assert stream.metrics["kv_used_tokens"] > 4
            # A reader that leaves stops the model.
            async with client.stream("predict", prompt="Count to a thousand.", max_tokens=1500) as stream:
                async for _ in stream:
                    break
            await upstream.idle()
