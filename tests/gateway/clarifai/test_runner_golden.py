"""What was recorded between Clarifai's own runner and a gateway that was made for it, said again: what the
runner says is as it was then, and what this gateway sends has to be what was sent then.

Of the records only what a gateway should send is here; what was tried out to see what breaks is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf.json_format import ParseDict

from gateway.clarifai.replicas import FakeReplica, Stream, replicas_of, text_of
from gateway.fakes import World, turns
from penstock.calls.live import Live
from penstock.gateway.clarifai.forms import KINDS
from penstock.gateway.clarifai.hello import read_hello
from penstock.gateway.clarifai.streams import Said, Told
from penstock.protocol.clarifai.names import RAW
from penstock.protocol.clarifai.raw import read_response, write_request
from penstock.protocol.clarifai.statuses import name_of
from penstock.protocol.messages import CancelReason, Frame

pytestmark = pytest.mark.anyio

RECORD: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("traces").joinpath("runner_items.json").read_text()
)
CANCELLED = {row["msg"]["runner_items"][0]["id"] for row in RECORD["cancels"]}
RPCS = {"UNARY_UNARY": RAW[0], "UNARY_STREAMING": RAW[1], "STREAMING_STREAMING": RAW[2]}


def item_of(row: dict[str, Any]) -> str:
    """Return the id of an item, as it was then."""
    return str(row["turns"][0][1]["runner_items"][0]["id"])


def told_of(row: dict[str, Any]) -> list[Told]:
    """Return what the gateway sent."""
    return [ParseDict(turn[1], Told()) for turn in row["turns"] if turn[0] == "sent"]


def said_of(row: dict[str, Any], item_id: str) -> list[Said]:
    """Return what the runner sent, with the item's id as it is now."""
    messages = [ParseDict(turn[1], Said()) for turn in row["turns"] if turn[0] == "said"]
    for message in messages:
        assert message.runner_item_id == item_of(row)
        message.runner_item_id = item_id
    return messages


def anonymous(told: Told) -> Told:
    """Return a message without what is each gateway's own: ids of items and requests."""
    found = Told()
    found.CopyFrom(told)
    found.status.req_id = ""
    for item in found.runner_items:
        item.id = ""
    return found


async def opened(world: World, runner: FakeReplica, row: dict[str, Any]) -> tuple[Live, Stream]:
    """Open the call that the item was for; all of its input comes."""
    first, *further = told_of(row)
    request = first.runner_items[0].post_model_outputs_request
    is_bidi = row["kind"] == "STREAMING_STREAMING"
    command = f"toy.{RPCS[row['kind']]}"
    live = await world.call(command, input=write_request(request), more_input=is_bidi)
    for told in further:
        assert live.inputs is not None
        if told.runner_items:
            live.inputs.send(write_request(told.runner_items[0].post_model_outputs_request))
        else:
            live.inputs.end()
    await turns()
    (stream,) = runner.given()
    return live, stream


def shown(frames: list[Frame]) -> list[Any]:
    """Return the responses that a caller gets."""
    data = [frame.data for frame in frames if frame.data is not msgspec.UNSET and frame.data is not None]
    return [read_response(json.dumps(each).encode()) for each in data]


@pytest.mark.parametrize("row", RECORD["items"], ids=lambda row: f"{row['trace']}-{item_of(row)[:12]}")
async def test_an_item_goes_as_it_went(world: World, row: dict[str, Any]) -> None:
    runner = FakeReplica(replicas_of(world.hub, world.clock), world.clock)
    await runner.come(1)
    live, stream = await opened(world, runner, row)
    assert stream.item.processing_info.runner_method_type == KINDS[RPCS[row["kind"]]]
    assert list(map(anonymous, stream.line.told)) == list(map(anonymous, told_of(row)))
    messages = said_of(row, stream.item.id)
    for message in messages:
        stream.hear(message)
    if item_of(row) in CANCELLED:
        await turns()
        live.cancel(CancelReason.CALLER)
        await turns()
        assert runner.cancelled() == [stream.item.id]
    stream.half_close()
    frames = await world.frames(live)
    assert frames[-1].status == ("cancelled" if item_of(row) in CANCELLED else "completed")
    given = [output.multi_output_response for message in messages for output in message.runner_item_outputs]
    assert shown(frames) == given
    assert not stream.line.ended  # the replica closed it


@pytest.mark.parametrize("row", RECORD["cancels"], ids=lambda row: row["trace"])
async def test_a_cancel_goes_as_it_went(world: World, row: dict[str, Any]) -> None:
    runner = FakeReplica(replicas_of(world.hub, world.clock), world.clock)
    await runner.come(1)
    live = await world.call("toy.generate", input=text_of("a"))
    await turns()
    live.cancel(CancelReason.CALLER)
    await turns()
    assert runner.control is not None
    (told,) = runner.control.told
    assert anonymous(told) == anonymous(ParseDict(row["msg"], Told()))
    runner.given()[0].half_close()


@pytest.mark.parametrize("row", RECORD["failures"], ids=lambda row: row["trace"])
async def test_what_the_runner_fails_at_is_told(world: World, row: dict[str, Any]) -> None:
    runner = FakeReplica(replicas_of(world.hub, world.clock), world.clock)
    await runner.come(1)
    live = await world.call("toy.predict", input=text_of("a"))
    await turns()
    (stream,) = runner.given()
    message = ParseDict(row["msg"], Said())
    if message.runner_item_id:
        message.runner_item_id = stream.item.id
    stream.hear(message)
    stream.half_close()
    last = await world.last(live)
    assert (last.code, last.retryable) == ("unavailable", True)
    assert last.error == message.status.details


@pytest.mark.parametrize(
    "row", RECORD["hellos"], ids=lambda row: f"{row['trace']}-{row['x-request-id'][:14]}"
)
def test_a_hello_says_who_comes(row: dict[str, Any]) -> None:
    message = ParseDict(row["msg"], Said())
    hello = read_hello(message.SerializeToString(), {"x-request-id": row["x-request-id"]}, "key")
    assert hello.control == row["x-request-id"].startswith("runner-control-")
    assert hello.primary == row["x-request-id"].endswith("-p")
    who = hello.who
    assert (who.user, who.runner, who.nodepool, who.compute_cluster) == ("u1", "r1", "np1", "cc1")
    assert who.replica == row["msg"]["runner_replica_id"]
    assert name_of(message.status.code) == "RUNNER_STREAM_START"
