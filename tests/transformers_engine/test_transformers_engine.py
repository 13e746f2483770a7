"""Real torch and transformers on tiny models: what they say, how they stop, and what they leave behind.

Not a part of ``make test``: torch is large.  ``make test-transformers`` runs these in an environment of
their own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from transformers import GenerationConfig

from penstock import AsyncClient, engines
from penstock.calls import ambient
from penstock.compose import build_app
from penstock.engines.transformers import TransformersEngine
from penstock.engines.transformers_model import TransformersSettings
from penstock.engines.transformers_sampling import Choosing, processors
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEnd, EngineEvent, EngineRequest, EngineStart, Sampling
from penstock.server.settings import ServerSettings
from penstock.testing import check_engine, check_events
from transformers_engine.conftest import CONTEXT, byte_tokenizer, save, sentence_piece_tokenizer

pytestmark = pytest.mark.anyio

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.5, seed=7)


def request(prompt: str = "the river", max_tokens: int = 16, **fields: Any) -> EngineRequest:
    fields = {"sampling": GREEDY} | fields
    return EngineRequest(
        request_id=uuid.uuid4().hex, trace_id="t", model="m", prompt=prompt, max_tokens=max_tokens, **fields
    )


def chat(*texts: str, **fields: Any) -> EngineRequest:
    return request("", messages=tuple({"role": "user", "content": text} for text in texts), **fields)


async def run(engine: TransformersEngine, asked: EngineRequest) -> list[EngineEvent]:
    with anyio.fail_after(30):
        async with aclosing(engine.generate(asked)) as events:
            return [event async for event in events]


async def end_of(engine: TransformersEngine, asked: EngineRequest) -> EngineEnd:
    return check_events(await run(engine, asked), asked, engine.engine_id)


def model_of(engine: TransformersEngine) -> Any:
    return engine.causal._model


def tokenizer_of(engine: TransformersEngine) -> Any:
    return engine.causal._tokenizer


class Watched:
    """Counts what runs in a model, and holds it at a layer when asked to."""

    def __init__(self, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside = self.most_inside = self.calls = 0
        self.ran: list[int] = []
        self.hold_at: Callable[[int, int], bool] = lambda layer, tokens: False
        self.held, self.go_on = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._generate = engine.causal.generate
        monkeypatch.setattr(engine.causal, "generate", self.generate)
        self._hooks = [
            layer.register_forward_hook(self._seen(number), with_kwargs=False)
            for number, layer in enumerate(model_of(engine).model.layers)
        ]

    def generate(self, *arguments: Any) -> None:
        with self._lock:
            self.inside += 1
            self.calls += 1
            self.most_inside = max(self.inside, self.most_inside)
        try:
            self._generate(*arguments)
        finally:
            with self._lock:
                self.inside -= 1

    def remove(self) -> None:
        self.go_on.set()
        for hook in self._hooks:
            hook.remove()

    def _seen(self, number: int) -> Callable[..., None]:
        def seen(_layer: Any, inputs: Any, _output: Any) -> None:
            self.ran.append(number)
            if self.hold_at(number, inputs[0].shape[1]):
                self.held.set()
                assert self.go_on.wait(20)

        return seen


@pytest.fixture
def watched(tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watching = Watched(tiny, monkeypatch)
    yield watching
    watching.remove()


async def wait_for(event: threading.Event) -> None:
    with anyio.fail_after(20):
        assert await anyio.to_thread.run_sync(event.wait, 20)


# -- what it says ----------------------------------------------------------------------------------------


async def test_it_behaves_as_an_engine_should(tiny: TransformersEngine) -> None:
    await check_engine(tiny)


@pytest.mark.parametrize("tokenizer", [byte_tokenizer, sentence_piece_tokenizer])
@pytest.mark.parametrize("sampling", [GREEDY, WARM, Sampling(temperature=0.7, seed=3, top_k=20)])
async def test_pieces_are_the_decoded_tokens_and_those_are_the_library_s(
    tmp_path: Path, tokenizer: Callable[[], Any], sampling: Sampling
) -> None:
    async with TransformersEngine(save(tmp_path, tokenizer(), seed=5), "m") as engine:
        asked = request("a river", max_tokens=60, sampling=sampling)
        events = await run(engine, asked)
        end = check_events(events, asked, engine.engine_id)
        deltas = [event for event in events if isinstance(event, EngineDelta)]
        whole = tokenizer_of(engine).decode(end.output_tokens, skip_special_tokens=True)
        if tokenizer is byte_tokenizer:
            assert "".join(delta.chunk for delta in deltas) == whole
        else:
            # Bytes at random: its decoder takes good ones back when a bad one follows, and we cannot.
            assert len(end.output_text) == len(whole)
        assert len(end.output_tokens) == 60
        assert len(deltas) > 20
        if sampling is GREEDY:
            prompt = tokenizer_of(engine)("a river", return_tensors="pt")
            config = GenerationConfig(do_sample=False, max_new_tokens=60, pad_token_id=0)
            alone = model_of(engine).generate(**prompt, generation_config=config)[0]
            assert alone[prompt["input_ids"].shape[1] :].tolist() == end.output_tokens


@pytest.mark.parametrize("tokenizer", [byte_tokenizer, sentence_piece_tokenizer])
@pytest.mark.parametrize("text", ["the river 🌊🌊 a  日本 é the a", " the", "🌊" * 30, "ing the the a s"])
async def test_a_text_a_model_repeats_comes_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Callable[[], Any], text: str
) -> None:
    """The tokens are a tokenizer's own; only who says them is not a model."""
    async with TransformersEngine(save(tmp_path, tokenizer()), "m") as engine:
        said = tokenizer_of(engine)(text, add_special_tokens=False)["input_ids"]

        def repeat(_prompt: Any, _choosing: Any, _limit: int, on_token: Any, _stopping: Any) -> None:
            for token in said:
                on_token(token)

        monkeypatch.setattr(engine.causal, "generate", repeat)
        asked = request(max_tokens=len(said))
        events = await run(engine, asked)
        end = check_events(events, asked, engine.engine_id)
        whole = tokenizer_of(engine).decode(said)
        assert end.output_text == whole
        assert whole.lstrip() == text.lstrip()
        assert not any("\ufffd" in event.chunk for event in events if isinstance(event, EngineDelta))


async def test_a_chat_goes_through_the_template(tiny: TransformersEngine) -> None:
    turns = (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "river"}]},
    )
    asked = request("", messages=turns)
    by_hand = request("<|system|>be brief\n<|user|>the river\n<|assistant|>")
    assert (await end_of(tiny, asked)).output_tokens == (await end_of(tiny, by_hand)).output_tokens
    (start, *_) = await run(tiny, asked)
    assert isinstance(start, EngineStart)
    assert start.prompt_tokens == len(tokenizer_of(tiny)(by_hand.prompt)["input_ids"])


async def test_without_a_template_one_message_is_continued_and_more_are_refused(tmp_path: Path) -> None:
    async with TransformersEngine(save(tmp_path, template=None), "m") as engine:
        alone = await end_of(engine, request("the river"))
        assert (await end_of(engine, chat("the river"))).output_tokens == alone.output_tokens
        with pytest.raises(CallError, match="no chat template") as raised:
            await run(engine, chat("the river", "a river"))
        assert raised.value.code is ErrorCode.NOT_IMPLEMENTED


# -- how tokens are chosen -------------------------------------------------------------------------------


async def test_the_same_seed_says_the_same_alone_and_beside_others(tiny: TransformersEngine) -> None:
    alone = [(await end_of(tiny, request(sampling=Sampling(temperature=1.5, seed=n)))) for n in range(4)]
    together: dict[int, EngineEnd] = {}

    async def one(seed: int) -> None:
        asked = request(sampling=Sampling(temperature=1.5, seed=seed))
        together[seed] = await end_of(tiny, asked)

    async with anyio.create_task_group() as tasks:
        for seed in range(4):
            tasks.start_soon(one, seed)
    assert [together[seed].output_tokens for seed in range(4)] == [end.output_tokens for end in alone]
    assert len({end.output_text for end in alone}) == 4


async def test_without_a_seed_answers_differ(tiny: TransformersEngine) -> None:
    texts = {(await end_of(tiny, request(sampling=Sampling(temperature=2)))).output_text for _ in range(3)}
    assert len(texts) == 3


async def test_the_random_numbers_of_the_process_are_left_alone(tiny: TransformersEngine) -> None:
    before = torch.get_rng_state()
    await run(tiny, request(sampling=Sampling(temperature=2)))
    await run(tiny, request(sampling=WARM))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2, top_k=1),
        Sampling(temperature=2, top_p=1e-6),
        Sampling(temperature=1e-300),
        Sampling(top_k=1),
        Sampling(temperature=0, top_p=0.5, top_k=40, seed=2**80),
        Sampling(),
    ],
)
async def test_where_one_token_is_left_it_is_the_likeliest(
    tiny: TransformersEngine, sampling: Sampling
) -> None:
    greedy = await end_of(tiny, request())
    assert (await end_of(tiny, request(sampling=sampling))).output_tokens == greedy.output_tokens


async def test_penalties_keep_tokens_from_coming_back(tiny: TransformersEngine) -> None:
    plain = await end_of(tiny, request(max_tokens=40))
    assert len(set(plain.output_tokens)) < 40
    for sampling in (
        Sampling(temperature=0, presence_penalty=1e6),
        Sampling(temperature=0, frequency_penalty=1e6),
        Sampling(temperature=0, repeat_penalty=1e6),
    ):
        end = await end_of(tiny, request(max_tokens=40, sampling=sampling))
        assert len(set(end.output_tokens)) == 40


def test_openai_s_penalties_count_the_answer_only() -> None:
    (penalty,) = processors(Choosing(presence_penalty=0.5, frequency_penalty=0.25), 2, "cpu")
    said = torch.tensor([[3, 3, 1, 1, 2]])
    assert penalty(said, torch.zeros(1, 4)).tolist() == [[0.0, -1.0, -0.75, 0.0]]


def test_a_draw_follows_the_likelihoods() -> None:
    (draw,) = processors(Choosing(temperature=1, seed=1), 0, "cpu")
    scores = torch.tensor([[0.25, 0.75]]).log()
    drawn = [int(draw(None, scores).argmax()) for _ in range(2000)]
    assert 0.7 < sum(drawn) / 2000 < 0.8


async def test_the_folder_s_own_choices_hold_unless_the_request_says_otherwise(tmp_path: Path) -> None:
    save(tmp_path)
    GenerationConfig(do_sample=True, temperature=2.0, max_length=3, num_beams=1).save_pretrained(tmp_path)
    async with TransformersEngine(tmp_path, "m") as engine:
        texts = {(await end_of(engine, request(sampling=Sampling()))).output_text for _ in range(3)}
        greedy = {(await end_of(engine, request(sampling=GREEDY))).output_text for _ in range(3)}
    assert (len(texts), len(greedy)) == (3, 1)


# -- how it ends -----------------------------------------------------------------------------------------


async def test_a_stop_string_ends_it(tiny: TransformersEngine) -> None:
    whole = await end_of(tiny, request(max_tokens=40, sampling=WARM))
    stop = whole.output_text[9:13]
    sampling = Sampling(temperature=1.5, seed=7, stop=("never said", stop))
    cut = await end_of(tiny, request(max_tokens=40, sampling=sampling))
    assert cut.output_text == whole.output_text[: whole.output_text.index(stop)]
    assert cut.finish_reason == "stop"
    assert len(cut.output_tokens) < 40


async def test_an_end_token_ends_it_and_is_no_part_of_the_answer(tmp_path: Path) -> None:
    async with TransformersEngine(save(tmp_path), "m") as engine:
        plain = (await end_of(engine, request())).output_tokens
        last = next(token for at, token in enumerate(plain) if at > 3 and token not in plain[:at])
        (end_token,) = engine.causal.ends
        weights = model_of(engine).lm_head.weight
        with torch.no_grad():
            # A little likelier than a token the answer is known to have.
            weights[end_token] = weights[last] * 1.01
        end = await end_of(engine, request())
    assert end.output_tokens == plain[: plain.index(last)]
    assert end.finish_reason == "stop"


async def test_the_context_ends_it(tiny: TransformersEngine) -> None:
    asked = request("a" * (CONTEXT - 5), max_tokens=2**70)
    end = await end_of(tiny, asked)
    assert (end.finish_reason, len(end.output_tokens)) == ("length", 5)
    assert end.metrics.kv_used_tokens == CONTEXT


async def test_a_kv_budget_ends_it(tiny: TransformersEngine) -> None:
    end = await end_of(tiny, request("a" * 20, max_tokens=50, kv_budget_tokens=29))
    assert (end.finish_reason, end.metrics.kv_used_tokens) == ("length", 29)


async def test_the_figures_are_real(tiny: TransformersEngine) -> None:
    began = time.time()
    metrics = (await end_of(tiny, request("a" * 20, max_tokens=10))).metrics
    times = metrics.timestamps
    assert times is not None
    assert began - 1 < times.queued_at <= times.scheduled_at <= times.executed_at <= times.completed_at
    assert metrics.ttft_ms == pytest.approx((times.executed_at - times.queued_at) * 1000)
    assert metrics.kv_used_tokens == 30
    assert len(metrics.itl_list) == 9
    assert metrics.throughput_tps == pytest.approx(1000 / metrics.tpot_ms)
    assert metrics.peak_mem_mb > 50


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (request("a" * CONTEXT), ErrorCode.INVALID_ARGUMENT, "takes 512 tokens .* holds 512"),
        (chat("a" * 2000), ErrorCode.INVALID_ARGUMENT, "the prompt takes 20"),
        (request(""), ErrorCode.INVALID_ARGUMENT, "prompt: is empty"),
        (request("aaa", kv_budget_tokens=3), ErrorCode.RESOURCE_EXHAUSTED, "kv_budget_tokens is 3"),
        (request("\ud800"), ErrorCode.INVALID_ARGUMENT, "no Unicode text"),
        (request("a", tools=({"type": "function"},)), ErrorCode.NOT_IMPLEMENTED, "tools"),
        (request("a", response_format={"type": "json_object"}), ErrorCode.NOT_IMPLEMENTED, "response_format"),
        (request("a", sampling=Sampling(repeat_penalty=0)), ErrorCode.INVALID_ARGUMENT, "repeat_penalty"),
        (request("", messages=({"content": "a"},)), ErrorCode.INVALID_ARGUMENT, "role"),
        (request("", messages=({"role": "user"},)), ErrorCode.INVALID_ARGUMENT, "neither a text"),
        (
            request("", messages=({"role": "tester", "content": ""},)),
            ErrorCode.INVALID_ARGUMENT,
            "no such role: tester",
        ),
        (
            request("", messages=({"role": "user", "content": [{"type": "image_url"}]},)),
            ErrorCode.NOT_IMPLEMENTED,
            "holds more than text",
        ),
    ],
)
async def test_what_it_cannot_serve_is_refused_before_any_event_and_it_serves_on(
    tiny: TransformersEngine, asked: EngineRequest, code: ErrorCode, said: str
) -> None:
    with pytest.raises(CallError, match=said) as raised:
        await run(tiny, asked)
    assert raised.value.code is code
    assert (await end_of(tiny, request(max_tokens=2))).finish_reason == "length"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("mat1 and mat2"), "upstream_failed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "resource_exhausted"),
    ],
)
async def test_a_model_that_fails_ends_with_an_error_and_the_next_call_is_clean(
    tiny: TransformersEngine, error: Exception, code: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    hook = model_of(tiny).lm_head.register_forward_pre_hook(fail)
    try:
        end = await end_of(tiny, request())
    finally:
        hook.remove()
    assert end.finish_reason == "error"
    assert end.error is not None
    assert (end.error.code, str(error) in end.error.message) == (code, True)
    assert (await end_of(tiny, request(max_tokens=2))).finish_reason == "length"


# -- several at once, and cancel -------------------------------------------------------------------------


async def test_as_many_as_there_are_slots_run_and_the_others_wait(
    tiny: TransformersEngine, watched: Watched
) -> None:
    ends: list[EngineEnd] = []

    async def one(asked: EngineRequest) -> None:
        ends.append(await end_of(tiny, asked))

    asked = [request(f"the river {number}") for number in range(6)]
    async with anyio.create_task_group() as tasks:
        for which in asked:
            tasks.start_soon(one, which)
    assert {end.request_id for end in ends} == {which.request_id for which in asked}
    assert watched.most_inside == tiny.capacity == 2


class Call:
    """Stands in for the call an engine works for."""

    request_id = "0" * 32

    def __init__(self, inside: Callable[[], int]) -> None:
        self._inside = inside
        self.confirmed_with: list[int] = []

    def remaining(self) -> None:
        return None

    def report_metrics(self, metrics: Any) -> None:
        """Nothing to report to."""

    def upstream_confirmed(self) -> None:
        self.confirmed_with.append(self._inside())


async def cancelled_at(
    tiny: TransformersEngine, watched: Watched, asked: EngineRequest, hold: Callable[[int, int], bool]
) -> Call:
    """Cancel a reader while the model is held at a layer; the model goes on only then."""
    call = Call(lambda: watched.inside)
    watched.hold_at = hold
    left = anyio.Event()

    async def read(scope: anyio.CancelScope) -> None:
        ambient.current.set(call)
        with scope:
            async with aclosing(tiny.generate(asked)) as events:
                async for _ in events:
                    pass
        left.set()

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, scope)
        await wait_for(watched.held)
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        # It waits for the work: the slot is not free yet.
        assert not left.is_set()
        assert watched.inside == 1
        watched.hold_at = lambda layer, tokens: False
        watched.go_on.set()
        with anyio.fail_after(20):
            await left.wait()
    assert scope.cancelled_caught
    return call


@pytest.mark.parametrize("layer", [0, 1])
async def test_a_cancel_in_a_prompt_is_heard_at_the_next_layer(
    tiny: TransformersEngine, watched: Watched, layer: int
) -> None:
    call = await cancelled_at(tiny, watched, request("a" * 300), lambda at, _: at == layer)
    # After the last layer, the token is there and nothing more is computed.
    assert watched.ran == list(range(layer + 1))
    assert call.confirmed_with == [0]
    assert (await end_of(tiny, request(max_tokens=2))).finish_reason == "length"


async def test_a_cancel_between_tokens_stops_before_the_next(
    tiny: TransformersEngine, watched: Watched
) -> None:
    def later(layer: int, tokens: int) -> bool:
        return layer == 0 and tokens == 1 and len(watched.ran) > 20

    call = await cancelled_at(tiny, watched, request("aaa", max_tokens=400), later)
    assert watched.ran[-1] == 0
    assert len(watched.ran) < 25
    assert call.confirmed_with == [0]


async def test_a_cancel_in_the_queue_never_starts(tiny: TransformersEngine, watched: Watched) -> None:
    watched.hold_at = lambda layer, tokens: True
    call = Call(lambda: watched.inside)
    busy = [tiny.generate(request(max_tokens=400)) for _ in range(tiny.capacity)]
    for events in busy:
        assert type(await anext(events)) is EngineStart
    token = ambient.current.set(call)
    waiting = tiny.generate(request())
    with anyio.move_on_after(0.05) as scope:
        await anext(waiting)
    ambient.current.reset(token)
    assert scope.cancelled_caught
    assert len(call.confirmed_with) == 1
    watched.go_on.set()
    for events in busy:
        await events.aclose()
    assert (watched.calls, watched.inside) == (tiny.capacity, 0)


async def test_a_reader_that_leaves_after_the_end_confirms_nothing_late(tiny: TransformersEngine) -> None:
    call = Call(lambda: 0)
    token = ambient.current.set(call)
    await run(tiny, request(max_tokens=3))
    ambient.current.reset(token)
    assert call.confirmed_with == []


async def test_a_reader_that_does_not_read_is_waited_for_and_can_leave(
    tiny: TransformersEngine, watched: Watched
) -> None:
    events = tiny.generate(request("a", max_tokens=500))
    await anext(events)
    with anyio.fail_after(20):
        await events.aclose()
    assert watched.inside == 0


async def test_closing_ends_calls_in_flight_and_leaves_nothing(folder: Path) -> None:
    before = threading.active_count()
    engine = TransformersEngine(folder, "small", TransformersSettings(slots=1))
    running, waiting = engine.generate(request(max_tokens=490)), engine.generate(request())
    await anext(running)

    async def refused() -> None:
        with pytest.raises(CallError, match="is closed"):
            await anext(waiting)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refused)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(engine.aclose)
        rest = [event async for event in running]
    end = rest[-1]
    assert isinstance(end, EngineEnd)
    assert end.error is not None
    assert (end.finish_reason, end.error.code) == ("error", "unavailable")
    assert threading.active_count() <= before + 1  # the one asyncio keeps for aclose
    engine.close()
    with pytest.raises(CallError, match="is closed"):
        await run(engine, request())


def test_it_serves_one_event_loop_after_another_also_when_one_goes_away(
    tiny: TransformersEngine, watched: Watched
) -> None:
    async def leave() -> None:
        await anext(tiny.generate(request("a", max_tokens=500)))

    for _ in range(tiny.capacity + 1):
        asyncio.run(leave())
    assert asyncio.run(end_of(tiny, request(max_tokens=2))).finish_reason == "length"
    assert watched.inside == 0


def test_an_engine_nobody_holds_frees_its_model(folder: Path) -> None:
    engine = TransformersEngine(folder, "small")
    model = weakref.ref(model_of(engine))
    assert asyncio.run(end_of(engine, request(max_tokens=2))).finish_reason == "length"
    del engine
    gc.collect()
    assert model() is None


EXIT = """
import asyncio, sys
from penstock import engines
from penstock.protocol.events import EngineRequest

engine = engines.open(sys.argv[1])
kept = []

async def main():
    for number in range(3):
        asked = EngineRequest(request_id=str(number), trace_id="t", model="m", prompt="a", max_tokens=500)
        kept.append(engine.generate(asked))
        if number < 2:
            print(type(await anext(kept[-1])).__name__, flush=True)
    # Leaves with both slots busy; nobody closes anything.
    raise SystemExit(3)

asyncio.new_event_loop().run_until_complete(main())
"""


def test_leaving_with_calls_in_flight_is_clean(folder: Path) -> None:
    left = subprocess.run(
        [sys.executable, "-c", EXIT, f"transformers:{folder}"],
        capture_output=True,
        text=True,
        timeout=90,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert left.returncode == 3, left.stderr
    assert left.stdout.split() == ["EngineStart", "EngineStart"]
    assert left.stderr == ""


# -- loading ---------------------------------------------------------------------------------------------


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("_no_network")
async def test_a_repository_in_the_local_cache_is_found_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "models--owner--repo" / "snapshots" / "abc")
    capfd.readouterr()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert engines.capacity("transformers:owner/repo") == 2
    async with engines.open("transformers:owner/repo", device="cpu", dtype="bfloat16", slots="3") as engine:
        assert isinstance(engine, TransformersEngine)
        assert (engine.engine_id, engine.capacity) == ("transformers:owner/repo", 3)
        assert model_of(engine).dtype is torch.bfloat16
        assert (await end_of(engine, request(max_tokens=3))).finish_reason == "length"
    assert capfd.readouterr() == ("", "")


async def test_opened_by_path_it_is_named_after_its_folder(folder: Path) -> None:
    async with engines.open(f"transformers:{folder}/", context_tokens=32) as engine:
        assert engine.engine_id == "transformers:tiny"
        with pytest.raises(CallError, match="holds 32"):
            await run(engine, request("a" * 40))  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(CallError, match="finds no device cuda:63") as raised:
        engines.open(f"transformers:{folder}", device="cuda:63")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _broken(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"hello" * 100)


def _without_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _another_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no-such-kind"}')


def _own_code(folder: Path) -> None:
    (folder / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}'
    )
    (folder / "own.py").write_text("raise SystemExit('code of the folder was run')\n")


def _without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    "harm",
    [_without_weights, _pickled, _broken, _without_a_tensor, _another_kind, _own_code, _without_tokenizer],
)
@pytest.mark.usefixtures("_no_network")
def test_a_folder_that_is_no_whole_model_is_refused(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    harm(save(tmp_path))
    with pytest.raises(CallError, match=str(tmp_path)) as raised:
        engines.open(f"transformers:{tmp_path}")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


# -- served with no code ---------------------------------------------------------------------------------


async def test_it_is_served_with_no_code(folder: Path) -> None:
    app = build_app(None, f"transformers:{folder}", ServerSettings(drain_s=7))
    async with app, AsyncClient(app) as client:
        said = []
        async with client.stream(
            "predict", {"prompt": "the river", "max_tokens": 12, "temperature": 0}
        ) as stream:
            said = [item async for item in stream]
        assert said[-1]["finished"]
        assert said[-1]["text"] == "".join(item["chunk"] for item in said)
        assert stream.metrics["kv_used_tokens"] > 12
        messages = [{"role": "user", "content": "the river"}]
        chatted = await client.run("chat", {"messages": messages, "max_tokens": 12, "temperature": 0})
        assert chatted["text"] == said[-1]["text"]
        with pytest.raises(CallError, match=r"takes .* holds 512") as raised:
            await client.run("predict", {"prompt": "a" * 600})
        assert raised.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_caller_that_leaves_frees_the_slot(folder: Path) -> None:
    app = build_app(None, f"transformers:{folder}", ServerSettings(drain_s=7))
    async with app, AsyncClient(app) as client:
        for _ in range(4):
            async with client.stream(
                "predict", {"prompt": "a", "max_tokens": 480, "temperature": 0}
            ) as stream:
                async for _item in stream:
                    break
        with anyio.fail_after(30):
            await client.run("predict", {"prompt": "a", "max_tokens": 2})
