"""A replica as a runner of the hub: its streams are places, and its calls end as all others do."""

from __future__ import annotations

import pytest
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from gateway.clarifai.replicas import FakeReplica, Visitor, replicas_of, said, text_of
from gateway.fakes import World, turns
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.holding import QUIET_S, SETTLE_S
from penstock.gateway.clarifai.places import REOPEN_S
from penstock.gateway.clarifai.replicas import Replicas
from penstock.protocol.messages import CancelReason, Frame

pytestmark = pytest.mark.anyio


@pytest.fixture
def replicas(world: World) -> Replicas:
    return replicas_of(world.hub, world.clock)


def items(frames: list[Frame]) -> list[object]:
    return [frame.data for frame in frames if frame.status == "streaming"]


async def test_a_model_is_offered_by_its_methods_and_as_it_is(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    await runner.come(3)
    described = await world.hub.describe()
    assert sorted(described.commands) == [
        "toy.GenerateModelOutputs",
        "toy.PostModelOutputs",
        "toy.StreamModelOutputs",
        "toy.generate",
        "toy.predict",
        "toy.stream",
    ]
    world.clock.advance(1)
    assert (runner.replica.capacity, runner.replica.state) == (3, "connected")
    assert runner.replica.labels["clarifai_model"] == "toy"
    assert runner.replica.labels["clarifai_nodepool"] == "np1"


async def test_a_call_is_an_item_on_a_stream_of_its_own(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    await runner.come(2)
    live = await world.call("toy.generate", input=text_of("a"))
    other = await world.call("toy.predict", input=text_of("b"))
    await turns()
    first, second = runner.given()
    assert (first.method, second.method) == ("generate", "predict")
    assert len(first.line.told[0].runner_items) == 1
    assert len(first.item.id) == 32
    assert first.item.id not in (second.item.id, live.request_id)
    assert first.line.told[0].status.req_id == live.request_id
    second.answer("bb")
    first.say("a0")
    first.say("a1")
    first.half_close()
    assert items(await world.frames(live)) == ["a0", "a1"]
    assert (await world.last(other)).data == "bb"
    assert second.lane.stream.item_id == second.item.id


async def test_a_stream_is_a_place_again_when_the_replica_opens_the_next(
    world: World, replicas: Replicas
) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    live = await world.call("toy.predict", input=text_of("a"))
    waiting = await world.call("toy.predict", input=text_of("b"))
    await turns()
    stream.answer("aa")
    assert (await world.last(live)).data == "aa"
    await turns()
    assert waiting.started_at is None or not runner.given()[1:]
    following = runner.open()
    await turns()
    assert following.has_item
    following.answer("bb")
    assert (await world.last(waiting)).data == "bb"


async def test_a_stream_of_input_goes_out_item_by_item(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    live = await world.call("toy.stream", input=b"{}", more_input=True)
    await turns()
    assert not stream.has_item  # it begins with its first item of input
    assert live.inputs is not None
    live.inputs.send(b'"one"')
    await turns()
    stream.say("1")
    live.inputs.send(b'"two"')
    live.inputs.end()
    await turns()
    told = stream.line.told
    assert [len(each.runner_items) for each in told] == [1, 1, 0]
    assert told[2].status.code == codes.RUNNER_STREAM_END
    assert {each.runner_items[0].id for each in told[:2]} == {stream.item.id}
    stream.half_close()
    assert items(await world.frames(live)) == ["1"]


async def test_input_that_does_not_fit_ends_the_call(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    live = await world.call("toy.stream", input=b'{"text": ["a"]}', more_input=True)
    await turns()
    assert live.inputs is not None
    live.inputs.send(b"7")
    assert (await world.last(live)).code == "invalid_argument"
    assert runner.cancelled() == [stream.item.id]
    assert stream.line.ended
    live = await world.call("toy.stream", input=b"{}")
    runner.open()
    await turns()
    assert (await world.last(live)).code == "invalid_argument"


async def test_a_cancel_goes_on_the_control_stream(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    live = await world.call("toy.generate", input=text_of("a"))
    await turns()
    stream.say("a0")
    await turns()
    live.cancel(CancelReason.CALLER)
    await turns()
    assert runner.cancelled() == [stream.item.id]
    assert not stream.line.ended
    stream.say("a1")  # it goes on for a while
    stream.half_close()
    frames = await world.frames(live)
    assert (items(frames), frames[-1].status) == (["a0"], "cancelled")


async def test_an_item_that_runs_on_loses_its_stream(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    live = await world.call("toy.predict", input=text_of("a"))
    await turns()
    live.cancel(CancelReason.CALLER)
    await turns()
    world.clock.advance(1.0)
    assert stream.line.ended
    assert (await world.last(live)).status == "cancelled"
    assert not runner.replica.has_room("toy.predict")
    runner.open()
    await turns()
    assert runner.replica.has_room("toy.predict")


async def test_without_a_control_stream_a_cancel_ends_the_stream(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    await runner.introduce()
    stream = runner.open()
    live = await world.call("toy.generate", input=text_of("a"))
    await turns()
    live.cancel(CancelReason.CALLER)
    assert (await world.last(live)).status == "cancelled"
    assert stream.line.ended


async def test_an_item_that_was_never_written_is_never_sent(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    stream.line.stuck = True
    live = await world.call("toy.generate", input=text_of("a"))
    await turns()
    live.cancel(CancelReason.CALLER)
    assert (await world.last(live)).status == "cancelled"
    assert stream.line.ended
    assert runner.cancelled() == []


async def test_a_call_whose_stream_breaks_is_lost(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    first, second = await runner.come(2)
    silent = await world.call("toy.generate", input=text_of("a"))
    begun = await world.call("toy.generate", input=text_of("b"))
    await turns()
    second.say("b0")
    first.reset()
    second.reset()
    for live in (silent, begun):
        last = await world.last(live)
        assert (last.status, last.code, last.retryable) == ("error", "unavailable", True)


async def test_what_a_replica_does_wrong_hits_its_own_call_only(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    first, second = await runner.come(2)
    wronged = await world.call("toy.generate", input=text_of("a"))
    other = await world.call("toy.generate", input=text_of("b"))
    await turns()
    first.say("x", item_id=second.item.id)
    second.say("b0")
    second.half_close()
    assert (await world.last(wronged)).code == "upstream_failed"
    assert first.line.ended
    assert items(await world.frames(other)) == ["b0"]
    for nonsense in (b"\xff\xff", b"\x0a"):
        stream = runner.open()
        live = await world.call("toy.predict", input=text_of("a"))
        await turns()
        stream.lane.heard(nonsense)
        assert (await world.last(live)).code == "upstream_failed"
    idle = runner.open()
    idle.hear(said("0" * 32, "who asked?"))
    assert idle.line.ended


async def test_what_comes_too_late_is_not_told(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    live = await world.call("toy.predict", input=text_of("a"))
    await turns()
    stream.say("yes")
    stream.say("and no")
    assert stream.line.ended
    assert (await world.last(live)).data == "yes"


async def test_outputs_are_not_read_beyond_what_their_reader_takes(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    live = await world.call("toy.generate", input=text_of("a"))
    await turns()
    async with live.reader() as reader:
        sent = 0
        while stream.lane.may_read:
            stream.say("x" * 100_000)
            await turns()
            sent += 1
            assert sent < 100
        assert sent > 10
        stream.line.resumed = 0
        found = 0
        while not stream.lane.may_read:
            found += len((await reader.__anext__()).lines)
            await turns()
        assert stream.line.resumed
        stream.half_close()
        async for batch in reader:
            found += len(batch.lines)
    assert found == sent + 2  # and the first and the last frame


async def test_an_idle_stream_is_renewed(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    for _ in range(15):
        world.clock.advance(3)
    assert stream.line.ended
    assert runner.replica.connected
    following = runner.open()
    live = await world.call("toy.predict", input=text_of("a"))
    await turns()
    following.answer("aa")
    assert (await world.last(live)).data == "aa"


async def test_a_replica_that_comes_back_in_time_keeps_its_queue(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    replica = runner.replica
    live = await world.call("toy.predict", input=text_of("a"))
    waiting = await world.call("toy.predict", input=text_of("b"))
    await turns()
    stream.reset()
    assert runner.control is not None
    replica.close_control(runner.control)
    assert replica.state == "away"
    assert (await world.last(live)).code == "unavailable"
    world.clock.advance(10)
    stream = runner.open()
    await turns()
    assert stream.has_item
    stream.answer("bb")
    assert (await world.last(waiting)).data == "bb"
    assert runner.replica is replica


async def test_a_replica_that_stays_away_is_forgotten(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    replica = runner.replica
    stream.reset()
    assert runner.control is not None
    replica.close_control(runner.control)
    for _ in range(12):
        world.clock.advance(3)
    assert replica.gone
    assert not len(replicas)
    with pytest.raises(CallError) as refused:
        await world.call("toy.predict", input=text_of("a"))
    assert refused.value.code is ErrorCode.UNAVAILABLE


async def test_a_replica_may_be_drained_and_removed(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    stream, idle = await runner.come(2)
    name = runner.replica.name
    live = await world.call("toy.predict", input=text_of("a"))
    await turns()
    world.hub.set_draining(name, True)
    assert not runner.replica.has_room("toy.predict")
    stream.answer("aa")
    assert (await world.last(live)).data == "aa"
    world.hub.remove(name)
    assert idle.line.refused is not None
    assert idle.line.refused.code == codes.RUNNER_DOES_NOT_EXIST
    assert runner.control is not None
    assert runner.control.ended
    with pytest.raises(CallError, match="removed"):
        runner.open()


async def test_a_key_says_what_a_replica_may_offer(world: World, replicas: Replicas) -> None:
    bounded = FakeReplica(replicas, world.clock, visitor=Visitor("k", frozenset(("toy.predict", "more"))))
    await bounded.introduce()
    assert sorted((await world.hub.describe()).commands) == ["toy.predict"]
    nothing = FakeReplica(replicas, world.clock, "other", visitor=Visitor("k", frozenset(("toy.predict",))))
    first = nothing.open()
    await turns()
    spare = nothing.open()
    first.hear(said(first.item.id, code=codes.FAILURE))
    first.half_close()
    await nothing.settle()
    assert spare.line.refused is not None
    assert spare.line.refused.code == codes.CONN_INSUFFICIENT_SCOPES
    assert len(replicas) == 1


async def test_a_key_that_is_good_no_longer_ends_its_replica(world: World, replicas: Replicas) -> None:
    visitor = Visitor("k")
    runner = FakeReplica(replicas, world.clock, visitor=visitor)
    (stream,) = await runner.come(1)
    replica = runner.replica
    visitor.welcome = False
    world.clock.advance(3)
    assert replica.gone
    assert stream.line.ended


async def test_a_model_that_does_not_say_its_methods_is_offered_as_it_is(
    world: World, replicas: Replicas
) -> None:
    runner = FakeReplica(replicas, world.clock)
    first = runner.open()
    await turns()
    first.hear(said(first.item.id, code=codes.FAILURE))
    first.half_close()
    await runner.settle()
    assert sorted((await world.hub.describe()).commands) == [
        f"toy.{rpc}" for rpc in ("GenerateModelOutputs", "PostModelOutputs", "StreamModelOutputs")
    ]


async def test_two_processes_with_one_id_have_their_calls_side_by_side(
    world: World, replicas: Replicas
) -> None:
    one, two = FakeReplica(replicas, world.clock), FakeReplica(replicas, world.clock)
    await one.come(1)
    two.open_control()
    two.open()
    world.clock.advance(1)
    assert len(replicas) == 1
    lives = [await world.call("toy.generate", input=text_of(text)) for text in "ab"]
    await turns()
    (mine,), (theirs,) = one.given(), two.given()
    mine.reset()
    theirs.say("still here")
    theirs.half_close()
    ends = [(await world.last(live)).status for live in lives]
    assert sorted(ends) == ["completed", "error"]


async def test_a_new_stream_waits_for_the_end_of_older_items(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    stream, other = await runner.come(2)
    live = await world.call("toy.generate", input=text_of("a"))
    await world.call("toy.generate", input=text_of("long"))
    waiting = await world.call("toy.generate", input=text_of("b"))
    await turns()
    stream.say("a0")
    following = runner.open()  # its thread has written everything, but that was not read yet
    await turns()
    world.clock.advance(QUIET_S)
    assert not following.has_item
    stream.say("a1")
    stream.half_close()
    await turns()
    assert not following.has_item
    world.clock.advance(2 * SETTLE_S)
    await turns()
    assert following.has_item
    following.half_close()
    assert items(await world.frames(live)) == ["a0", "a1"]
    assert (await world.last(waiting)).status == "completed"
    other.half_close()


async def test_a_thread_more_is_used_when_the_older_streams_are_read_up(
    world: World, replicas: Replicas
) -> None:
    runner = FakeReplica(replicas, world.clock)
    (stream,) = await runner.come(1)
    await world.call("toy.generate", input=text_of("a"))
    await turns()
    following = runner.open()
    waiting = await world.call("toy.generate", input=text_of("b"))
    world.clock.advance(4 * QUIET_S)
    await turns()
    assert not following.has_item  # the older one is not even read
    stream.lane.reading_since = world.clock.monotonic()
    world.clock.advance(2 * QUIET_S)
    await turns()
    assert following.has_item
    following.half_close()
    assert (await world.last(waiting)).status == "completed"


async def test_places_are_counted_once(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    await runner.come(4)
    world.clock.advance(1)
    assert runner.replica.capacity == 4
    for _ in range(20):
        lives = [await world.call("toy.predict", input=text_of(text)) for text in "abcd"]
        await turns()
        for stream in [stream for stream in runner.streams if stream.lane.stream.wanted]:
            runner.open()  # before its last is closed
            stream.answer("x")
        for live in lives:
            assert (await world.last(live)).data == "x"
        assert runner.replica.capacity == 4
    world.clock.advance(REOPEN_S)
    assert runner.replica.capacity == 4


async def test_a_thread_that_goes_on_to_its_next_stream_is_not_away(world: World, replicas: Replicas) -> None:
    runner = FakeReplica(replicas, world.clock)
    await runner.introduce()
    stream = runner.open()
    live = await world.call("toy.predict", input=text_of("a"))
    await turns()
    stream.answer("aa")
    assert (await world.last(live)).data == "aa"
    assert runner.replica.state == "connected"
    world.clock.advance(REOPEN_S + 3)
    assert runner.replica.state == "away"
