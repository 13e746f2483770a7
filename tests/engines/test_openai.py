"""The openai adapter: what it sends, where to, and what it refuses; the rest is in ``upstream``."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from engines.upstream.raw import END, STREAM, Seen, event
from engines.upstream.talk import DONE, USAGE, end_of, piece, request, run, served
from penstock import engines
from penstock.engines.openai import Asker, OpenAIEngine, open_openai
from penstock.engines.upstream.patience import Deadlines
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import UNBOUNDED, EngineDelta, EngineRequest, Sampling
from penstock.testing import check_engine

pytestmark = pytest.mark.anyio

EVERYTHING = Sampling(
    temperature=0.5,
    top_p=0.5,
    top_k=5,
    seed=2**40,
    stop=("x", "y"),
    presence_penalty=0.1,
    frequency_penalty=0.2,
    repeat_penalty=1.1,
)
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


async def counting(seen: Seen) -> None:
    """Answers with as many tokens as it may."""
    await seen.send(STREAM)
    for number in range(seen.body["max_tokens"]):
        await seen.send(event(piece(f"{number} ")))
        await anyio.lowlevel.checkpoint()
    await seen.send(event(piece(None, "length")), event(USAGE), DONE, END)


async def test_it_behaves_as_an_engine_should() -> None:
    async with served(counting) as (_, engine):
        await check_engine(engine)


async def test_a_chat_is_sent_as_it_is_always_as_a_stream() -> None:
    asked = request(
        sampling=EVERYTHING,
        tools=(TOOL,),
        response_format={"type": "json_object"},
        stream=False,
        max_tokens=9,
    )
    async with served() as (server, engine):
        await run(engine, asked)
    seen = server.seen[0]
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "secret question"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 5,
        "seed": 2**40 % (2**32 - 1),
        "stop": ["x", "y"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repeat_penalty": 1.1,
        "repetition_penalty": 1.1,
        "tools": [TOOL],
        "response_format": {"type": "json_object"},
    }


async def test_what_is_left_out_is_left_to_the_server() -> None:
    async with served() as (server, engine):
        await run(engine, request(max_tokens=2**80))
        await run(engine, request(max_tokens=UNBOUNDED))
        await run(engine, request(max_tokens=UNBOUNDED, messages=None, prompt="one"))
    least = {"model", "messages", "stream", "stream_options"}
    assert set(server.seen[0].body) == {*least, "max_tokens"}
    assert set(server.seen[1].body) == least
    assert server.seen[2].body["max_tokens"] == UNBOUNDED  # of a text the server would choose 16


async def test_a_prompt_alone_is_continued() -> None:
    async with served() as (server, engine):
        await run(engine, request(messages=None, prompt="one two"))
    assert server.seen[0].path == "/v1/completions"
    assert server.seen[0].body["prompt"] == "one two"


async def test_turns_with_calls_of_tools_go_through_whole() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    turns = (
        {"role": "user", "content": [{"type": "text", "text": "Look"}]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
    )
    async with served() as (server, engine):
        await run(engine, request(messages=turns))
    assert server.seen[0].body["messages"] == list(turns)


async def test_the_caller_s_model_is_not_the_server_s() -> None:
    asked = EngineRequest(request_id="r", trace_id="t", model="gpt-most-expensive", prompt="x")
    async with served() as (server, engine):
        await run(engine, asked)
    assert server.seen[0].body["model"] == "m"


async def test_reasoning_tools_usage_and_the_raw_reason_come_through() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}

    async def answer(seen: Seen) -> None:
        await seen.send(STREAM, event(piece(reasoning_content="hm")), event(piece(tool_calls=[call])))
        await seen.send(event(piece(None, "tool_calls")), event(USAGE), DONE, END)

    async with served(answer) as (_, engine):
        _, thought, called, end = await run(engine)
        pieces = [told async for told in engine.chat_pieces([{"role": "user", "content": "x"}])]
    assert isinstance(thought, EngineDelta)
    assert thought.reasoning == "hm"
    assert called.tool_calls == [call]
    assert (end.finish_reason, end.raw_finish_reason) == ("stop", "tool_calls")
    assert (end.usage.prompt_tokens, end.usage.cached_tokens, end.usage.reasoning_tokens) == (8, 4, 1)
    assert end.metrics.prefix_hit_rate == 0.5
    assert len(pieces) == 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"max_tokens": 0}, ErrorCode.INVALID_ARGUMENT),
        ({"messages": None}, ErrorCode.INVALID_ARGUMENT),
        ({"messages": ({"role": "user", "content": "\ud800"},)}, ErrorCode.INVALID_ARGUMENT),
        ({"messages": ({"role": "user", "content": object()},)}, ErrorCode.INVALID_ARGUMENT),
        ({"messages": None, "prompt": "x", "tools": (TOOL,)}, ErrorCode.NOT_IMPLEMENTED),
        ({"kv_budget_tokens": 9}, ErrorCode.NOT_IMPLEMENTED),
    ],
)
async def test_what_it_cannot_send_is_refused_without_asking(fields: dict[str, Any], code: ErrorCode) -> None:
    async with served() as (server, engine):
        with pytest.raises(CallError) as raised:
            await run(engine, request(**fields))
        assert raised.value.code is code
        assert server.connections == []
        assert (await end_of(engine)).finish_reason == "stop"


# -- hosted ------------------------------------------------------------------------------------------------


class Sdk:
    """Stands in for the vendor's client."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.chat = SimpleNamespace(completions=self._resource("chat"))
        self.completions = self._resource("text")

    def _resource(self, name: str) -> Any:
        async def create(**fields: Any) -> None:
            self.asked.append((name, fields))

        return SimpleNamespace(with_raw_response=SimpleNamespace(create=create))


async def sent(engine: OpenAIEngine, asked: EngineRequest) -> tuple[str, dict[str, Any]]:
    """What the vendor's client is asked for."""
    question = await engine.question(asked, Deadlines(engine.upstream.patience, "e"))
    sdk = Sdk()
    await question.send(Asker(None, sdk, anyio.Lock()))  # type: ignore[arg-type]
    return sdk.asked[0]


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> OpenAIEngine:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return open_openai("gpt-5-mini")


async def test_openai_itself_is_asked_in_its_own_words(hosted: OpenAIEngine) -> None:
    resource, fields = await sent(hosted, request(messages=None, prompt="Hello", max_tokens=9))
    assert resource == "chat"
    assert fields["messages"] == [{"role": "user", "content": "Hello"}]
    assert fields["model"] == "gpt-5-mini"
    assert fields["extra_body"] == {
        "max_completion_tokens": 9,
        "stream_options": {"include_usage": True},
    }
    assert fields["extra_headers"] == {}


@pytest.mark.parametrize("sampling", [Sampling(top_k=5), Sampling(repeat_penalty=1.1)])
async def test_openai_itself_has_no_such_sampling(hosted: OpenAIEngine, sampling: Sampling) -> None:
    with pytest.raises(CallError, match="leave it out") as raised:
        await sent(hosted, request(sampling=sampling))
    assert raised.value.code is ErrorCode.NOT_IMPLEMENTED


# -- specs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        ("openai://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("openai://127.0.0.1:8080/", "http://127.0.0.1:8080/v1"),
        ("openai+http://[::1]:8080", "http://[::1]:8080/v1"),
        ("openai+https://llm.example", "https://llm.example/v1"),
        ("openai+https://llm.example/api/v3", "https://llm.example/api/v3"),
    ],
)
def test_a_spec_is_a_url(spec: str, url: str) -> None:
    engine = engines.open(spec, model="fox")
    assert isinstance(engine, OpenAIEngine)
    assert (engine._address.url, engine._address.model, engine._address.key) == (url, "fox", None)
    assert engine.engine_id == "openai:fox"
    assert engine.capacity == 64
    engine.close()


def test_options_stand_in_the_query_or_beside_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "abc")
    spec = "openai://127.0.0.1:8080?model=a%20b&capacity=3&gap_s=2.5&key_env=MY_KEY&retries=0"
    engine = engines.open(spec, capacity=4)
    assert isinstance(engine, OpenAIEngine)
    assert (engine.model, engine.capacity, engine._address.key) == ("a b", 4, "abc")
    assert (engine.upstream.patience.gap_s, engine.upstream.patience.retries) == (2.5, 0)
    engine.close()
    assert engines.capacity(spec) == 3


def test_a_name_is_a_hosted_model_with_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    engine = engines.open("openai:gpt-5-mini")
    assert isinstance(engine, OpenAIEngine)
    assert engine._address == ("https://api.openai.com/v1", "gpt-5-mini", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy.example/v1/")
    other = engines.open("openai:gpt-5-mini", api_key="other")
    assert isinstance(other, OpenAIEngine)
    assert other._address == ("https://proxy.example/v1", "gpt-5-mini", "other")


@pytest.mark.parametrize(
    ("spec", "options", "said", "code"),
    [
        ("openai:gpt-5-mini", {}, "set OPENAI_API_KEY", ErrorCode.FAILED_PRECONDITION),
        ("openai://h?key_env=NO_SUCH", {}, "set NO_SUCH", ErrorCode.FAILED_PRECONDITION),
        ("openai:", {"api_key": "x"}, "which model", ErrorCode.INVALID_ARGUMENT),
        ("openai://", {}, "not HOST", ErrorCode.INVALID_ARGUMENT),
        ("openai://h:99999", {}, "not HOST", ErrorCode.INVALID_ARGUMENT),
        ("openai://[::1", {}, "not HOST", ErrorCode.INVALID_ARGUMENT),
        ("openai://me:pw@h", {}, "holds a user", ErrorCode.INVALID_ARGUMENT),
        ("openai://h?api_key=x", {}, "key_env=NAME", ErrorCode.INVALID_ARGUMENT),
        ("openai://h?modle=x", {}, "modle", ErrorCode.INVALID_ARGUMENT),
        ("openai://h", {"capacity": 0}, "capacity", ErrorCode.INVALID_ARGUMENT),
        ("openai://h?capacity=many", {}, "capacity", ErrorCode.INVALID_ARGUMENT),
        ("openai+ftp://h", {}, "no engine adapter", ErrorCode.INVALID_ARGUMENT),
        ("openai+://h", {}, "no engine adapter", ErrorCode.INVALID_ARGUMENT),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(
    spec: str, options: dict[str, Any], said: str, code: ErrorCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(CallError, match=said) as raised:
        engines.open(spec, **options)
    assert raised.value.code is code
    assert "pw" not in raised.value.message


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "openai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(CallError, match=r"pip install 'penstock\[openai\]'") as raised:
        engines.open("openai://127.0.0.1:8080")
    assert raised.value.code is ErrorCode.UNAVAILABLE
    assert engines.capacity("openai://127.0.0.1:8080?capacity=5") == 5
