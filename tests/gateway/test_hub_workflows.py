"""Workflows that runners offer, and the command of calls that name none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.fakes import PREDICT, FakeRunner, World, turns
from penstock.calls.live import Live
from penstock.errors import CallError, ErrorCode
from penstock.gateway.hub import Hub
from penstock.gateway.runner import Parting
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Route, Start
from penstock.protocol.runners import Offer, OfferedWorkflow, RunnerHello
from penstock.protocol.session import Check, Checked, Failure
from penstock.runtime.manifest import Manifest

pytestmark = pytest.mark.anyio

ADD = Offer(name="add", concurrency=2, queue=4)
PATTERN = {"type": "object", "properties": {"n": {"type": "string", "pattern": "^a"}}}


def workflow(name: str = "sum", command: str = "add", **spec: Any) -> OfferedWorkflow:
    step = {"id": "one", "command": command, "input": "${input}"}
    return OfferedWorkflow(name=name, spec={"steps": [step], **spec})


async def described(world: World) -> list[str]:
    return list((await world.hub.describe()).workflows)


async def end_steps(runner: FakeRunner, answer: object) -> None:
    for opened in await runner.opened():
        runner.end(opened.request_id, answer=json.dumps(answer).encode())


async def answered(world: World, live: Live) -> object:
    last = await world.last(live)
    assert last.status == "completed", last
    return last.data


async def test_each_step_runs_on_whichever_runner_takes_it(world: World) -> None:
    spec = {"steps": [{"id": "a", "command": "add"}, {"id": "b", "command": "predict"}]}
    one = world.runner("one", ADD, PREDICT, workflows=[OfferedWorkflow(name="both", spec=spec)])
    two = world.runner("two", PREDICT)
    world.hub.set_weight("one", 0.001)
    live = await world.workflow("both")
    await end_steps(one, 3)
    await turns()
    [opened] = await two.opened()
    two.item(opened.request_id, {"text": "x"})
    two.end(opened.request_id)
    assert await answered(world, live) == {"steps": {"a": 3, "b": {"text": "x"}}}


async def test_the_labels_of_a_workflow_are_those_of_its_steps(world: World) -> None:
    world.runner("one", ADD, workflows=[workflow()])
    two = world.runner("two", ADD, labels={"gpu": "a100"})
    for _ in range(3):
        live = await world.call("", workflow_id="sum", route=Route(labels={"gpu": "a100"}))
        await end_steps(two, 1)
        await answered(world, live)


async def test_of_several_runners_the_first_says_what_a_workflow_is(world: World) -> None:
    one = world.runner("one", ADD, workflows=[workflow(output="first")])
    two = world.runner("two", ADD, workflows=[workflow(output="second")])
    live = await world.workflow("sum")
    await end_steps(one, 1)
    await end_steps(two, 1)
    assert await answered(world, live) == "first"
    one.link.lose("it crashed", Parting.AWAY)
    live = await world.workflow("sum")
    await end_steps(two, 1)
    assert await answered(world, live) == "second"


async def test_a_workflow_is_gone_with_the_last_runner_that_offers_it(world: World) -> None:
    one = world.runner("one", ADD, workflows=[workflow()])
    world.runner("two", ADD)
    assert await described(world) == ["sum"]
    one.drop()
    assert await described(world) == ["sum"]  # it may come back
    world.clock.advance(30.0)
    assert await described(world) == []
    with pytest.raises(CallError, match="no runner that offers the workflow sum") as refused:
        await world.workflow("sum")
    assert refused.value.code is ErrorCode.UNAVAILABLE
    one.connect()
    assert await described(world) == ["sum"]


async def test_a_workflow_under_way_outlives_the_runner_that_offered_it(world: World) -> None:
    one = world.runner("one", ADD, workflows=[workflow(steps=[{"id": x, "command": "add"} for x in "ab"])])
    two = world.runner("two", ADD)
    world.hub.set_weight("one", 0.001)
    live = await world.workflow("sum")
    await end_steps(one, 1)
    world.hub.remove("one")
    assert await described(world) == []
    await turns()
    await end_steps(two, 2)
    assert await answered(world, live) == {"steps": {"a": 1, "b": 2}}


async def test_workflows_take_their_places_among_the_names_that_are_known(world: World) -> None:
    settings = world.hub.settings.model_copy(update={"max_commands": 2})
    object.__setattr__(world.hub, "settings", settings)
    world.runner("one", ADD, workflows=[workflow()])
    with pytest.raises(CallError, match="takes no more") as refused:
        world.runner("two", ADD, workflows=[workflow("other")])
    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED


async def test_a_key_says_which_workflows_may_be_offered(world: World) -> None:
    hello = RunnerHello(name="one", offers=[ADD], workflows=[workflow()])
    with pytest.raises(CallError, match="does not let it offer sum") as refused:
        world.hub.admit(hello, "", frozenset({"add"}))
    assert refused.value.code is ErrorCode.PERMISSION_DENIED
    world.hub.admit(hello, "", frozenset({"add", "sum"}))


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (workflow(command="predict"), "its steps run predict, which this runner does not offer"),
        (workflow(steps=[]), "steps"),
        (workflow(steps=3), "steps"),
        (workflow(output="${steps.two}"), "no step is called two"),
        (workflow(steps=[{"id": f"s{i}", "command": "add"} for i in range(257)]), "may have 256"),
        (workflow(output="${input}" * 1025), "more than 1024 references"),
    ],
    ids=["a foreign command", "no steps", "no list", "no reference", "many steps", "many references"],
)
async def test_what_is_no_workflow_is_refused_with_its_runner(
    world: World, offered: OfferedWorkflow, said: str
) -> None:
    with pytest.raises(CallError, match=said) as refused:
        world.runner("one", ADD, workflows=[offered])
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert len(world.hub.runners) == 0
    assert await described(world) == []


async def test_an_input_that_plainly_fits_is_taken_with_its_defaults(world: World) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 7}}, "required": ["n"]}
    one = world.runner("one", ADD, workflows=[workflow(input_schema=schema)])
    live = await world.workflow("sum")
    [opened] = await one.opened()
    assert json.loads(opened.input) == {"n": 7}
    one.end(opened.request_id, answer=b"1")
    assert await answered(world, live) == {"steps": {"one": 1}}


@pytest.mark.parametrize("properties", [3, [], {"n": 3}, {"n": {"default": 3, "type": 3}}])
async def test_a_schema_that_is_none_breaks_nothing(world: World, properties: object) -> None:
    one = world.runner("one", ADD, workflows=[workflow(input_schema={"properties": properties})])
    asked = world.hub.links.start(world.workflow("sum", n="x"))
    [check] = [message for message in await one.listen() if isinstance(message, Check)]
    one.say(Checked(number=check.number))
    live = await asked
    await end_steps(one, 1)
    await answered(world, live)


@pytest.mark.parametrize("refusal", [None, CallError("n: no", ErrorCode.INVALID_ARGUMENT)])
async def test_what_does_not_plainly_fit_is_put_to_a_runner_that_offers_it(
    world: World, refusal: CallError | None
) -> None:
    other = world.runner("other", ADD)
    one = world.runner("one", ADD, workflows=[workflow(input_schema=PATTERN)])
    asked = world.hub.links.start(world.workflow("sum", n="b"))
    [check] = [message for message in await one.listen() if isinstance(message, Check)]
    assert (check.workflow, check.command, check.input) == ("sum", "", b'{"n": "b"}')
    one.say(Checked(number=check.number, error=refusal and Failure.of(refusal)))
    if refusal is None:
        live = await asked
        for runner in (one, other):
            await end_steps(runner, 1)
        await answered(world, live)
    else:
        with pytest.raises(CallError, match="n: no"):
            await asked


async def test_where_nobody_can_say_it_is_refused(world: World) -> None:
    one = world.runner("one", ADD, workflows=[workflow(input_schema=PATTERN)])
    one.drop()
    with pytest.raises(CallError, match="no runner is there to say") as refused:
        await world.workflow("sum", n="b")
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert (refused.value.retryable, len(world.hub._store)) == (True, 0)


async def test_a_runner_that_is_lost_while_it_is_asked_leaves_the_call_refused(world: World) -> None:
    one = world.runner("one", ADD, workflows=[workflow(input_schema=PATTERN)])
    asked = world.hub.links.start(world.workflow("sum", n="b"))
    await turns()
    one.drop()
    with pytest.raises(CallError, match="does not say") as refused:
        await asked
    assert refused.value.code is ErrorCode.UNAVAILABLE


# -- the command of calls that name none -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("offers", "theirs", "chosen"),
    [
        ((ADD, PREDICT), "add", "predict"),
        ((ADD,), "add", "add"),
        ((ADD,), "", "predict"),
        ((ADD,), "other", "predict"),
    ],
    ids=["the usual one", "the runner's", "none", "none that is offered"],
)
async def test_calls_that_name_no_command(
    world: World, offers: tuple[Offer, ...], theirs: str, chosen: str
) -> None:
    world.runner("one", *offers, default_command=theirs)
    assert (await world.hub.describe()).default_command == chosen
    if chosen in {offer.name for offer in offers}:
        live = await world.hub.open(Start(command=""), LOCAL)
        assert live.start.command == chosen
    else:
        with pytest.raises(CallError, match="no command 'predict'"):
            await world.hub.open(Start(command=""), LOCAL)


async def test_what_was_set_counts() -> None:
    async with Hub(Manifest(name="gateway", default_command="add")) as hub:
        FakeRunner(hub, "one", (ADD, PREDICT)).connect()
        assert hub.default_command == "add"
        assert (await hub.describe()).default_command == "add"
