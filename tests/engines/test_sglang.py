"""The sglang adapter against a server that plays SGLang: what is asked, and what is made of the answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engines.upstreams.asking import chatting, end_of, prompting, said, whole
from engines.upstreams.sglang import SGLangServer
from penstock import engines
from penstock.engines.sglang import SGLangEngine, open_sglang
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import UNBOUNDED, EngineDelta, EngineStart
from penstock.testing import check_engine, check_events

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[SGLangServer]:
    played = SGLangServer()
    async with played.running():
        yield played


@pytest.fixture
async def engine(server: SGLangServer) -> AsyncIterator[SGLangEngine]:
    opened = open_sglang(server.url, connect_s=2, first_token_s=5, gap_s=5, close_s=2)
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("incremental", [False, True])
async def test_it_behaves_as_an_engine_should(
    server: SGLangServer, engine: SGLangEngine, incremental: bool
) -> None:
    server.incremental = incremental
    await check_engine(engine, timeout_s=20)
    assert not server.live


@pytest.mark.parametrize("incremental", [False, True])
async def test_a_prompt_goes_to_the_native_route_with_its_token_ids(
    server: SGLangServer, engine: SGLangEngine, incremental: bool
) -> None:
    server.length, server.cached_tokens, server.incremental = 3, 1, incremental
    request = prompting("two words")
    events = await whole(engine, request)
    end = check_events(events, request, "sglang")
    assert (end.output_text, end.output_tokens) == (
        "two words#0 two words#1 two words#2 ",
        [1000, 1001, 1002],
    )
    assert isinstance(events[0], EngineStart)
    assert events[0].prompt_tokens == 2
    assert (end.finish_reason, end.raw_finish_reason) == ("stop", "stop")
    assert end.usage is not None
    assert (end.metrics.prefix_hit_rate, end.metrics.kv_used_tokens) == (0.5, 5)
    assert server.seen_at("/generate")[0].json["rid"] == request.request_id
    assert (server.aborts, server.seen_at("/abort_request")) == ([], [])


async def test_messages_go_to_the_chat_route_under_the_same_id(
    server: SGLangServer, engine: SGLangEngine
) -> None:
    server.length, server.cached_tokens = 3, 1
    request = chatting("fox")
    end = check_events(await whole(engine, request), request, "sglang")
    assert (end.output_text, end.finish_reason) == ("fox#0 fox#1 fox#2 ", "stop")
    assert end.metrics.prefix_hit_rate == 1.0
    assert server.seen_at("/v1/chat/completions")[0].json["rid"] == request.request_id


async def test_sampling_has_sglangs_names(server: SGLangServer, engine: SGLangEngine) -> None:
    chosen: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "top_k": 0, "seed": 7, "stop": ("END",)}
    chosen |= {"presence_penalty": 0.1, "frequency_penalty": 0.2, "repeat_penalty": 1.1}
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    await whole(engine, prompting(max_tokens=2, sampling=chosen, response_format=schema))
    sampling = server.seen[-1].json["sampling_params"]
    assert json.loads(sampling.pop("json_schema")) == {"type": "object"}
    assert sampling == {
        "max_new_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "sampling_seed": 7,
        "stop": ["END"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
    }
    await whole(engine, chatting(max_tokens=2, sampling=chosen, response_format=schema))
    asked = server.seen[-1].json
    assert (asked["seed"], asked["top_k"], asked["response_format"]) == (7, -1, schema)


async def test_what_was_not_chosen_is_left_to_the_server(server: SGLangServer, engine: SGLangEngine) -> None:
    await whole(engine, prompting(max_tokens=2))
    assert server.seen[-1].json["sampling_params"] == {"max_new_tokens": 2}
    await whole(engine, chatting(max_tokens=UNBOUNDED))
    assert "max_tokens" not in server.seen[-1].json


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("split", [1, 3, 7])
async def test_characters_and_events_may_be_cut_anywhere(
    server: SGLangServer, engine: SGLangEngine, incremental: bool, split: int
) -> None:
    text = "Grüße, 🦊! 狐狸"
    data = text.encode()
    server.pieces = [data[at : at + 2] for at in range(0, len(data), 2)]
    server.incremental, server.faults.split = incremental, split
    for request in (prompting(), chatting()):
        events = await whole(engine, request)
        assert said(events) == end_of(events).output_text == text
        assert all("\ufffd" not in event.chunk for event in events if isinstance(event, EngineDelta))
    assert end_of(await whole(engine, prompting())).output_tokens == [
        1000 + number for number in range(len(server.pieces))
    ]


async def test_max_tokens_end_with_length(engine: SGLangEngine) -> None:
    for request in (prompting(max_tokens=2), chatting(max_tokens=2)):
        assert end_of(await whole(engine, request)).finish_reason == "length"


async def test_the_same_id_twice_at_once_is_two_generations(
    server: SGLangServer, engine: SGLangEngine
) -> None:
    server.length = 2
    request = prompting()
    assert said(await whole(engine, request)) == said(await whole(engine, request))
    first, second = (seen.json["rid"] for seen in server.seen_at("/generate"))
    assert first == request.request_id
    assert not second.startswith(first)
    assert second.endswith(first)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"kv_budget_tokens": 5}, ErrorCode.NOT_IMPLEMENTED),
        ({"tools": ({"type": "function"},)}, ErrorCode.NOT_IMPLEMENTED),
        ({"response_format": {"type": "json_schema"}}, ErrorCode.INVALID_ARGUMENT),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {1j}}}}, "invalid_argument"),
    ],
)
async def test_what_cannot_be_asked_is_refused_unsent(
    server: SGLangServer, engine: SGLangEngine, more: dict[str, Any], code: str
) -> None:
    with pytest.raises(CallError) as raised:
        await whole(engine, prompting(**more))
    assert raised.value.code == code
    assert not server.seen


async def test_an_empty_prompt_is_refused(engine: SGLangEngine) -> None:
    with pytest.raises(CallError, match="prompt: is empty"):
        await whole(engine, prompting(""))


async def test_a_key_is_sent_and_a_model_is_named(server: SGLangServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    opened = engines.open(f"sglang://127.0.0.1:{server.port}?key_env=MY_KEY&model=tiny&capacity=3")
    async with opened:
        assert (opened.engine_id, opened.model, opened.capacity) == ("sglang:tiny", "tiny", 3)
        await whole(opened, chatting(max_tokens=1))
    assert server.seen[0].headers["authorization"] == "Bearer secret"
    assert server.seen[0].json["model"] == "tiny"


@pytest.mark.parametrize(
    "spec",
    [
        *("sglang:", "sglang://", "sglang://host:x", "sglang://h?speed=1", "sglang://h?api_key=k"),
        *("sglang://u@h", "sglang://h?capacity=0", "sglang://h?capacity=x", "sglang://h?gap_s=0"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(spec: str) -> None:
    with pytest.raises(CallError, match=r"^sglang: ") as raised:
        engines.open(spec)
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(CallError, match="set NO_SUCH_KEY"):
        engines.open("sglang://h?key_env=NO_SUCH_KEY")


def test_its_capacity_is_told_without_opening_it() -> None:
    assert engines.capacity("sglang://127.0.0.1:1?capacity=7") == 7
