"""What a tiny model says, on real torch and transformers, and how its tokens are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from transformers import GenerationConfig

from penstock.engines.transformers import TransformersEngine
from penstock.engines.transformers_sampling import Choosing, processors
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEnd, EngineStart, Sampling
from penstock.testing import check_engine, check_events
from transformers_engine.asking import (
    GREEDY,
    WARM,
    chat,
    end_of,
    model_of,
    request,
    run,
    tokenizer_of,
)
from transformers_engine.making import byte_tokenizer, save, sentence_piece_tokenizer

pytestmark = pytest.mark.anyio


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
    drawn = [int(draw(None, scores.clone()).argmax()) for _ in range(2000)]
    assert 0.7 < sum(drawn) / 2000 < 0.8


async def test_the_folder_s_own_choices_hold_unless_the_request_says_otherwise(tmp_path: Path) -> None:
    save(tmp_path)
    GenerationConfig(do_sample=True, temperature=2.0, max_length=3, num_beams=1).save_pretrained(tmp_path)
    async with TransformersEngine(tmp_path, "m") as engine:
        texts = {(await end_of(engine, request(sampling=Sampling()))).output_text for _ in range(3)}
        greedy = {(await end_of(engine, request(sampling=GREEDY))).output_text for _ in range(3)}
    assert (len(texts), len(greedy)) == (3, 1)
