"""The client RPCs, without a socket."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from clarifai_grpc.grpc.api import resources_pb2 as proto
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from gateway.clarifai.callers import (
    CHAT,
    ECHO,
    SAY,
    FakeContext,
    Request,
    Response,
    Site,
    given,
    output,
    raw_item,
    request,
    texts,
)
from gateway.fakes import WAIT_S, FakeRunner, World, turns
from penstock.calls.tasks import TaskOwner
from penstock.protocol.clarifai import raw
from penstock.protocol.clarifai.signatures import read_signatures
from penstock.protocol.clarifai.statuses import name_of
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import Cancel, Check, Checked, Failure, Input, InputEnd, Open

pytestmark = pytest.mark.anyio


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


class Asking:
    """An RPC under way."""

    def __init__(self, site: Site, rpc: str, asked: Any, key: str = "") -> None:
        self.context = FakeContext(key)
        self.tasks = TaskOwner()
        self.task = self.tasks.start(site.rpc(rpc)(asked, self.context), awaited=True)

    async def answer(self) -> Any:
        """Return the answer, or what was written."""
        with anyio.fail_after(WAIT_S):
            answer = await self.task
        return self.context.written if answer is None else answer


async def opened(runner: FakeRunner, count: int = 1) -> list[Open]:
    """Return calls once they have come."""
    found: list[Open] = []
    with anyio.fail_after(WAIT_S):
        while len(found) < count:
            found += await runner.opened()
    return found


async def cancelled(runner: FakeRunner, call: Open) -> CancelReason:
    """Return why a call was cancelled, once it was; it then stops."""
    with anyio.fail_after(WAIT_S):
        while True:
            for message in runner.heard:
                if isinstance(message, Cancel) and message.request_id == call.request_id:
                    runner.end(call.request_id, reason=message.reason)
                    return message.reason
            await runner.listen()


def failure(message: str, code: str = "command_failed") -> Failure:
    return Failure(code=code, message=message, retryable=False)


def answer(runner: FakeRunner, call: Open, value: object) -> None:
    runner.end(call.request_id, answer=json.dumps(value).encode())


def code(answer: Response) -> str:
    return name_of(answer.status.code)


# -- commands of penstock's own runners ----------------------------------------------------------------


async def test_a_command_is_a_method_of_the_gateway(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "PostModelOutputs", request("gateway", "echo", {"text": "hi"}))
    (call,) = await opened(runner)
    assert (call.command, json.loads(call.input)) == ("echo", {"text": "hi"})
    answer(runner, call, "HI")
    found = await asking.answer()
    assert texts([found]) == ["HI"]
    assert len(found.status.req_id) == 32


async def test_a_model_is_what_runners_say_it_is(site: Site) -> None:
    mine = site.native("mine", clarifai_model="toy")
    site.native("other", clarifai_model="other")
    asking = Asking(site, "PostModelOutputs", request("toy", "echo", {"text": "hi"}))
    (call,) = await opened(mine)
    answer(mine, call, "HI")
    assert texts([await asking.answer()]) == ["HI"]


async def test_a_batch_is_a_call_for_each_input(site: Site) -> None:
    runner = site.native()
    asking = Asking(
        site, "PostModelOutputs", request("gateway", "echo", {"text": "a"}, {"text": "b"}, {"text": "c"})
    )
    calls = await opened(runner, 3)
    for call in reversed(calls[:2]):
        answer(runner, call, json.loads(call.input)["text"] * 2)
    runner.end(calls[2].request_id, error=failure("no text"))
    found = await asking.answer()
    assert code(found) == "MIXED_STATUS"
    assert [name_of(each.status.code) for each in found.outputs] == ["SUCCESS", "SUCCESS", "FAILURE"]
    assert texts([Response(status=found.outputs[0].status, outputs=found.outputs[:2])]) == ["aa", "bb"]
    assert found.outputs[2].status.details == "no text"


async def test_a_batch_of_which_nothing_went_well_failed(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "PostModelOutputs", request("gateway", "echo", {"text": "a"}, {"text": "b"}))
    for call in await opened(runner, 2):
        runner.end(call.request_id, error=failure("no"))
    assert code(await asking.answer()) == "FAILURE"


async def test_tokens_are_told(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "PostModelOutputs", request("gateway", "echo", {"text": "hi"}))
    (call,) = await opened(runner)
    live = site.world.hub.find(call.request_id, LOCAL)
    live.engine_report = _Report({"prompt_tokens": 3, "completion_tokens": 5, "cached_tokens": -1})
    answer(runner, call, "HI")
    found = (await asking.answer()).outputs[0]
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (3, 5, 0)


class _Report:
    def __init__(self, found: dict[str, int]) -> None:
        self._found = found

    def fields(self) -> dict[str, int]:
        return self._found


async def test_a_stream(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "GenerateModelOutputs", request("gateway", "say", {"text": "hi"}))
    (call,) = await opened(runner)
    runner.item(call.request_id, "a", "b")
    runner.end(call.request_id)
    assert texts(await asking.answer()) == ["a", "b"]


async def test_a_stream_that_fails_says_so_at_its_end(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "GenerateModelOutputs", request("gateway", "say", {"text": "hi"}))
    (call,) = await opened(runner)
    runner.item(call.request_id, "a")
    runner.end(call.request_id, error=failure("broke"))
    found = await asking.answer()
    assert texts(found) == ["a", "FAILURE"]
    assert found[-1].status.details == "broke"


async def test_an_empty_stream_has_a_message(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "GenerateModelOutputs", request("gateway", "say", {"text": "hi"}))
    (call,) = await opened(runner)
    runner.end(call.request_id)
    assert texts(await asking.answer()) == ["FAILURE"]


async def test_a_command_that_answers_once_is_a_stream_of_one(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "GenerateModelOutputs", request("gateway", "echo", {"text": "hi"}))
    (call,) = await opened(runner)
    answer(runner, call, "HI")
    assert texts(await asking.answer()) == ["HI"]


async def test_a_stream_of_input(site: Site) -> None:
    runner = site.native()
    inputs = given(*(request("gateway", "chat", {"lines": line}) for line in "abc"))
    asking = Asking(site, "StreamModelOutputs", inputs)
    (call,) = await opened(runner)
    assert json.loads(call.input) == {"lines": ["a"]}
    await turns()
    more = await heard(runner, 3)
    assert [message.item for message in more[:2] if isinstance(message, Input)] == [b'"b"', b'"c"']
    assert isinstance(more[2], InputEnd)
    runner.item(call.request_id, "x")
    runner.end(call.request_id)
    assert texts(await asking.answer()) == ["x"]


async def heard(runner: FakeRunner, count: int) -> list[Any]:
    """Return what of the input has come."""
    with anyio.fail_after(WAIT_S):
        while len(found := [each for each in runner.heard if isinstance(each, (Input, InputEnd))]) < count:
            await runner.listen()
    return found


async def test_input_that_is_refused_ends_the_call(site: Site) -> None:
    runner = site.native()
    bad = request("gateway", "chat", {"lines": "b"}, {"lines": "c"})
    asking = Asking(site, "StreamModelOutputs", given(request("gateway", "chat", {"lines": "a"}), bad))
    (call,) = await opened(runner)
    assert await cancelled(runner, call) is CancelReason.CALLER
    found = await asking.answer()
    assert texts(found) == ["MODEL_INVALID_ARGUMENT"]
    assert found[0].status.details == "2 inputs; an item of a stream is one"


async def test_input_that_breaks_ends_the_call(site: Site) -> None:
    async def broken() -> AsyncIterator[Request]:
        yield request("gateway", "chat", {"lines": "a"})
        raise ValueError("not a message")

    runner = site.native()
    asking = Asking(site, "StreamModelOutputs", broken())
    (call,) = await opened(runner)
    assert await cancelled(runner, call) is CancelReason.CALLER
    found = await asking.answer()
    assert found[-1].status.details == "the stream of input broke"


async def test_what_the_methods_are(site: Site) -> None:
    site.native("one", ECHO, CHAT)
    found = await site.ask("PostModelOutputs", request("gateway", "_GET_SIGNATURES", {"": ""}))
    methods = read_signatures(found.outputs[0].data.text.raw)
    assert [method.name for method in methods] == ["echo", "chat"]
    assert methods[1].method_type == proto.STREAMING_STREAMING


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rpc", "asked", "status", "said"),
    [
        ("PostModelOutputs", request("nope", "echo", {"text": ""}), "MODEL_DOES_NOT_EXIST", "'nope'"),
        ("PostModelOutputs", request("gateway", "eco", {}), "MODEL_INVALID_ARGUMENT", "chat, echo, say"),
        ("PostModelOutputs", request("gateway", "", {}), "MODEL_INVALID_ARGUMENT", "'predict'"),
        ("PostModelOutputs", request("gateway", "echo"), "MODEL_INVALID_ARGUMENT", "0 inputs"),
        ("PostModelOutputs", request("gateway", "echo", *[{}] * 129), "MODEL_INVALID_ARGUMENT", "1 to 128"),
        ("PostModelOutputs", request("gateway", "say", {}), "MODEL_INVALID_ARGUMENT", "GenerateModelOutputs"),
        ("GenerateModelOutputs", request("gateway", "say", {}, {}), "MODEL_INVALID_ARGUMENT", "2 inputs"),
        ("GenerateModelOutputs", request("gateway"), "MODEL_INVALID_ARGUMENT", "0 inputs"),
        ("StreamModelOutputs", request("gateway", "echo", {}), "MODEL_INVALID_ARGUMENT", "does not take a"),
        ("StreamModelOutputs", None, "MODEL_INVALID_ARGUMENT", "without an input"),
    ],
)
async def test_what_is_refused(site: Site, rpc: str, asked: Any, status: str, said: str) -> None:
    site.native()
    if rpc.startswith("Stream"):
        asked = given() if asked is None else given(asked)
    found = await Asking(site, rpc, asked).answer()
    (found,) = found if isinstance(found, list) else [found]
    assert code(found) == status
    assert said in found.status.details


async def test_a_key_that_is_not_known_is_refused(site: Site) -> None:
    site.native()
    asked = request("gateway", "say", {"text": "hi"})
    for rpc in ("PostModelOutputs", "GenerateModelOutputs"):
        found = await Asking(site, rpc, asked, "stranger").answer()
        assert texts(found if isinstance(found, list) else [found]) == ["CONN_KEY_INVALID"]
    found = await Asking(site, "StreamModelOutputs", given(asked), "runner-1").answer()
    assert texts(found) == ["CONN_INSUFFICIENT_SCOPES"]


async def test_what_is_wrong_with_the_input_is_told(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "PostModelOutputs", request("gateway", "echo", {"txt": "hi"}))
    with anyio.fail_after(WAIT_S):
        while not (checks := [each for each in await runner.listen() if isinstance(each, Check)]):
            pass
    refusal = failure("txt: unknown input", "invalid_argument")
    runner.say(Checked(number=checks[0].number, error=refusal))
    found = await asking.answer()
    assert (code(found), found.status.details) == ("MODEL_INVALID_ARGUMENT", "txt: unknown input")


async def test_a_bug_is_told_as_one(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    found = await site.ask("PostModelOutputs", None)
    assert code(found) == "INTERNAL_UNCATEGORIZED"
    assert "AttributeError" in caplog.text


# -- runners that go -----------------------------------------------------------------------------------


async def test_a_runner_that_is_away_is_waited_for_by_the_client(site: Site) -> None:
    runner = site.raw()
    site.world.hub.set_draining(runner.hello.name, True)
    found = await site.ask("PostModelOutputs", request("toy", "predict", {"text": "hi"}))
    assert code(found) == "MODEL_BUSY_PLEASE_RETRY"
    found = await site.ask("PostModelOutputs", request("gateway", "echo", {"text": "hi"}))
    assert code(found) == "MODEL_BUSY_PLEASE_RETRY"
    site.native("one", ECHO)
    selected = request("gateway", "echo", {"text": "hi"})
    selected.runner_selector.nodepool.id = "np9"
    assert code(await site.ask("PostModelOutputs", selected)) == "MODEL_BUSY_PLEASE_RETRY"


async def test_a_runner_that_is_lost_is_no_reason_to_ask_again(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "GenerateModelOutputs", request("gateway", "say", {"text": "hi"}))
    (call,) = await opened(runner)
    runner.item(call.request_id, "a")
    await turns()
    site.world.hub.remove("one")
    assert texts(await asking.answer()) == ["a", "RUNNER_PROCESSING_FAILED"]


async def test_a_client_that_leaves_cancels_its_call_at_once(site: Site) -> None:
    runner = site.native()
    requests = {
        "PostModelOutputs": request("gateway", "echo", {"text": "hi"}),
        "GenerateModelOutputs": request("gateway", "say", {"text": "hi"}),
        "StreamModelOutputs": given(request("gateway", "chat", {"lines": "hi"})),
    }
    for rpc, asked in requests.items():
        asking = Asking(site, rpc, asked)
        (call,) = await opened(runner)
        asking.task.cancel()
        assert await cancelled(runner, call) is CancelReason.DISCONNECT
        await turns()
        assert asking.task.cancelled()


async def test_a_client_that_leaves_while_it_is_written_to(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "GenerateModelOutputs", request("gateway", "say", {"text": "hi"}))
    asking.context.stuck = True
    (call,) = await opened(runner)
    runner.item(call.request_id, "a")
    await turns()
    asking.task.cancel()
    assert await cancelled(runner, call) is CancelReason.DISCONNECT


async def test_a_client_that_is_gone_when_it_is_written_to(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    runner = site.native()
    asking = Asking(site, "GenerateModelOutputs", request("gateway", "say", {"text": "hi"}))
    asking.context.broken = True
    (call,) = await opened(runner)
    runner.item(call.request_id, "a")
    assert await cancelled(runner, call) is CancelReason.DISCONNECT
    assert await asking.answer() == []
    assert not caplog.records


async def test_a_deadline_is_the_calls(site: Site) -> None:
    runner = site.native()
    asking = Asking(site, "GenerateModelOutputs", request("gateway", "say", {"text": "hi"}))
    asking.context.left = 2.5
    (call,) = await opened(runner)
    site.world.clock.advance(2.6)
    assert await cancelled(runner, call) is CancelReason.DEADLINE
    assert texts(await asking.answer()) == ["RPC_REQUEST_TIMEOUT"]


# -- models of Clarifai's runners ----------------------------------------------------------------------


async def test_a_request_reaches_a_model_as_it_is(site: Site) -> None:
    runner = site.raw()
    asked = request("toy", "predict", {"text": "hi"}, {"text": "ho"}, version_id="v7", use_predict_cache=True)
    asking = Asking(site, "PostModelOutputs", asked)
    (call,) = await opened(runner)
    assert call.command == "toy.PostModelOutputs"
    assert raw.read_request(call.input) == asked
    answered = output("HI", prompt_tokens=3)
    answer(runner, call, raw_item(answered))
    found = await asking.answer()
    assert found.status.req_id == call.request_id
    found.status.req_id = ""
    assert found == answered


async def test_a_stream_of_a_model(site: Site) -> None:
    runner = site.raw()
    asking = Asking(site, "GenerateModelOutputs", request("toy", "generate", {"text": "hi"}))
    (call,) = await opened(runner)
    broke = Response(status={"code": codes.FAILURE, "details": "broke", "stack_trace": ["line 1"]})
    runner.item(call.request_id, raw_item(output("a")), raw_item(broke))
    runner.end(call.request_id)
    found = await asking.answer()
    assert texts(found) == ["a", "FAILURE"]
    assert list(found[-1].status.stack_trace) == ["line 1"]


async def test_a_stream_of_input_for_a_model(site: Site) -> None:
    runner = site.raw()
    requests = [request("toy", "stream", {"xs": text}) for text in "ab"]
    asking = Asking(site, "StreamModelOutputs", given(*requests))
    (call,) = await opened(runner)
    more, end = await heard(runner, 2)
    assert raw.read_request(call.input) == requests[0]
    assert raw.read_request(more.item) == requests[1]
    assert isinstance(end, InputEnd)
    runner.item(call.request_id, raw_item(output("a!")))
    runner.end(call.request_id)
    assert texts(await asking.answer()) == ["a!"]


async def test_a_runner_that_gives_no_message_of_clarifais(site: Site) -> None:
    runner = site.raw()
    asking = Asking(site, "GenerateModelOutputs", request("toy", "generate", {"text": "hi"}))
    (call,) = await opened(runner)
    runner.item(call.request_id, {"response": base64.b64encode(b"\xff").decode()})
    assert await cancelled(runner, call) is CancelReason.DISCONNECT
    assert texts(await asking.answer()) == ["MODEL_PREDICTION_FAILED"]


# -- which runner --------------------------------------------------------------------------------------


async def reached(site: Site, asked: Request, *runners: FakeRunner) -> str:
    """Return which runner a request reaches; empty if it is refused."""
    asking = Asking(site, "GenerateModelOutputs", asked)
    with anyio.fail_after(WAIT_S):
        while not asking.task.done():
            for runner in runners:
                for call in await runner.opened():
                    runner.item(call.request_id, raw_item(output("x")))
                    runner.end(call.request_id)
                    await asking.answer()
                    return runner.hello.name
    return ""


async def test_the_user_the_app_and_the_version_narrow_the_choice(site: Site) -> None:
    first = site.raw("first", clarifai_app="a1", clarifai_version="v1", clarifai_runner="r1")
    second = site.raw("second", clarifai_app="a1", clarifai_version="v2", clarifai_runner="r2")
    foreign = site.raw("foreign", clarifai_user="u2", clarifai_runner="r3")
    asked = request("toy", "generate", {"text": ""})
    runners = (first, second, foreign)
    for version in ("v1", "v2"):
        asked.version_id = version
        assert await reached(site, asked, *runners) == {"v1": "first", "v2": "second"}[version]
    asked.version_id = "v3"
    assert await reached(site, asked, *runners) == ""
    asked.version_id, asked.user_app_id.user_id = "", "u2"
    assert await reached(site, asked, *runners) == "foreign"
    asked.user_app_id.user_id = "u3"
    assert await reached(site, asked, *runners) == ""


async def test_selectors_narrow_the_choice(site: Site) -> None:
    runners = [
        site.raw(
            name, clarifai_runner=name, clarifai_nodepool=f"np-{name}", clarifai_compute_cluster=f"cc-{name}"
        )
        for name in ("a", "b")
    ]
    asked = request("toy", "generate", {"text": ""})
    asked.runner_selector.runner.id = "b"
    assert await reached(site, asked, *runners) == "b"
    asked.runner_selector.ClearField("runner")
    asked.runner_selector.nodepool.id = "np-a"
    assert await reached(site, asked, *runners) == "a"
    asked.runner_selector.nodepool.compute_cluster.id = "cc-b"
    assert await reached(site, asked, *runners) == ""


async def test_a_runner_that_was_announced_for_nothing_serves_any_model_of_its_user(site: Site) -> None:
    runner = site.raw("r1-x", clarifai_model="r1")
    asked = request("anything", "generate", {"text": ""})
    assert await reached(site, asked, runner) == "r1-x"
    replica = site.raw("r1-y", clarifai_model="r1")
    assert await reached(site, asked, runner, replica) in ("r1-x", "r1-y")
    asked.runner_selector.nodepool.id = "np9"
    assert await reached(site, asked, runner, replica) == ""
    asked.ClearField("runner_selector")
    other = site.raw("r2-x", clarifai_model="r2", clarifai_runner="r2")
    assert await reached(site, asked, runner, replica, other) == ""
    asked.model_id = "r2"
    assert await reached(site, asked, runner, replica, other) == "r2-x"


async def test_a_runner_that_was_announced_serves_its_model_only(site: Site) -> None:
    runner = site.raw("r1-x", clarifai_model="toy", clarifai_app="a1")
    assert await reached(site, request("other", "generate", {"text": ""}), runner) == ""


async def test_commands_of_clarifais_runners_are_none_of_the_gateways_methods(site: Site) -> None:
    site.raw()
    site.native("one", SAY)
    found = await site.ask("PostModelOutputs", request("gateway", "_GET_SIGNATURES", {"": ""}))
    assert [method.name for method in read_signatures(found.outputs[0].data.text.raw)] == ["say"]
