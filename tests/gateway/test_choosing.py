"""Which runner gets a call: by load and weight, and by what it holds of the prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.gateway.choosing import FEWEST_BLOCKS, PREFIX_WORTH, Wanted, choose
from penstock.gateway.prefixes import RunnerPrefixes
from penstock.gateway.runner import Identity, Parting, Runner
from penstock.kv.prompts import read_prompt
from penstock.protocol.messages import Route
from penstock.protocol.runners import Offer
from penstock.protocol.session import MAX_NAMED, Cached, Message
from penstock.testing import FakeClock

TAKES_PROMPT = {"type": "object", "properties": {"prompt": {"type": "string"}}}
INPUT = json.dumps({"prompt": "Once upon a time " * 300}).encode()


def blocks(text: bytes = INPUT) -> list[bytes]:
    prompt = read_prompt(text)
    assert prompt is not None
    return prompt.chain()


CHAIN = blocks()


class Nobody:
    """Is told, and does nothing."""

    def changed(self, runner: Runner) -> None: ...

    def gone(self, runner: Runner) -> None: ...


class Still(Runner):
    """A runner that is there, and that nothing is sent to."""

    def send(self, message: Message) -> None: ...

    def _part(self, why: str, parting: Parting) -> None: ...


def runner(
    name: str,
    *,
    load: int = 0,
    holds: Sequence[bytes] = (),
    schema: dict[str, object] = TAKES_PROMPT,
    concurrency: int = 4,
    weight: float = 1.0,
) -> Runner:
    offer = Offer(name="predict", input_schema=schema, concurrency=concurrency)
    made = Still(Identity(name), {"predict": offer}, 1000, FakeClock(), Nobody())
    made.confirmed = True
    made.load = made.used["predict"] = load
    made.weight = weight
    made.prefixes = holding(holds)
    return made


def holding(names: Sequence[bytes], most: int = 1000) -> RunnerPrefixes:
    prefixes = RunnerPrefixes(most)
    prefixes.hear(Cached(number=0, anew=True, held=list(names[:MAX_NAMED])))
    return prefixes


def chosen(*runners: Runner, route: Route | None = None, text: bytes = INPUT) -> str:
    found = choose(runners, Wanted("predict", route, None, text))
    assert found is not None
    return found.name


def test_with_equal_loads_the_longest_prefix_wins() -> None:
    one, two, three = runner("one", holds=CHAIN[:3]), runner("two", holds=CHAIN[:9]), runner("three")
    assert [chosen(one, two, three) for _ in range(3)] == ["two"] * 3


@pytest.mark.parametrize(("load", "who"), [(0, "holder"), (1, "holder"), (2, "holder"), (3, "free")])
def test_beyond_half_of_what_it_runs_the_free_one_wins(load: int, who: str) -> None:
    assert chosen(runner("holder", load=load, holds=CHAIN), runner("free")) == who


def test_a_runner_without_room_gets_nothing_whatever_it_holds() -> None:
    assert chosen(runner("holder", load=4, holds=CHAIN), runner("free", load=3)) == "free"


def test_a_short_prompt_is_worth_less() -> None:
    text = json.dumps({"prompt": "x" * 300}).encode()
    holder = runner("holder", load=1, holds=blocks(text))
    assert len(blocks(text)) < FEWEST_BLOCKS / 2
    assert chosen(holder, runner("free"), text=text) == "free"
    assert chosen(runner("holder", holds=blocks(text)), runner("free"), text=text) == "holder"


def test_where_nobody_holds_anything_calls_go_round() -> None:
    runners = [runner(name) for name in "abc"]
    assert sorted(chosen(*runners) for _ in range(6)) == list("aabbcc")


def test_a_key_sticks_to_its_runner_whoever_holds_the_prompt() -> None:
    runners = [runner(name) for name in "abcdefgh"]
    route = Route(sticky="user-17")
    at = chosen(*runners, route=route)
    for other in runners:
        if other.name != at:
            other.prefixes = holding(CHAIN)
    assert chosen(*runners, route=route) == at


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, INPUT),
        (TAKES_PROMPT, b'{"a": 1}'),
        (TAKES_PROMPT, json.dumps({"prompt": "y" * 3000}).encode()),
        (TAKES_PROMPT, json.dumps({**json.loads(INPUT), "cache_salt": "other tenant"}).encode()),
    ],
    ids=["schema", "no prompt", "other prompt", "salt"],
)
def test_who_has_no_prompt_in_common_is_sent_to_the_least_loaded(
    schema: dict[str, object], text: bytes
) -> None:
    holder, free = runner("holder", load=1, holds=CHAIN, schema=schema), runner("free", schema=schema)
    assert chosen(holder, free, text=text) == "free"


def test_the_prompt_is_not_looked_at_where_no_runner_tells() -> None:
    wanted = Wanted("predict", None, None, INPUT)
    choose([runner("a"), runner("b")], wanted)
    assert "chain" not in vars(wanted)


RUNNERS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, len(CHAIN)), st.sampled_from([0.5, 1.0, 2.0])),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(RUNNERS)
def test_no_runner_is_chosen_over_one_that_is_freer_and_holds_as_much(
    given: list[tuple[int, int, float]],
) -> None:
    runners = [
        runner(str(number), load=load, holds=CHAIN[:held], weight=weight)
        for number, (load, held, weight) in enumerate(given)
    ]
    found = choose(runners, Wanted("predict", None, None, INPUT))
    free = [each for each in given if each[0] < 4]
    assert (found is None) == (not free)
    if found is None:
        return
    load, held, weight = given[int(found.name)]
    fullness = load / (4 * weight)
    for other_load, other_held, other_weight in free:
        others = other_load / (4 * other_weight)
        assert not (others < fullness and other_held >= held)
        assert not (others == fullness and other_held > held)
        assert fullness - others <= PREFIX_WORTH


@settings(deadline=None)
@given(RUNNERS)
def test_without_prefixes_it_is_the_least_loaded(given: list[tuple[int, int, float]]) -> None:
    runners = [
        runner(str(number), load=load, weight=weight) for number, (load, _, weight) in enumerate(given)
    ]
    found = choose(runners, Wanted("predict", None, None, INPUT))
    if found is not None:
        least = min(load / (4 * weight) for load, _, weight in given if load < 4)
        assert found.load / (4 * found.weight) == least
