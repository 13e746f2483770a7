"""The hub with runners that come, go, come back and lie."""

from __future__ import annotations

import json

import msgspec
import pytest

from gateway.fakes import IDEMPOTENT, PREDICT, FakeConnection, FakeRunner, World, turns
from penstock.calls.inputs import MAX_WAITING
from penstock.calls.live import Live
from penstock.errors import CallError, ErrorCode
from penstock.gateway import runner_link
from penstock.gateway.runner import Parting
from penstock.gateway.runner_link import CLOSE_CODES
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, Route
from penstock.protocol.runners import Offer, OfferedTimeouts, RunnerHello
from penstock.protocol.session import (
    Cancel,
    Checked,
    Close,
    Credit,
    End,
    Failure,
    Input,
    InputEnd,
    InputTaken,
    Items,
    Open,
    Ping,
    Pong,
    Progress,
)

AWAY, BROKE, REMOVED = (CLOSE_CODES[why] for why in (Parting.AWAY, Parting.BROKE, Parting.REMOVED))
pytestmark = pytest.mark.anyio

HEARTBEAT_S, RESUME_S = 3.0, 30.0


# -- calls -----------------------------------------------------------------------------------------------


async def test_a_call_runs_on_a_runner_and_its_frames_come_back(world: World) -> None:
    one = world.runner()
    live = await world.call(input=b'{"prompt": "A fox"}', task_id="fox")
    [opened] = await one.opened()
    assert (opened.command, opened.input, opened.task_id) == ("predict", b'{"prompt": "A fox"}', "fox")
    one.item(opened.request_id, {"i": 0}, {"i": 1})
    one.end(opened.request_id)
    frames = await world.frames(live)
    assert [frame.status for frame in frames] == ["accepted", "streaming", "streaming", "completed"]
    assert [frame.data for frame in frames[1:3]] == [{"i": 0}, {"i": 1}]
    assert one.link.load == 0


async def test_an_answer_and_an_error_come_back_as_they_are(world: World) -> None:
    one = world.runner("one", Offer(name="add", concurrency=2))
    good, bad = await world.call("add"), await world.call("add")
    first, second = await one.opened()
    one.end(first.request_id, answer=b'{"sum":3}')
    error = CallError("no", ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=7, details=[{"reason": "x"}])
    one.end(second.request_id, error=Failure.of(error))
    assert (await world.frames(good))[-1].status == "completed"
    last = await world.last(bad)
    assert (last.code, last.error, last.retry_after_s) == ("resource_exhausted", "no", 7)


async def test_a_cancel_reaches_the_runner_and_the_place_is_free_when_it_has_stopped(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    live.cancel(CancelReason.CALLER)
    assert (await world.last(live)).status == "cancelled"  # it waits for nobody's clean-up
    [cancel] = await one.cancelled()
    assert cancel == Cancel(request_id=opened.request_id, reason=CancelReason.CALLER)
    assert one.link.load == 1
    one.end(opened.request_id, reason=CancelReason.CALLER)
    await turns()
    assert one.link.load == 0


async def test_code_that_does_not_stop_is_reported_and_keeps_its_place(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    live.cancel(CancelReason.CALLER)
    world.clock.advance(2.0)
    assert live.stuck
    assert (await world.hub.health()).checks["stuck"] == "1"
    assert one.link.load == 1
    one.end(opened.request_id, reason=CancelReason.CALLER)
    await turns()
    assert not live.stuck


async def test_credit_is_given_as_items_are_taken(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    item = b'"' + b"x" * (opened.window // 2) + b'"'
    one.say(Items(request_id=opened.request_id, items=[item]))
    assert Credit(request_id=opened.request_id, size=len(item)) in await one.listen()
    one.end(opened.request_id)
    await world.last(live)


async def test_an_expired_call_does_not_reach_a_runner(world: World) -> None:
    one = world.runner("one", Offer(name="predict", streaming=True, concurrency=1, queue=4))
    first = await world.call()
    second = await world.call(timeout_s=1.0)
    world.clock.advance(1.0)
    assert (await world.last(second)).code == "deadline_exceeded"
    [opened] = await one.opened()
    assert opened.request_id == first.request_id
    one.end(opened.request_id)
    await world.last(first)
    assert await one.opened() == []


async def test_the_time_that_remains_travels_with_a_call(world: World) -> None:
    one = world.runner("one", Offer(name="predict", streaming=True, timeouts=OfferedTimeouts(total_s=9.0)))
    live = await world.call()
    [opened] = await one.opened()
    assert opened.remaining_s == 9.0
    one.end(opened.request_id)
    await world.last(live)


async def test_a_stream_of_input_reaches_the_runner_in_order(world: World) -> None:
    one = world.runner("one", Offer(name="chat", streaming=True, takes_stream=True))
    live = await world.call("chat", more_input=True)
    live.send(b'"before"')
    [opened, before] = await one.listen()
    live.send(b'"after"')
    live.end_input()
    live.end_input()
    with pytest.raises(CallError, match="has ended"):
        live.send(b'"late"')
    request_id = opened.request_id  # type: ignore[union-attr]
    assert before == Input(request_id=request_id, item=b'"before"')
    assert await one.listen() == [
        Input(request_id=request_id, item=b'"after"'),
        InputEnd(request_id=request_id),
    ]
    one.end(request_id)
    await world.last(live)


async def test_an_item_of_input_that_is_no_json_is_refused_and_the_call_goes_on(world: World) -> None:
    one = world.runner("one", Offer(name="chat", streaming=True, takes_stream=True))
    live = await world.call("chat", more_input=True)
    with pytest.raises(CallError, match="not JSON"):
        live.send(b"{")
    [opened] = await one.opened()
    one.end(opened.request_id)
    assert (await world.last(live)).status == "completed"


COUNTING = Offer(name="chat", streaming=True, takes_stream=True, counts_input=True, queue=4)


async def too_fast(live: Live, item: bytes = b"0") -> None:
    with pytest.raises(CallError, match="send more slowly") as refused:
        live.send(item)
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.RESOURCE_EXHAUSTED, 1)


async def test_an_item_that_outruns_its_runner_is_refused_and_the_call_goes_on(world: World) -> None:
    one = world.runner("one", COUNTING)
    live = await world.call("chat", more_input=True)
    for number in range(100):
        live.send(b"%d" % number)  # while it has no runner yet
    [opened] = await one.opened()
    assert opened.counts_input
    for number in range(100, MAX_WAITING):
        live.send(b"%d" % number)
    await too_fast(live)
    one.say(InputTaken(request_id=opened.request_id, count=3))
    for number in range(3):
        live.send(b"%d" % number)
    await too_fast(live)
    one.say(InputTaken(request_id=opened.request_id, count=10**9))
    live.send(b"1")
    one.end(opened.request_id)
    assert (await world.last(live)).status == "completed"
    one.say(InputTaken(request_id=opened.request_id, count=1))  # passed over
    assert one.link.takes


async def test_items_that_outrun_a_call_without_a_runner_are_refused(world: World) -> None:
    one = world.runner("one", COUNTING)
    first = await world.call("chat", more_input=True)
    await turns()
    live = await world.call("chat", more_input=True)
    for _ in range(MAX_WAITING):
        live.send(b"0")
    await too_fast(live)
    for each in (first, live):
        each.cancel(CancelReason.CALLER)
    await one.listen()


async def test_a_runner_that_does_not_count_is_sent_what_comes(world: World) -> None:
    one = world.runner("one", Offer(name="chat", streaming=True, takes_stream=True))
    live = await world.call("chat", more_input=True)
    [opened] = await one.opened()
    for _ in range(MAX_WAITING + 1):
        live.send(b"0")
    one.end(opened.request_id)
    await world.last(live)


async def test_input_for_a_runner_that_takes_nothing_harms_no_other_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_link, "MAX_INPUT_KEPT", 10_000)
    one = world.runner("one", msgspec.structs.replace(COUNTING, concurrency=3))
    live, other = await world.call("chat", more_input=True), await world.call("chat", more_input=True)
    [opened, _] = await one.opened()
    one.drop()
    live.send(b'"%b"' % (b"x" * 9_000))
    for each in (live, other):
        await too_fast(each, b'"%b"' % (b"x" * 9_000))
    late = await world.call("chat", more_input=True)  # it waits for the runner
    late.send(b'"%b"' % (b"x" * 12_000))
    one.connect()
    assert (await world.last(late)).code == "resource_exhausted"
    assert [type(message) for message in await one.listen()] == [Input, Open, Cancel]
    one.end(opened.request_id)
    assert (await world.last(live)).status == "completed"


# -- inputs ----------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_what_does_not_plainly_fit_is_put_to_a_runner_which_refuses_it(world: World) -> None:
    one = world.runner("one", Offer(name="predict", streaming=True, input_schema=SCHEMA))
    error = Failure.of(CallError("n: no integer", ErrorCode.INVALID_ARGUMENT))

    async def judge() -> None:
        [check] = await one.listen()
        one.say(Checked(number=check.number, error=error))  # type: ignore[union-attr]

    judging = world.hub.links.start(judge())
    with pytest.raises(CallError, match="n: no integer"):
        await world.call(input=b'{"n": "x"}')
    await judging
    assert not world.hub.tasks(LOCAL)


async def test_an_input_is_put_to_a_runner_that_may_run_it(world: World) -> None:
    offer = Offer(name="predict", streaming=True, input_schema=SCHEMA)
    other = world.runner("other", offer, labels={"size": "small"})
    right = world.runner("right", offer, labels={"size": "large"})

    async def judge() -> None:
        [check] = await right.listen()
        right.say(Checked(number=check.number))  # type: ignore[union-attr]

    judging = world.hub.links.start(judge())
    live = await world.call(input=b'{"n": "x"}', route=Route(labels={"size": "large"}))
    await judging
    assert await other.listen() == []
    [opened] = await right.opened()
    right.end(opened.request_id)
    await world.last(live)


async def test_what_a_runner_does_not_judge_in_time_is_judged_where_it_runs(world: World) -> None:
    one = world.runner("one", Offer(name="predict", streaming=True, input_schema=SCHEMA))

    async def vanish() -> None:
        await one.listen()
        one.drop()
        one.connect()

    vanishing = world.hub.links.start(vanish())
    live = await world.call(input=b'{"n": "x"}')
    await vanishing
    [opened] = await one.opened()
    one.end(opened.request_id)
    await world.last(live)


async def test_an_input_that_is_no_object_is_refused_here(world: World) -> None:
    world.runner()
    with pytest.raises(CallError, match="should be an object") as refused:
        await world.call(input=b"[]")
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


# -- where it runs ---------------------------------------------------------------------------------------


async def test_the_runner_with_the_most_room_gets_the_call(world: World) -> None:
    small = world.runner("small", Offer(name="predict", streaming=True, concurrency=1))
    large = world.runner("large", Offer(name="predict", streaming=True, concurrency=3))
    lives = [await world.call() for _ in range(4)]
    opened = [*await small.opened(), *await large.opened()]
    assert (small.link.load, large.link.load) == (1, 3)
    for runner in (small, large):
        for call in opened:
            if call.request_id in runner.link._calls:
                runner.end(call.request_id)
    for live in lives:
        await world.last(live)


async def test_a_weight_is_a_share_of_the_calls(world: World) -> None:
    stable, canary = world.runner("stable"), world.runner("canary")
    world.hub.set_weight("canary", 0.25)
    counts = {"stable": 0, "canary": 0}
    for _ in range(50):
        live = await world.call()
        for runner in (stable, canary):
            for opened in await runner.opened():
                counts[runner.link.name] += 1
                runner.end(opened.request_id)
        await world.last(live)
    assert counts == {"stable": 40, "canary": 10}


async def test_no_weight_is_no_call_and_a_weight_is_a_number(world: World) -> None:
    world.runner("one")
    world.hub.set_weight("one", 0)
    with pytest.raises(CallError) as refused:
        await world.call()
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.UNAVAILABLE, 5)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(CallError, match="between"):
            world.hub.set_weight("one", wrong)


async def test_a_key_sticks_to_its_runner_whoever_comes_and_goes(world: World) -> None:
    runners = {name: world.runner(name) for name in ("a", "b", "c")}

    async def where(sticky: str) -> str:
        live = await world.call(route=Route(sticky=sticky))
        for name, runner in runners.items():
            for opened in await runner.opened():
                runner.end(opened.request_id)
                await world.last(live)
                return name
        raise AssertionError

    keys = [f"user-{number}" for number in range(12)]
    before = {key: await where(key) for key in keys}
    assert set(before.values()) == set(runners)
    assert {key: await where(key) for key in keys} == before
    lost = runners.pop("b")
    lost.drop()
    after = {key: await where(key) for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != "b")
    assert "b" not in after.values()


async def test_labels_are_where_a_call_may_run(world: World) -> None:
    plain = world.runner("plain")
    gpu = world.runner("gpu", labels={"gpu": "a100", "zone": "x"})
    live = await world.call(route=Route(labels={"gpu": "a100"}))
    assert await plain.opened() == []
    [opened] = await gpu.opened()
    gpu.end(opened.request_id)
    await world.last(live)


async def test_labels_that_nobody_has_are_unavailable(world: World) -> None:
    world.runner("plain")
    live = await world.call(route=Route(labels={"gpu": "h100"}))
    last = await world.last(live)
    assert (last.code, last.retryable) == ("unavailable", True)
    assert "labels" in (last.error or "")


async def test_a_runner_takes_no_more_than_its_capacity(world: World) -> None:
    one = world.runner("one", PREDICT, Offer(name="other", streaming=True, concurrency=2), capacity=2)
    lives = [await world.call("predict"), await world.call("other"), await world.call("other")]
    opened = await one.opened()
    assert len(opened) == 2
    for call in opened:
        one.end(call.request_id)
    [third] = await one.opened()
    one.end(third.request_id)
    for live in lives:
        assert (await world.last(live)).status == "completed"


# -- the queue -------------------------------------------------------------------------------------------


async def test_calls_wait_in_a_queue_with_positions_and_bounds(world: World) -> None:
    one = world.runner("one", Offer(name="predict", streaming=True, concurrency=1, queue=2))
    lives = [await world.call(notes=True) for _ in range(3)]
    with pytest.raises(CallError) as refused:
        await world.call()
    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
    for _ in lives:
        [opened] = await one.opened()
        one.end(opened.request_id)
    frames = [await world.frames(live) for live in lives]
    positions = [[frame.position for frame in of_one if frame.status == "queued"] for of_one in frames]
    assert positions == [[], [1], [2]]


async def test_another_runner_lets_those_in_that_wait(world: World) -> None:
    one = world.runner("one", Offer(name="predict", streaming=True, concurrency=1, queue=4))
    lives = [await world.call() for _ in range(3)]
    assert len(await one.opened()) == 1
    two = world.runner("two", PREDICT)
    assert len(await two.opened()) == 2
    for runner in (one, two):
        for request_id in tuple(runner.link._calls):
            runner.end(request_id)
    for live in lives:
        assert (await world.last(live)).status == "completed"


async def test_calls_wait_for_a_runner_that_may_come_back(world: World) -> None:
    one = world.runner()
    one.drop()
    live = await world.call()
    await turns()
    assert live.ending is None
    one.connect()
    [opened] = await one.opened()
    one.end(opened.request_id)
    assert (await world.last(live)).status == "completed"


async def test_calls_that_wait_for_a_runner_that_does_not_come_back_end(world: World) -> None:
    one = world.runner()
    running = [await world.call() for _ in range(2)]
    await one.opened()
    one.drop()
    waiting = await world.call()
    world.clock.advance(RESUME_S)
    for live in (*running, waiting):
        last = await world.last(live)
        assert (last.status, last.code, last.retryable) == ("error", "unavailable", True)
    with pytest.raises(CallError) as refused:
        await world.call()
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.UNAVAILABLE, 5)


async def test_a_command_that_nobody_ever_offered_is_not_found(world: World) -> None:
    with pytest.raises(CallError) as refused:
        await world.call("predict")
    assert refused.value.code is ErrorCode.NOT_FOUND


# -- away, and back --------------------------------------------------------------------------------------


async def test_a_link_that_drops_and_comes_back_loses_and_repeats_nothing(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    request_id = opened.request_id
    one.item(request_id, 0)
    one.session.push(Items(request_id=request_id, items=[b"1"]))
    lost = one.session.parcel()  # written, and never arrived
    assert lost
    one.drop()
    one.session.push(Items(request_id=request_id, items=[b"2"]))
    one.connect()
    one.give(one.session.parcel())
    one.end(request_id)
    frames = await world.frames(live)
    assert [frame.data for frame in frames if frame.status == "streaming"] == [0, 1, 2]
    assert frames[-1].status == "completed"


async def test_what_the_gateway_said_meanwhile_is_heard_after_a_drop(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    one.drop()
    live.cancel(CancelReason.CALLER)
    assert (await world.last(live)).status == "cancelled"
    one.connect()
    assert await one.cancelled() == [Cancel(request_id=opened.request_id, reason=CancelReason.CALLER)]
    one.end(opened.request_id, reason=CancelReason.CALLER)


async def test_a_second_connection_of_a_session_takes_the_place_of_the_first(world: World) -> None:
    one = world.runner()
    first = one.connection
    live = await world.call()
    [opened] = await one.opened()
    one.connect()  # the first was half open, and nobody has noticed yet
    assert first.closed is not None
    one.link.detach(first)
    assert one.link.connected
    one.link.feed(first, one.session.parcel())  # passed over
    one.item(opened.request_id, 0)
    one.end(opened.request_id)
    assert (await world.last(live)).status == "completed"


async def test_a_runner_that_does_not_answer_is_away_within_three_heartbeats(world: World) -> None:
    one = world.runner()
    await world.beat(one, times=5)
    assert one.link.connected
    one.answers_pings = False
    await world.beat(one, times=2)
    assert one.link.connected
    await world.beat(one)
    assert (one.link.state, one.connection.closed) == ("away", (AWAY, "it does not answer"))


async def test_whatever_a_runner_says_shows_that_it_is_there(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    one.answers_pings = False
    for number in range(6):
        world.clock.advance(HEARTBEAT_S)
        one.item(opened.request_id, number)
    assert one.link.connected
    one.end(opened.request_id)
    await world.last(live)


async def test_a_runner_gets_no_call_before_it_is_known_to_have_its_session(world: World) -> None:
    session = world.hub.admit(RunnerHello(name="one", offers=[PREDICT]))
    connection = FakeConnection()
    session.attach(connection, 0)
    live = await world.call()
    assert (session.state, session.load) == ("connecting", 0)
    assert (await world.hub.health()).status == "starting"
    session.detach(connection)  # the welcome was lost, and nobody can come back to this session
    assert session.gone
    assert (await world.last(live)).code == "unavailable"


async def test_a_session_that_is_gone_is_answered_with_a_new_one(world: World) -> None:
    one = world.runner()
    session = one.link.identity.session
    one.drop()
    world.clock.advance(RESUME_S)
    one.connect()
    assert one.link.identity.session != session
    assert one.link.connected


# -- moving ----------------------------------------------------------------------------------------------


async def test_an_idempotent_call_moves_once_before_its_first_item(world: World) -> None:
    one = world.runner("one", IDEMPOTENT)
    live = await world.call()
    [first] = await one.opened()
    two = world.runner("two", IDEMPOTENT)
    one.drop()
    [second] = await two.opened()
    assert second.request_id == first.request_id
    two.item(second.request_id, "two")
    one.connect()
    assert [cancel.reason for cancel in await one.cancelled()] == [CancelReason.RUNNER_LOST]
    one.item(first.request_id, "one")
    one.end(first.request_id)  # nobody listens
    two.end(second.request_id)
    frames = await world.frames(live)
    assert [frame.data for frame in frames if frame.status == "streaming"] == ["two"]
    assert [frame.status for frame in frames].count("completed") == 1


async def test_it_moves_to_a_runner_that_comes_later(world: World) -> None:
    one = world.runner("one", IDEMPOTENT)
    live = await world.call()
    await one.opened()
    one.drop()
    two = world.runner("two", IDEMPOTENT)
    [opened] = await two.opened()
    two.end(opened.request_id)
    assert (await world.last(live)).status == "completed"


async def test_it_does_not_move_twice(world: World) -> None:
    runners = [world.runner(name, IDEMPOTENT) for name in ("a", "b", "c")]
    live = await world.call()
    tried = 0
    for _ in range(2):
        [runner] = [runner for runner in runners if await runner.opened()]
        tried += 1
        runner.drop()
        runners.remove(runner)
    assert tried == 2
    world.clock.advance(RESUME_S)
    assert (await world.last(live)).code == "unavailable"
    assert await runners[0].opened() == []


@pytest.mark.parametrize("how", ["not idempotent", "begun", "takes a stream"])
async def test_other_calls_do_not_move(world: World, how: str) -> None:
    offer = IDEMPOTENT if how != "not idempotent" else PREDICT
    if how == "takes a stream":
        offer = msgspec.structs.replace(offer, takes_stream=True)
    one = world.runner("one", offer)
    live = await world.call()
    [opened] = await one.opened()
    two = world.runner("two", offer)
    if how == "begun":
        one.item(opened.request_id, 0)
    one.drop()
    await turns()
    assert await two.opened() == []
    one.connect()
    one.end(opened.request_id)
    assert (await world.last(live)).status == "completed"


async def test_a_call_that_is_cancelled_while_it_looks_for_another_place_takes_none(world: World) -> None:
    one = world.runner("one", IDEMPOTENT)
    live = await world.call()
    await one.opened()
    full = world.runner("two", msgspec.structs.replace(IDEMPOTENT, concurrency=1))
    other = await world.call(route=None)
    [busy] = [*await full.opened(), *await one.opened()]
    one.drop()
    await turns()
    live.cancel(CancelReason.CALLER)
    assert (await world.last(live)).status == "cancelled"
    if busy.request_id in full.link._calls:
        full.end(busy.request_id)
        await world.last(other)
    world.clock.advance(RESUME_S)
    await turns()
    for request_id in tuple(full.link._calls):
        full.end(request_id)
    await world.frames(other)
    await turns()
    assert full.link.load == 0


# -- state -----------------------------------------------------------------------------------------------

STATEFUL = (PREDICT, Offer(name="initialize"), Offer(name="cleanup"))


async def initialise(world: World, *runners: FakeRunner, given: bytes = b'{"model":"a"}') -> None:
    """Have `initialize` run, on all of these."""
    live = await world.call("initialize", input=given)
    for runner in runners:
        [opened] = await runner.opened()
        assert (opened.command, opened.input) == ("initialize", given)
        runner.end(opened.request_id, answer=b'{"state":["model"]}')
    assert (await world.last(live)).status == "completed"


async def test_initialize_runs_on_every_runner_and_on_those_that_come_later(world: World) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    plain = world.runner("plain")
    await initialise(world, one, two)
    assert await plain.opened() == []
    later = world.runner("later", *STATEFUL)
    assert later.link.state == "connecting"  # it gets no calls yet
    [opened] = await later.opened()
    assert (opened.command, opened.input) == ("initialize", b'{"model":"a"}')
    later.end(opened.request_id, answer=b"{}")
    await turns()
    assert later.link.takes
    later.drop()
    later.connect()  # the same process, which has it
    assert later.link.takes


async def test_a_runner_whose_state_cannot_be_made_gets_no_calls_and_may_come_again(world: World) -> None:
    one = world.runner("one", *STATEFUL)
    await initialise(world, one)
    later = world.runner("later", *STATEFUL)
    [opened] = await later.opened()
    later.end(opened.request_id, error=Failure(code=ErrorCode.COMMAND_FAILED, message="no", retryable=False))
    await turns()
    assert later.link.gone
    assert later.connection.closed == (AWAY, "it is not in the state that is in force")


FAILED = Failure(code=ErrorCode.COMMAND_FAILED, message="no", retryable=False)


async def fail_on(world: World, command: str, one: FakeRunner, two: FakeRunner, given: bytes = b"{}") -> None:
    """Have a command run well on one runner and fail on another."""
    live = await world.call(command, input=given)
    [first], [second] = await one.opened(), await two.opened()
    assert {first.command, second.command} == {command}
    one.end(first.request_id, answer=b"{}")
    assert one.link.takes
    two.end(second.request_id, error=FAILED)
    last = await world.last(live)
    assert (last.code, last.error) == ("command_failed", "no")


async def test_an_initialize_that_fails_on_one_is_undone_on_the_others(world: World) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    await fail_on(world, "initialize", one, two)
    [undo] = await one.opened()
    assert (undo.command, undo.input, one.link.takes, two.link.takes) == ("cleanup", b"{}", False, True)
    assert await two.opened() == []
    one.end(undo.request_id, answer=b"{}")
    await turns()
    assert one.link.takes
    assert world.runner("later", *STATEFUL).link.takes  # nothing is in force


@pytest.mark.parametrize("command", ["initialize", "cleanup"])
async def test_what_was_in_force_is_given_again(world: World, command: str) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    await initialise(world, one, two)
    await fail_on(world, command, one, two, b'{"model":"b"}')
    [undo] = await one.opened()
    assert (undo.command, undo.input, one.link.takes) == ("initialize", b'{"model":"a"}', False)
    one.end(undo.request_id, answer=b"{}")
    await turns()
    assert one.link.takes
    assert await two.opened() == []


async def test_where_it_cannot_be_undone_the_runner_is_let_go(world: World) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    await fail_on(world, "initialize", one, two)
    [undo] = await one.opened()
    one.end(undo.request_id, error=FAILED)
    await turns()
    assert one.connection.closed == (AWAY, "it is not in the state that is in force")
    assert two.link.takes


async def test_an_initialize_that_is_cancelled_is_undone_where_it_had_ended(world: World) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    live = await world.call("initialize")
    [first], [second] = await one.opened(), await two.opened()
    one.end(first.request_id, answer=b"{}")
    await turns()
    live.cancel(CancelReason.CALLER)
    await two.cancelled()
    two.end(second.request_id, reason=CancelReason.CALLER)
    [undo] = await one.opened()
    assert undo.command == "cleanup"
    one.end(undo.request_id, answer=b"{}")
    assert await two.opened() == []


async def test_one_makes_state_after_the_other(world: World) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    lives = [await world.call("initialize", input=b'{"model":"%d"}' % number) for number in range(2)]
    for number, live in enumerate(lives):
        for runner in (one, two):
            [opened] = await runner.opened()
            assert opened.input == b'{"model":"%d"}' % number
            runner.end(opened.request_id, answer=b"{}")
        assert (await world.last(live)).status == "completed"
    later = world.runner("later", *STATEFUL)
    [opened] = await later.opened()
    assert opened.input == b'{"model":"1"}'


async def test_a_runner_that_was_away_gets_what_it_missed(world: World) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    two.drop()
    await initialise(world, one)
    two.connect()
    assert not two.link.takes
    [opened] = await two.opened()
    assert (opened.command, opened.input) == ("initialize", b'{"model":"a"}')
    two.end(opened.request_id, answer=b"{}")
    await turns()
    assert two.link.takes


async def test_cleanup_runs_everywhere_too_and_then_nothing_is_in_force(world: World) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    await initialise(world, one, two)
    live = await world.call("cleanup")
    for runner in (one, two):
        [opened] = await runner.opened()
        assert opened.command == "cleanup"
        runner.end(opened.request_id, answer=b"{}")
    assert (await world.last(live)).status == "completed"
    assert world.runner("later", *STATEFUL).link.takes


async def test_a_runner_that_is_lost_while_it_initialises_fails_the_call(world: World) -> None:
    one, two = world.runner("one", *STATEFUL), world.runner("two", *STATEFUL)
    live = await world.call("initialize")
    [first] = await one.opened()
    one.end(first.request_id, answer=b"{}")
    world.hub.remove("two")
    assert (await world.last(live)).code == "unavailable"
    assert two.link.gone
    [undo] = await one.opened()
    assert undo.command == "cleanup"


# -- who is who ------------------------------------------------------------------------------------------


async def test_a_second_runner_of_a_name_is_refused_while_the_first_is_there(world: World) -> None:
    one = world.runner()
    with pytest.raises(CallError) as refused:
        world.runner()
    assert refused.value.code is ErrorCode.CONFLICT
    assert one.link.connected


async def test_a_second_runner_of_a_name_takes_the_place_of_one_that_is_away(world: World) -> None:
    one = world.runner()
    live = await world.call()
    await one.opened()
    one.drop()
    again = world.runner()
    assert (await world.last(live)).code == "unavailable"
    assert again.link.connected
    assert one.link.gone


async def test_another_session_of_a_known_name_is_no_proof(world: World) -> None:
    one = world.runner()
    hello = RunnerHello(name="one", session="0" * 32, offers=[PREDICT])
    with pytest.raises(CallError, match="connected already"):
        world.hub.admit(hello)
    other = RunnerHello(name="other", session=one.link.identity.session, offers=[PREDICT])
    assert world.hub.admit(other) is not one.link
    world.hub.runners.find("other").lose("the test is over", Parting.LEFT)


async def test_a_session_belongs_to_the_key_it_was_begun_with(world: World) -> None:
    hello = RunnerHello(name="one", offers=[PREDICT])
    runner = world.hub.admit(hello, "key-a")
    again = msgspec.structs.replace(hello, session=runner.identity.session)
    with pytest.raises(CallError, match="connected already"):
        world.hub.admit(again, "key-b")
    assert world.hub.admit(again, "key-a") is runner
    runner.lose("the test is over", Parting.LEFT)


async def test_a_key_says_what_may_be_offered(world: World) -> None:
    hello = RunnerHello(name="one", offers=[PREDICT, Offer(name="other")])
    with pytest.raises(CallError, match="does not let it offer other") as refused:
        world.hub.admit(hello, "", frozenset({"predict"}))
    assert refused.value.code is ErrorCode.PERMISSION_DENIED
    assert len(world.hub.runners) == 0


async def test_a_key_that_is_revoked_ends_the_runner_at_the_next_heartbeat(world: World) -> None:
    welcome = [True]
    runner = world.hub.admit(RunnerHello(name="one", offers=[PREDICT]), "", None, lambda: welcome[0])
    one = FakeRunner(world.hub, "one", (PREDICT,))
    one.link = runner
    runner.attach(one.connection, 0)
    one.give(one.session.parcel())
    await world.beat(one)
    welcome[0] = False
    await world.beat(one)
    assert one.connection.closed == (REMOVED, "its key is no longer good")
    assert runner.gone


async def test_runners_and_commands_are_bounded(world: World) -> None:
    world.hub.runners._max_runners = 1
    world.runner("one")
    with pytest.raises(CallError) as refused:
        world.runner("two")
    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
    many = RunnerHello(name="many", offers=[Offer(name=f"c{number}") for number in range(256)])
    world.hub.runners._max_runners = 10
    object.__setattr__(world.hub, "settings", world.hub.settings.model_copy(update={"max_commands": 200}))
    with pytest.raises(CallError, match="takes no more"):
        world.hub.admit(many)


# -- draining and removing -------------------------------------------------------------------------------


async def test_a_drained_runner_gets_no_calls_and_finishes_its_own(world: World) -> None:
    one, two = world.runner("one"), world.runner("two")
    live = await world.call()
    [runner] = [runner for runner in (one, two) if await runner.opened()]
    other = two if runner is one else one
    world.hub.set_draining(runner.link.name, True)
    more = [await world.call() for _ in range(2)]
    assert len(await other.opened()) == 2
    assert await runner.opened() == []
    for each in (one, two):
        for request_id in tuple(each.link._calls):
            each.end(request_id)
    for each_live in (live, *more):
        assert (await world.last(each_live)).status == "completed"
    world.hub.set_draining(runner.link.name, False)
    assert runner.link.takes


async def test_a_runner_that_leaves_gets_no_calls_and_is_gone_with_its_connection(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    one.say(Close())
    assert Close() in await one.listen()
    with pytest.raises(CallError) as refused:
        await world.call()
    assert refused.value.code is ErrorCode.UNAVAILABLE
    one.end(opened.request_id)
    assert (await world.last(live)).status == "completed"
    one.drop()
    assert one.link.gone
    assert len(world.hub.runners) == 0


async def test_a_leaving_runner_whose_connection_drops_may_come_back_for_its_calls(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    one.say(Close())
    one.drop()
    assert one.link.state == "away"
    one.connect()
    one.end(opened.request_id)
    assert (await world.last(live)).status == "completed"


async def test_a_removed_runner_is_gone_and_so_are_its_calls(world: World) -> None:
    one = world.runner()
    live = await world.call()
    await one.opened()
    world.hub.remove("one")
    assert one.connection.closed == (REMOVED, "it was removed")
    assert (await world.last(live)).code == "unavailable"
    with pytest.raises(CallError, match="no runner 'one'"):
        world.hub.remove("one")


# -- lies and floods -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parcel", [b"", b"\x00", b"garbage", b"\x93\x01\x00\x91", msgspec.msgpack.encode([9, 0, []])]
)
async def test_what_is_no_parcel_breaks_the_connection_and_nothing_else(world: World, parcel: bytes) -> None:
    one, two = world.runner("one"), world.runner("two")
    live = await world.call(route=Route(sticky="x"))
    [runner] = [runner for runner in (one, two) if await runner.opened()]
    other = two if runner is one else one
    runner.give(parcel)
    assert runner.connection.closed == (BROKE, "that was no parcel")
    assert (runner.link.state, other.link.state) == ("away", "connected")
    runner.connect()
    runner.end(live.request_id)
    assert (await world.last(live)).status == "completed"


async def test_a_parcel_that_comes_twice_is_heard_once(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    one.session.push(Items(request_id=opened.request_id, items=[b"0"]))
    parcel = one.session.parcel()
    one.give(parcel)
    one.give(parcel)
    one.end(opened.request_id)
    frames = await world.frames(live)
    assert [frame.data for frame in frames if frame.status == "streaming"] == [0]


async def test_a_parcel_before_its_turn_is_asked_for_again(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    one.session.push(Items(request_id=opened.request_id, items=[b"0"]))
    first = one.session.parcel()
    one.session.push(Items(request_id=opened.request_id, items=[b"1"]))
    second = one.session.parcel()
    one.give(second)
    one.give(first)  # too late: the connection is broken
    one.connect()
    one.give(one.session.parcel())
    one.end(opened.request_id)
    frames = await world.frames(live)
    assert [frame.data for frame in frames if frame.status == "streaming"] == [0, 1]


@pytest.mark.parametrize("request_id", ["", "0" * 32, "unknown"])
async def test_what_is_said_of_an_unknown_call_is_passed_over(world: World, request_id: str) -> None:
    one = world.runner()
    one.item(request_id, 0)
    one.end(request_id)
    one.say(Pong(number=77), Checked(number=5))
    assert one.link.connected


async def test_nobody_can_speak_for_another_runners_call(world: World) -> None:
    one, two = world.runner("one"), world.runner("two")
    live = await world.call()
    [runner] = [runner for runner in (one, two) if await runner.opened()]
    liar = two if runner is one else one
    liar.item(live.request_id, "a lie")
    liar.end(live.request_id)
    runner.end(live.request_id)
    assert [frame.status for frame in await world.frames(live)] == ["accepted", "completed"]


async def test_what_comes_behind_the_end_is_passed_over(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    one.end(opened.request_id)
    one.item(opened.request_id, 0)
    one.end(opened.request_id, error=Failure(code=ErrorCode.INTERNAL, message="", retryable=False))
    assert [frame.status for frame in await world.frames(live)] == ["accepted", "completed"]
    assert one.link.connected


@pytest.mark.parametrize(
    "item", [b"", b"{", b"1,2", b'{"a":\n1}', b"1\r", b'"\xff"', b"NaN", b'"a', b"[" * 100_000]
)
async def test_an_item_that_is_no_json_on_one_line_ends_the_runner(world: World, item: bytes) -> None:
    one, two = world.runner("one"), world.runner("two")
    lives = [await world.call(), await world.call()]
    await one.listen()
    [good] = await two.opened()
    [bad] = tuple(one.link._calls)
    one.say(Items(request_id=bad, items=[b"1", item]))
    assert (one.link.gone, one.connection.closed and one.connection.closed[0]) == (True, BROKE)
    two.end(good.request_id)
    ends = [await world.last(live) for live in lives]
    assert sorted(end.status for end in ends) == ["completed", "error"]


@pytest.mark.parametrize("message", [End, Progress])
async def test_what_else_is_no_json_ends_the_runner(world: World, message: type) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    rest = {"answer": b"{"} if message is End else {"about": b"[]"}
    one.say(message(request_id=opened.request_id, **rest))
    assert one.link.gone
    assert (await world.last(live)).code == "unavailable"


async def test_a_flood_ends_the_runner_and_memory_is_bounded(world: World) -> None:
    one = world.runner()
    live = await world.call()
    [opened] = await one.opened()
    item = b'"' + b"x" * (8 * 1024 * 1024) + b'"'
    sent = 0
    while not one.link.gone:
        one.say(Items(request_id=opened.request_id, items=[item]))
        sent += len(item)
        assert sent < 128 * 1024 * 1024
    assert (await world.last(live)).code == "unavailable"


async def test_a_runner_that_never_sends_is_bounded_by_the_budgets(world: World) -> None:
    timeouts = OfferedTimeouts(first_item_s=2.0)
    one = world.runner("one", Offer(name="predict", streaming=True, timeouts=timeouts))
    live = await world.call()
    [opened] = await one.opened()
    world.clock.advance(2.0)
    assert (await world.last(live)).code == "deadline_exceeded"
    one.end(opened.request_id, reason=CancelReason.DEADLINE)


async def test_opening_and_cancelling_in_haste_leaves_nothing(world: World) -> None:
    one = world.runner("one", Offer(name="predict", streaming=True, concurrency=5, queue=100))
    for number in range(100):
        live = await world.call()
        if number % 3:
            await turns(number % 5)
        live.cancel(CancelReason.CALLER)
    for _ in range(60):
        for message in await one.listen():
            if isinstance(message, Cancel):
                one.end(message.request_id, reason=CancelReason.CALLER)
    await turns()
    assert not world.hub._working
    assert one.link.load == 0


async def test_pings_of_a_runner_are_answered(world: World) -> None:
    one = world.runner()
    one.say(Ping(number=9))
    assert Pong(number=9) in await one.listen()


# -- what is shown ---------------------------------------------------------------------------------------


async def test_it_is_ready_once_a_runner_is_there(world: World) -> None:
    health = await world.hub.health()
    assert (health.status, health.phase) == ("starting", "waiting for a runner")
    one = world.runner()
    health = await world.hub.health()
    assert (health.status, health.phase, health.checks) == ("healthy", "ready", {"one": "connected, 0 calls"})
    one.drop()
    health = await world.hub.health()
    assert (health.status, health.checks) == ("starting", {"one": "away for 0 s, 0 calls wait"})


async def test_what_runners_offer_is_merged(world: World) -> None:
    world.runner("one", Offer(name="a", description="A", input_schema={"type": "object"}))
    two = world.runner("two", Offer(name="b", streaming=True), Offer(name="a", description="not this"))
    description = await world.hub.describe()
    assert {name: shown.description for name, shown in description.commands.items()} == {"a": "A", "b": ""}
    assert description.commands["b"].streaming
    assert json.loads(json.dumps(description.commands["a"].input_schema)) == {"type": "object"}
    two.say(Close())
    two.drop()
    assert set((await world.hub.describe()).commands) == {"a"}


async def test_what_is_described_is_what_the_runners_that_are_there_offer(world: World) -> None:
    async def commands() -> list[str]:
        return list((await world.hub.describe()).commands)

    assert await commands() == []
    world.runner("one", PREDICT)
    assert await commands() == ["predict"]
    world.runner("two", Offer(name="add"))
    assert await commands() == ["predict", "add"]
    assert await world.hub.describe() is await world.hub.describe()  # requests ask often
    world.hub.remove("one")
    assert await commands() == ["add"]
