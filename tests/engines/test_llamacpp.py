"""The real model: what it says, what it measures, how fast it stops, and what it leaves behind.

Time bounds are far above what was measured, so that a busy machine does not fail them; what must come
before what is asserted exactly.
"""

from __future__ import annotations

import asyncio
import gc
import os
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from penstock import engines
from penstock.engines.llamacpp import LlamaEngine
from penstock.engines.llamacpp_server import LlamaServer, LlamaSettings
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEnd, EngineEvent, EngineRequest, EngineStart, Sampling
from penstock.testing import check_engine, check_events

pytestmark = pytest.mark.anyio

GREEDY = Sampling(temperature=0)


def request(prompt: str, max_tokens: int = 16, **fields: Any) -> EngineRequest:
    fields = {"sampling": GREEDY} | fields
    return EngineRequest(
        request_id=uuid.uuid4().hex, trace_id="t", model="m", prompt=prompt, max_tokens=max_tokens, **fields
    )


def chat(text: str, **fields: Any) -> EngineRequest:
    return request("", messages=({"role": "user", "content": text},), **fields)


async def run(engine: LlamaEngine, asked: EngineRequest) -> list[EngineEvent]:
    with anyio.fail_after(60):
        async with aclosing(engine.generate(asked)) as events:
            return [event async for event in events]


async def end_of(engine: LlamaEngine, asked: EngineRequest) -> EngineEnd:
    return check_events(await run(engine, asked), asked, engine.engine_id)


def long_prompt() -> str:
    """About 3,000 tokens that no cache has seen."""
    return uuid.uuid4().hex + " boats" * 3000


class Spied:
    """Stands in for the model's server and notes when its blocking calls are in flight."""

    def __init__(self, server: LlamaServer) -> None:
        self._server = server
        self.inside = 0
        self.most_inside = 0
        self._lock = threading.Lock()

    def complete(self, body: dict[str, Any], on_chunk: Callable[[Mapping[str, Any]], bool]) -> None:
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            self._server.complete(body, on_chunk)
        finally:
            with self._lock:
                self.inside -= 1

    def tokens_of(self, text: str) -> list[int]:
        return self._server.tokens_of(text)

    def prompt_ids(self, body: Mapping[str, Any]) -> list[int]:
        return self._server.prompt_ids(body)


@pytest.fixture
def spy(llama: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> Spied:
    spied = Spied(llama._server)
    monkeypatch.setattr(llama, "_server", spied)
    return spied


async def test_it_behaves_as_an_engine_should(llama: LlamaEngine) -> None:
    await check_engine(llama)


async def test_it_answers_as_an_instruct_model(llama: LlamaEngine) -> None:
    pieces = [
        piece async for piece in llama.stream_text("What color is the sky?", max_tokens=24, temperature=0)
    ]
    assert "blue" in "".join(pieces)
    assert "<|im" not in "".join(pieces)


async def test_the_system_prompt_and_earlier_turns_matter(llama: LlamaEngine) -> None:
    turns = [
        {"role": "user", "content": "My name is Bartholomew."},
        {"role": "assistant", "content": "Nice to meet you, Bartholomew."},
        {"role": "user", "content": "What is my name?"},
    ]
    answer = "".join([piece async for piece in llama.chat(turns, max_tokens=24, temperature=0)])
    assert "Bartholomew" in answer


async def test_a_prompt_alone_is_continued_as_it_stands(llama: LlamaEngine) -> None:
    end = await end_of(llama, request("one two three four five six seven", max_tokens=4))
    assert "eight" in end.output_text


async def test_it_comes_token_by_token_with_real_ids(llama: LlamaEngine) -> None:
    asked = request("one two three four five six seven", max_tokens=6)
    events = await run(llama, asked)
    deltas = [event for event in events if isinstance(event, EngineDelta)]
    assert len(deltas) >= 5
    for delta in deltas:
        assert llama.tokens_of(delta.chunk) == delta.chunk_tokens


async def test_characters_of_several_tokens_come_whole_with_all_their_ids(llama: LlamaEngine) -> None:
    asked = request("🌟🌙🌟 日本 🌟🌙🌟 日本 🌟🌙🌟 日本 🌟🌙", max_tokens=30)
    events = await run(llama, asked)
    end = check_events(events, asked, llama.engine_id)
    assert any(ord(letter) > 0xFFFF for letter in end.output_text)
    assert "�" not in end.output_text
    assert all("�" not in event.chunk for event in events if isinstance(event, EngineDelta))
    several = [e for e in events if isinstance(e, EngineDelta) and len(e.chunk_tokens) > 1]
    assert several
    # The last character may have been cut off by max_tokens: its tokens have no text, and no ids.
    assert 30 - 3 <= len(end.output_tokens) <= 30


async def test_the_same_seed_says_the_same(llama: LlamaEngine) -> None:
    sampling = Sampling(temperature=1.5, seed=7)
    texts = {
        (await end_of(llama, chat("Tell me a story.", max_tokens=12, sampling=sampling))).output_text
        for _ in range(2)
    }
    other = await end_of(
        llama, chat("Tell me a story.", max_tokens=12, sampling=Sampling(temperature=1.5, seed=8))
    )
    assert len(texts) == 1
    assert other.output_text not in texts


async def test_a_stop_string_ends_it(llama: LlamaEngine) -> None:
    whole = await end_of(llama, request("one two three four five six seven", max_tokens=12))
    stop = whole.output_text[5:9]
    cut = await end_of(
        llama,
        request(
            "one two three four five six seven", max_tokens=12, sampling=Sampling(temperature=0, stop=(stop,))
        ),
    )
    assert cut.output_text == whole.output_text[: whole.output_text.index(stop)]
    assert cut.finish_reason == "stop"


async def test_it_stops_by_itself(llama: LlamaEngine) -> None:
    end = await end_of(llama, chat("Say only: yes", max_tokens=60))
    assert end.finish_reason == "stop"
    assert len(end.output_tokens) < 60


async def test_a_schema_shapes_the_answer(llama: LlamaEngine) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    for asked in (
        chat("Give me JSON.", max_tokens=40, response_format=form),
        request("JSON: ", max_tokens=40, response_format=form),
    ):
        assert (await end_of(llama, asked)).output_text.lstrip().startswith("{")


async def test_a_repeated_prefix_is_a_hit_and_the_figures_are_real(llama: LlamaEngine) -> None:
    prefix = uuid.uuid4().hex + " and many boats" * 60
    cold = (await end_of(llama, request(prefix + " first", max_tokens=4))).metrics
    warm = (await end_of(llama, request(prefix + " second", max_tokens=4))).metrics
    assert cold.prefix_hit_rate < 0.2
    assert warm.prefix_hit_rate > 0.5
    assert warm.kv_used_tokens > 180
    assert len(warm.itl_list) >= 1
    assert warm.timestamps is not None
    spent = warm.timestamps.executed_at - warm.timestamps.queued_at
    assert warm.ttft_ms == pytest.approx(spent * 1000)
    assert abs(warm.timestamps.completed_at - time.time()) < 60
    assert warm.peak_mem_mb > 100


async def test_four_at_once_share_the_machine_and_a_fifth_waits(llama: LlamaEngine, spy: Spied) -> None:
    asked = [chat(f"Tell me a story about {number} foxes.", max_tokens=24) for number in range(6)]
    ends: list[EngineEnd] = []

    async def one(which: EngineRequest) -> None:
        ends.append(await end_of(llama, which))

    async with anyio.create_task_group() as tasks:
        for which in asked:
            tasks.start_soon(one, which)
    assert {end.request_id for end in ends} == {which.request_id for which in asked}
    assert spy.most_inside == llama.capacity == 4


async def test_closing_mid_decode_stops_the_work_before_it_returns(llama: LlamaEngine, spy: Spied) -> None:
    events = llama.generate(request("Count: 1, 2, 3,", max_tokens=2000))
    seen = 0
    async for event in events:
        seen += type(event) is EngineDelta
        if seen == 3:
            break
    assert spy.inside == 1
    began = time.perf_counter()
    await events.aclose()
    assert spy.inside == 0
    # One token, measured at about 10 ms.
    assert time.perf_counter() - began < 2


async def test_cancelling_in_prefill_stops_the_work_before_it_returns(llama: LlamaEngine, spy: Spied) -> None:
    events = llama.generate(request(long_prompt(), max_tokens=2000))
    assert type(await anext(events)) is EngineStart
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anext(events)
    began = time.perf_counter()
    await events.aclose()
    assert spy.inside == 0
    # One batch, measured at 0.1 to 0.3 s; the whole prompt takes ten times that.
    assert time.perf_counter() - began < 6
    assert scope.cancelled_caught


async def test_a_call_waiting_for_a_slot_can_be_cancelled(llama: LlamaEngine, spy: Spied) -> None:
    busy = [llama.generate(request("Count: 1, 2, 3,", max_tokens=2000)) for _ in range(llama.capacity)]
    for events in busy:
        await anext(events)
    waiting = llama.generate(request("hello"))
    with anyio.move_on_after(0.05) as scope:
        await anext(waiting)
    assert scope.cancelled_caught
    assert spy.most_inside == llama.capacity
    for events in busy:
        await events.aclose()
    assert (await end_of(llama, request("hello"))).finish_reason == "length"
    assert spy.inside == 0


@pytest.mark.parametrize("form", [chat, request])
async def test_a_prompt_too_long_is_refused_with_both_numbers(
    llama: LlamaEngine, form: Callable[..., EngineRequest]
) -> None:
    with pytest.raises(CallError, match=r"the prompt takes 50\d\d tokens .* holds 4096 per call") as raised:
        await run(llama, form("boats " * 5000))
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": ""}, ErrorCode.INVALID_ARGUMENT),
        ({"prompt": "", "messages": ({"content": "x"},)}, ErrorCode.INVALID_ARGUMENT),
        ({"prompt": "", "messages": ({"role": "user"},)}, ErrorCode.INVALID_ARGUMENT),
        ({"prompt": "", "messages": ({"role": "user", "content": b"x"},)}, ErrorCode.INVALID_ARGUMENT),
        ({"prompt": "\ud800"}, ErrorCode.INVALID_ARGUMENT),
        ({"prompt": "x", "tools": ({"type": "function"},)}, ErrorCode.NOT_IMPLEMENTED),
        ({"prompt": "one two three", "kv_budget_tokens": 2}, ErrorCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_what_it_cannot_serve_is_refused_and_it_serves_on(
    llama: LlamaEngine, fields: dict[str, Any], code: ErrorCode
) -> None:
    with pytest.raises(CallError) as raised:
        await run(llama, request(**fields))
    assert raised.value.code is code
    assert (await end_of(llama, request("hello", max_tokens=2))).finish_reason == "length"


async def test_huge_numbers_are_taken(llama: LlamaEngine) -> None:
    sampling = Sampling(temperature=0, seed=2**80)
    end = await end_of(llama, chat("Say only: yes", max_tokens=2**80, sampling=sampling))
    assert end.finish_reason == "stop"


async def test_a_kv_budget_limits_the_answer(llama: LlamaEngine) -> None:
    end = await end_of(llama, request("one two three four", max_tokens=50, kv_budget_tokens=9))
    assert end.finish_reason == "length"
    assert end.metrics.kv_used_tokens == 9


async def test_a_fault_in_our_reading_is_told_and_not_swallowed(
    llama: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Spied):
        def complete(self, body: dict[str, Any], on_chunk: Callable[[Mapping[str, Any]], bool]) -> None:
            self._server.complete(body, lambda chunk: on_chunk({"timings": chunk.get("timings")}))

    monkeypatch.setattr(llama, "_server", Odd(llama._server))
    asked = request("hello")
    end = await end_of(llama, asked)
    assert end.finish_reason == "error"
    assert end.error is not None
    assert end.error.code == "upstream_failed"
    assert "KeyError" in end.error.message


def test_it_serves_one_event_loop_after_another(llama: LlamaEngine) -> None:
    for _ in range(2):
        assert asyncio.run(end_of(llama, request("hello", max_tokens=2))).finish_reason == "length"


def test_a_loop_that_goes_away_frees_the_slot(llama: LlamaEngine, spy: Spied) -> None:
    async def leave() -> None:
        await anext(llama.generate(request("Count: 1, 2, 3,", max_tokens=3000)))

    for _ in range(llama.capacity + 1):
        asyncio.run(leave())
    assert asyncio.run(end_of(llama, request("hello", max_tokens=2))).finish_reason == "length"
    assert spy.inside == 0


def listening(process: int) -> set[str]:
    """Inodes of the TCP sockets of a process that listen."""
    own = {os.readlink(entry) for entry in Path(f"/proc/{process}/fd").iterdir() if entry.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            state, inode = line.split()[3], line.split()[9]
            if state == "0A" and f"socket:[{inode}]" in own:
                found.add(inode)
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_it_opens_no_port_and_its_socket_is_private(llama: LlamaEngine) -> None:
    assert listening(os.getpid()) == set()
    folder = llama._server._folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_ISSOCK(entry.stat().st_mode) for entry in folder.iterdir()] == [True]


async def test_closing_ends_calls_in_flight_and_leaves_nothing(model_path: Path) -> None:
    before = threading.active_count()
    engine = LlamaEngine(model_path, "small", LlamaSettings(slots=1, context_tokens=512))
    folder = engine._server._folder
    running, waiting = engine.generate(request("Count: 1,", max_tokens=400)), engine.generate(request("x"))
    await anext(running)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_refused, waiting)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(engine.aclose)
        rest = [event async for event in running]
    end = rest[-1]
    assert isinstance(end, EngineEnd)
    assert end.finish_reason == "error"
    assert end.error is not None
    assert end.error.code == "unavailable"
    assert not folder.exists()
    assert threading.active_count() <= before + 1  # the one asyncio keeps for aclose
    engine.close()
    with pytest.raises(CallError, match="is closed"):
        await run(engine, request("x"))


async def _refused(events: Any) -> None:
    with pytest.raises(CallError, match="is closed"):
        await anext(events)


def test_opening_leaves_the_environment_as_it_was(llama: LlamaEngine) -> None:
    assert "GOMP_SPINCOUNT" not in os.environ


def test_an_engine_nobody_holds_frees_itself(model_path: Path) -> None:
    engine = LlamaEngine(model_path, "small", LlamaSettings(slots=1, context_tokens=512))
    folder = engine._server._folder
    assert asyncio.run(end_of(engine, request("hello", max_tokens=2))).finish_reason == "length"
    del engine
    gc.collect()
    assert not folder.exists()


EXIT = """
import asyncio, sys, tempfile
from penstock import engines
from penstock.protocol.events import EngineRequest

engine = engines.open(sys.argv[1], slots=2, context_tokens=4096)
prompt = " boats" * 3000 if sys.argv[2] == "prefill" else "Count: 1, 2,"
kept = []

async def main():
    for number in range(3):
        events = engine.generate(
            EngineRequest(request_id=str(number), trace_id="t", model="m", prompt=prompt, max_tokens=4000)
        )
        kept.append(events)
        # Prompts are read one after the other: the second has its start when the first is read.
        if number == 0 or (number == 1 and sys.argv[2] == "decode"):
            print(type(await anext(events)).__name__, flush=True)
        else:
            kept.append(anext(events))
            kept[-1].send(None)
    # Leaves with both slots busy; nobody closes anything.
    raise SystemExit(3)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""


@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_leaving_with_calls_in_flight_is_clean(model_path: Path, stage: str, tmp_path: Path) -> None:
    left = subprocess.run(
        [sys.executable, "-c", EXIT, str(model_path), stage],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert left.returncode == 3, left.stderr
    assert left.stdout.split() == ["EngineStart"] * (1 if stage == "prefill" else 2)
    assert left.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_long_temporary_folder_does_not_matter(model_path: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    code = "import sys; from penstock import engines; engines.open(sys.argv[1], slots=1, context_tokens=512)"
    opened = subprocess.run(
        [sys.executable, "-c", code, str(model_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"TMPDIR": str(deep)},
    )
    assert (opened.returncode, opened.stderr) == (0, "")
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"), [(b"hello" * 100, "is not a GGUF model"), (b"GGUF" + b"\1" * 100, "could not load")]
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    with pytest.raises(CallError, match=said) as raised:
        engines.open(f"llamacpp:{file}")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_opened_by_path_it_is_named_after_its_file(model_path: Path) -> None:
    engine = engines.open(f"llamacpp:{model_path}", slots=1, context_tokens=512)
    assert engine.engine_id == "llamacpp:SmolLM2-135M-Instruct.Q4_1"
    assert engine.capacity == 1
    engine.close()
