"""The anthropic adapter, on the vendor's own client, against a server that plays Anthropic."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engines.upstreams.anthropic import NO_SAMPLING, AnthropicServer, Block, error_body
from engines.upstreams.asking import chatting, end_of, prompting, reading, said, until, whole
from engines.upstreams.server import Faults
from penstock import engines
from penstock.engines.anthropic import AnthropicEngine, open_anthropic
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEvent, EngineStart
from penstock.testing import check_engine, check_events

pytest.importorskip("anthropic", reason="needs the extra anthropic")
pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[AnthropicServer]:
    played = AnthropicServer()
    played.length = 20
    async with played.running():
        yield played


@pytest.fixture
async def engine(server: AnthropicServer) -> AsyncIterator[AnthropicEngine]:
    bounds: dict[str, Any] = {
        "connect_s": 1,
        "first_token_s": 0.5,
        "gap_s": 0.4,
        "close_s": 0.5,
        "retries": 0,
    }
    opened = open_anthropic("claude-test", base_url=server.url, api_key=server.key, **bounds)
    yield opened
    await opened.aclose()


async def clean(server: AnthropicServer, engine: AnthropicEngine) -> None:
    """Nothing runs, and the next call is as if nothing had been."""
    server.faults = Faults()
    server.gate.open()
    server.headers_gate.set()
    await until(lambda: not server.working)
    assert said(await whole(engine, prompting("next", max_tokens=2))) == "next#0 next#1 "


async def failing(engine: AnthropicEngine, **asked: Any) -> tuple[str, str]:
    """The code and the message of a generation that fails, at its start or later."""
    try:
        end = end_of(await whole(engine, prompting(**asked)))
    except CallError as error:
        code, message = error.code.value, error.message
    else:
        assert end.finish_reason == "error"
        assert end.error is not None
        code, message = end.error.code, end.error.message
    assert "127.0.0.1" not in message
    assert "sk-test" not in message
    return code, message


# -- what is asked, and what comes back ------------------------------------------------------------------


async def test_it_behaves_as_an_engine_should(server: AnthropicServer, engine: AnthropicEngine) -> None:
    await check_engine(engine, timeout_s=20)
    await until(lambda: not server.working)


async def test_it_streams_with_usage_and_reasons(server: AnthropicServer, engine: AnthropicEngine) -> None:
    server.length, server.cached_tokens = 3, 11
    request = chatting("fox")
    events = await whole(engine, request)
    end = check_events(events, request, "anthropic:claude-test")
    assert (end.output_text, end.finish_reason) == ("fox#0 fox#1 fox#2 ", "stop")
    assert end.raw_finish_reason == "end_turn"
    assert isinstance(events[0], EngineStart)
    assert events[0].prompt_tokens == 22
    assert end.metrics.prefix_hit_rate == 0.5
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (22, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "error"),
    ],
)
async def test_stop_reasons(server: AnthropicServer, engine: AnthropicEngine, told: str, reason: str) -> None:
    server.stop_reason, server.length = told, 2
    end = end_of(await whole(engine, prompting()))
    assert (end.finish_reason, end.raw_finish_reason) == (reason, told)
    assert end.output_text == "fox#0 fox#1 "


async def test_without_sampling_the_clients_own_version_is_asked(
    server: AnthropicServer, engine: AnthropicEngine
) -> None:
    await whole(engine, prompting(max_tokens=1, sampling={"stop": ("END",), "top_k": 0}))
    seen = server.seen[-1]
    assert seen.headers["anthropic-version"] == NO_SAMPLING
    assert seen.json == {
        "model": "claude-test",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "fox"}],
        "stop_sequences": ["END"],
        "stream": True,
    }


async def test_sampling_is_asked_of_the_version_that_takes_it(
    server: AnthropicServer, engine: AnthropicEngine
) -> None:
    await whole(engine, prompting(max_tokens=1, sampling={"temperature": 0.5, "top_p": 0.9, "top_k": 5}))
    seen = server.seen[-1]
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert (seen.json["temperature"], seen.json["top_p"], seen.json["top_k"]) == (0.5, 0.9, 5)


async def test_a_model_that_takes_no_temperature_says_so(
    server: AnthropicServer, engine: AnthropicEngine
) -> None:
    server.takes_temperature = False
    code, message = await failing(engine, sampling={"temperature": 0.5})
    assert code == "invalid_argument"
    assert "temperature" in message


async def test_thoughts_and_tool_calls_come_through(server: AnthropicServer, engine: AnthropicEngine) -> None:
    server.blocks = [
        Block("thinking", ["Let me ", "see."]),
        Block("text", ["I ask."]),
        Block("tool_use", ['{"city": ', '"Ulm"}'], {"id": "toolu_1", "name": "weather"}),
        Block("tool_use", ["{}"], {"id": "toolu_2", "name": "time"}),
    ]
    server.stop_reason = "tool_use"
    events = await whole(engine, chatting(tools=({"name": "weather", "input_schema": {"type": "object"}},)))
    deltas = [event for event in events if isinstance(event, EngineDelta)]
    assert "".join(delta.reasoning for delta in deltas if isinstance(delta.reasoning, str)) == "Let me see."
    assert said(events) == "I ask."
    calls = [call for delta in deltas if isinstance(delta.tool_calls, list) for call in delta.tool_calls]
    assert [call["index"] for call in calls] == [0, 0, 0, 1, 1]
    assert [call["function"].get("name") for call in calls] == ["weather", None, None, "time", None]
    assert "".join(call["function"]["arguments"] for call in calls[:3]) == '{"city": "Ulm"}'
    assert calls[3]["id"] == "toolu_2"


@pytest.mark.parametrize("split", [1, 3, 7])
async def test_characters_and_events_may_be_cut_anywhere(
    server: AnthropicServer, engine: AnthropicEngine, split: int
) -> None:
    server.blocks = [Block("text", ["Grü", "ße, 🦊! ", "狐狸"])]
    server.faults.split = split
    assert said(await whole(engine, prompting())) == "Grüße, 🦊! 狐狸"


# -- cancel ----------------------------------------------------------------------------------------------


async def test_a_cancel_closes_the_connection_which_is_not_used_again(
    server: AnthropicServer, engine: AnthropicEngine
) -> None:
    for tokens in (0, 1, 2):
        server.gate.hold(after=tokens)
        seen: list[EngineEvent] = []
        async with reading(engine, prompting(), seen) as scope:
            await until(lambda: len(seen) == tokens + 1)  # noqa: B023 - awaited within its turn
            scope.cancel()
        await until(lambda: not server.working)
        await until(lambda: server.seen[-1].connection.lost.is_set())
    assert len({seen.connection for seen in server.seen}) == 3
    await clean(server, engine)


async def test_a_cancel_before_the_answer_begins(server: AnthropicServer, engine: AnthropicEngine) -> None:
    server.headers_gate.clear()
    async with reading(engine, prompting()) as scope:
        await until(lambda: server.working == 1)
        scope.cancel()
    await until(lambda: not server.working)
    await clean(server, engine)


async def test_connections_of_whole_answers_are_used_again(
    server: AnthropicServer, engine: AnthropicEngine
) -> None:
    for _ in range(3):
        await whole(engine, prompting())
    assert len(server.connections) == 1


# -- faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "invalid_argument"),
        (401, "authentication_error", "upstream_failed"),
        (403, "permission_error", "upstream_failed"),
        (404, "not_found_error", "upstream_failed"),
        (413, "request_too_large", "too_large"),
        (429, "rate_limit_error", "resource_exhausted"),
        (500, "api_error", "upstream_failed"),
        (529, "overloaded_error", "unavailable"),
        (307, "", "upstream_failed"),
    ],
)
async def test_a_refusal_has_the_code_of_its_status(
    server: AnthropicServer, engine: AnthropicEngine, status: int, kind: str, code: str
) -> None:
    server.faults.status, server.faults.body = status, error_body(kind, "no")
    server.faults.headers = {"location": "http://127.0.0.2:1/v1/messages"} if status == 307 else {}
    assert (await failing(engine))[0] == code
    assert len(server.seen) == 1
    await clean(server, engine)


async def test_retry_after_is_told(server: AnthropicServer, engine: AnthropicEngine) -> None:
    server.faults.status, server.faults.body = 429, error_body("rate_limit_error", "slow down")
    server.faults.headers = {"retry-after": "7"}
    with pytest.raises(CallError) as raised:
        await whole(engine, prompting())
    assert (raised.value.retry_after_s, raised.value.retryable) == (7.0, True)


async def test_an_overloaded_api_is_asked_again_by_us_and_not_by_the_client(server: AnthropicServer) -> None:
    server.faults.status, server.faults.times = 529, 1
    server.faults.body = error_body("overloaded_error", "Overloaded")
    async with open_anthropic("m", base_url=server.url, api_key=server.key, retries=1) as engine:
        assert said(await whole(engine, prompting(max_tokens=1))) == "fox#0 "
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("error_after", "unavailable"),
        ("cut_after", "upstream_failed"),
        ("end_after", "upstream_failed"),
        ("junk_after", "upstream_failed"),
        ("long_line_after", "too_large"),
    ],
)
@pytest.mark.parametrize("tokens", [0, 3])
async def test_a_broken_stream_is_a_failure_and_never_the_end(
    server: AnthropicServer, engine: AnthropicEngine, fault: str, code: str, tokens: int
) -> None:
    setattr(server.faults, fault, tokens)
    assert (await failing(engine))[0] == code
    await clean(server, engine)


async def test_silence_before_the_answer(server: AnthropicServer, engine: AnthropicEngine) -> None:
    server.headers_gate.clear()
    code, message = await failing(engine)
    assert code == "deadline_exceeded"
    assert "first token budget" in message
    await clean(server, engine)


async def test_silence_between_two_tokens(server: AnthropicServer, engine: AnthropicEngine) -> None:
    server.gate.hold(after=2)
    code, message = await failing(engine)
    assert code == "deadline_exceeded"
    assert "gap budget" in message
    await clean(server, engine)


async def test_nobody_listens(server: AnthropicServer, engine: AnthropicEngine) -> None:
    await server.refuse()
    assert (await failing(engine))[0] == "unavailable"


async def test_a_wrong_key_is_this_servers_fault(server: AnthropicServer) -> None:
    async with open_anthropic("m", base_url=server.url, api_key="sk-other") as engine:
        code, message = await failing(engine)
    assert code == "upstream_failed"
    assert "sk-other" not in message


# -- opening ---------------------------------------------------------------------------------------------


async def test_a_spec_a_key_and_an_address_from_the_environment(
    server: AnthropicServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", server.key)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    async with engines.open("anthropic:claude-x?capacity=3") as engine:
        assert (engine.engine_id, engine.model, engine.capacity) == ("anthropic:claude-x", "claude-x", 3)
        assert said(await whole(engine, prompting(max_tokens=1))) == "fox#0 "
    async with engines.open(f"anthropic://127.0.0.1:{server.port}?model=claude-y") as engine:
        await whole(engine, prompting(max_tokens=1))
    assert [seen.json["model"] for seen in server.seen] == ["claude-x", "claude-y"]
    assert engines.capacity("anthropic:claude-x?capacity=7") == 7


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(CallError, match="set ANTHROPIC_API_KEY") as raised:
        engines.open("anthropic:claude-x")
    assert raised.value.code is ErrorCode.FAILED_PRECONDITION


@pytest.mark.parametrize("spec", ["anthropic:", "anthropic:m?speed=1", "anthropic:m?base_url=nowhere"])
def test_a_wrong_spec_says_what_is_wrong(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    with pytest.raises(CallError, match=r"^anthropic: "):
        engines.open(spec)


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name in ("anthropic", "httpx2"):
            raise ModuleNotFoundError(name)
        return known(name, *rest)

    monkeypatch.setattr("penstock.engines.anthropic.import_module", missing)
    with pytest.raises(CallError, match=r"pip install 'penstock\[anthropic\]'") as raised:
        open_anthropic("m", api_key="k")
    assert raised.value.code is ErrorCode.UNAVAILABLE
