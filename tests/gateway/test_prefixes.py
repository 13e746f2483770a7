"""What runners tell of their caches: taken in order, bounded, forgotten; lies and floods harm nobody."""

from __future__ import annotations

import json

import pytest

from gateway.fakes import PREDICT, FakeRunner, World, turns
from penstock.errors import RemoteProtocolError
from penstock.gateway import prefixes
from penstock.gateway.hub import Hub
from penstock.gateway.prefixes import RunnerPrefixes
from penstock.gateway.settings import GatewaySettings
from penstock.kv.prompts import read_prompt
from penstock.protocol.runners import Offer
from penstock.protocol.session import MAX_NAMED, Cached
from penstock.testing import FakeClock

pytestmark = pytest.mark.anyio

OFFER = Offer(
    name="predict",
    streaming=True,
    concurrency=4,
    queue=4,
    idempotent=True,
    input_schema={"type": "object", "properties": {"prompt": {"type": "string"}}},
)
NAMES = [number.to_bytes(16, "big") for number in range(4 * MAX_NAMED)]


def prompt(name: str) -> bytes:
    return json.dumps({"prompt": f"{name} " * 500}).encode()


def blocks(name: str) -> list[bytes]:
    found = read_prompt(prompt(name))
    assert found is not None
    return found.chain()


def told(*messages: Cached, most: int = 1000) -> RunnerPrefixes:
    known = RunnerPrefixes(most)
    for message in messages:
        known.hear(message)
    return known


def test_what_is_told_is_known_from_the_first_block_on() -> None:
    known = told(
        Cached(number=5, anew=True, held=NAMES[:4]), Cached(number=6, gone=NAMES[2:4], held=NAMES[8:9])
    )
    assert [known.longest(chain) for chain in (NAMES[:4], NAMES[1:4], NAMES[8:9], [])] == [2, 1, 1, 0]
    assert known.blocks == 3


@pytest.mark.parametrize(
    "messages",
    [
        (Cached(number=1, held=NAMES[:4]),),
        (Cached(number=1, anew=True, held=NAMES[:4]), Cached(number=3, held=NAMES[4:5])),
        (Cached(number=1, anew=True, held=NAMES[:4]), Cached(number=1, held=NAMES[4:5])),
        (Cached(number=1, anew=True, held=NAMES[:4]), Cached(number=3), Cached(number=4, held=NAMES[4:5])),
    ],
    ids=["never begun", "gap", "twice", "behind a gap"],
)
def test_behind_a_gap_nothing_is_known_until_it_begins_anew(messages: tuple[Cached, ...]) -> None:
    known = told(*messages)
    assert known.blocks == 0
    known.hear(Cached(number=9, anew=True, held=NAMES[:2]))
    known.hear(Cached(number=10, held=NAMES[2:3]))
    assert known.longest(NAMES) == 3


def test_only_so_many_blocks_are_kept_in_mind() -> None:
    known = told(Cached(number=0, anew=True, held=NAMES[:8]), most=5)
    known.hear(Cached(number=1, gone=NAMES[100:200], held=NAMES[10:20]))
    assert (known.blocks, known.longest(NAMES)) == (5, 5)
    known.hear(Cached(number=2, gone=NAMES[:2], held=NAMES[20:30]))
    assert known.blocks == 5
    assert told(Cached(number=0, anew=True, held=NAMES[:8]), most=0).blocks == 0


def test_who_tells_without_end_breaks_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "MAX_TOLD", 3 * MAX_NAMED + 10)
    known = RunnerPrefixes(100)
    flood = Cached(number=0, anew=True, held=NAMES[:MAX_NAMED])
    for _ in range(3):
        known.hear(flood)
    with pytest.raises(RemoteProtocolError, match="told of more"):
        known.hear(flood)
    known.beat()
    known.hear(flood)
    assert known.blocks == 100


def tell(runner: FakeRunner, *names: str) -> None:
    held = [block for name in names for block in blocks(name)]
    runner.say(Cached(number=0, anew=True, held=held))


async def went_to(world: World, name: str, *runners: FakeRunner) -> str:
    live = await world.call(input=prompt(name))
    found = [(runner, opening) for runner in runners for opening in await runner.opened()]
    [(runner, opening)] = found
    runner.end(opening.request_id)
    await world.last(live)
    return runner.hello.name


async def test_calls_go_where_their_prompt_is_held(world: World) -> None:
    one, two = world.runner("one", OFFER), world.runner("two", OFFER)
    tell(one, "ant", "bee")
    tell(two, "cat")
    for _ in range(2):
        assert [await went_to(world, name, one, two) for name in ("ant", "cat", "bee")] == [
            "one",
            "two",
            "one",
        ]
    two.say(Cached(number=1, gone=blocks("cat")))
    one.say(Cached(number=1, held=blocks("cat")))
    assert await went_to(world, "cat", one, two) == "one"


async def test_a_call_that_moves_goes_to_the_next_best(world: World) -> None:
    runners = [world.runner(name, OFFER) for name in ("one", "two", "three")]
    one, two, three = runners
    tell(one, "ant")
    two.say(Cached(number=0, anew=True, held=blocks("ant")[:9]))
    tell(three, "bee")
    live = await world.call(input=prompt("ant"))
    assert len(await one.opened()) == 1
    one.drop()
    [opening] = await two.opened()
    two.end(opening.request_id)
    await world.last(live)


async def test_a_call_that_waits_takes_what_is_held_when_there_is_room(world: World) -> None:
    narrow = Offer(name="predict", streaming=True, concurrency=1, queue=4, input_schema=OFFER.input_schema)
    one, two = world.runner("one", narrow), world.runner("two", narrow)
    busy = [await world.call(input=prompt("bee")) for _ in range(2)]
    [first], [second] = await one.opened(), await two.opened()
    waiting = await world.call(input=prompt("ant"))
    tell(two, "ant")
    two.end(second.request_id)
    [opening] = await two.opened()
    for runner, request_id in ((one, first.request_id), (two, opening.request_id)):
        runner.end(request_id)
    for live in (*busy, waiting):
        await world.last(live)


async def test_what_a_runner_held_is_forgotten_with_it(world: World) -> None:
    one = world.runner("one", OFFER)
    tell(one, "ant")
    one.drop()
    world.clock.advance(world.hub.settings.resume_s + 1)
    await turns()
    again = world.runner("one", OFFER)
    assert again.link.prefixes.blocks == 0


async def test_a_runner_that_comes_back_is_known_until_it_begins_anew(world: World) -> None:
    one = world.runner("one", OFFER)
    tell(one, "ant")
    one.drop()
    one.connect()
    assert one.link.prefixes.longest(blocks("ant")) == len(blocks("ant"))
    tell(one, "bee")
    assert one.link.prefixes.longest(blocks("ant")) == 0


async def test_a_flood_costs_the_runner_its_session_and_others_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefixes, "MAX_TOLD", 2 * MAX_NAMED)
    liar, good = world.runner("liar", OFFER), world.runner("good", OFFER)
    live = await world.call(input=prompt("ant"))
    calls = {name: await runner.opened() for name, runner in (("liar", liar), ("good", good))}
    liar.say(*(Cached(number=n, anew=True, held=NAMES[:MAX_NAMED]) for n in range(3)))
    assert liar.link.gone
    assert liar.connection.closed is not None
    assert liar.connection.closed[0] == 1002
    [opening] = calls["good"] or await good.opened()
    good.end(opening.request_id)
    assert (await world.last(live)).status == "completed"


async def test_a_gateway_may_do_without() -> None:
    clock = FakeClock()
    async with Hub(settings=GatewaySettings(prefix_blocks=0), clock=clock) as hub:
        world = World(hub, clock)
        one, two = world.runner("one", OFFER), world.runner("two", OFFER)
        tell(one, "ant")
        assert {await went_to(world, "ant", one, two) for _ in range(2)} == {"one", "two"}


async def test_a_command_without_a_prompt_goes_to_the_least_loaded(world: World) -> None:
    one, two = world.runner("one", PREDICT), world.runner("two", PREDICT)
    tell(one, "ant")
    assert {await went_to(world, "ant", one, two) for _ in range(2)} == {"one", "two"}
