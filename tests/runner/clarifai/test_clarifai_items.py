"""Items, from a server to an author's code and back."""

from __future__ import annotations

import json

import anyio
import pytest
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from runner.clarifai.fake_server import (
    GENERATE,
    STREAM,
    UNARY,
    FakeServer,
    Said,
    Visit,
    cancel,
    fake_server,
    given,
    item,
    plain,
    response_of,
    status,
    success,
    text_of,
)
from runner.clarifai.one_loop import anyio_backend, one_loop
from runner.clarifai.running import IDENTITY, TOKEN, running
from runner.clarifai.toy import Seen

__all__ = ["anyio_backend", "one_loop"]  # fixtures

pytestmark = pytest.mark.anyio


async def asked(server: FakeServer, made: service_pb2.RunnerItem, req_id: str = "") -> list[Said]:
    """Hand an item over, and return all that is said of it."""
    visit = await server.visit()
    return await visit.ask(success(made, req_id=req_id))


def failure(said: Said) -> tuple[str, str]:
    """Return the code and the words of an item's failure."""
    response = response_of(said)
    assert not response.outputs
    return codes.StatusCode.Name(response.status.code), response.status.details


async def test_hellos_say_who_it_is() -> None:
    async with fake_server() as server, running(server, threads=2):
        visits = [await server.visit(), await server.visit(), await server.control()]
        common = {
            "user_app_id": {"user_id": "u1"},
            "nodepool_id": "np1",
            "compute_cluster_id": "cc1",
            "runner_replica_id": IDENTITY.replica_id,
        }
        for visit in visits:
            name, words = ("control-r1", "Control connection") if visit.control else ("r1", "Success")
            hello = {"runner_id": name, "status": {"code": "RUNNER_STREAM_START", "description": words}}
            assert plain(visit.hello) == common | hello
            assert visit.metadata["authorization"] == f"Key {TOKEN}"
            kind, _, digits = visit.metadata["x-request-id"].rpartition("-")
            assert kind == ("runner-control" if visit.control else "runner")
            assert len(bytes.fromhex(digits)) == 16
        assert len({visit.metadata["x-request-id"] for visit in visits}) == 3


async def test_an_answer_is_one_output_and_then_nothing() -> None:
    async with fake_server() as server, running(server):
        [said] = await asked(server, item("a", "predict", text="hi ", n=2))
        assert plain(said) == {
            "user_app_id": {"user_id": "u1"},
            "nodepool_id": "np1",
            "compute_cluster_id": "cc1",
            "runner_id": "r1",
            "runner_item_id": "a",
            "status": {"code": "SUCCESS", "description": "Success"},
            "runner_item_outputs": [
                {
                    "multi_output_response": {
                        "status": {"code": "SUCCESS", "description": "Success"},
                        "outputs": [
                            {
                                "status": {"code": "SUCCESS"},
                                "data": {"parts": [{"id": "return", "data": {"string_value": "hi hi "}}]},
                            }
                        ],
                    }
                }
            ],
        }
        [said] = await asked(server, item("b", "", text="x"))
        assert text_of(said) == ["x"]  # no name is the usual one


async def test_a_batch_is_answered_in_one() -> None:
    async with fake_server() as server, running(server):
        made = item("a", "predict", text="p")
        made.post_model_outputs_request.inputs.append(given("predict", text="q", n=2))
        [said] = await asked(server, made)
        assert text_of(said) == ["p", "qq"]
        made.post_model_outputs_request.inputs.append(given("predict", text="q", bogus=1))
        [said] = await asked(server, made)
        assert failure(said)[0] == "MODEL_INVALID_ARGUMENT"


async def test_items_of_a_stream_come_one_by_one_and_in_order() -> None:
    async with fake_server() as server, running(server):
        heard = await asked(server, item("a", "generate", GENERATE, text="t", count=300))
        assert [text_of(said) for said in heard] == [[f"t-{number}"] for number in range(300)]
        assert await asked(server, item("b", "nothing", GENERATE)) == []
        [said] = await asked(server, item("c", "predict", GENERATE, text="whole"))
        assert text_of(said) == ["whole"]


@pytest.mark.parametrize("method", ["stream", ""])
async def test_input_and_output_stream_together(method: str) -> None:
    async with fake_server() as server, running(server):
        visit = await server.visit()
        await visit.say(success(item("a", method, STREAM, texts="a", suffix="?")))
        assert text_of(await visit.hear()) == ["A?"]
        for text in ("b", "c"):
            await visit.say(success(item("a", method, STREAM, texts=text)))
            assert text_of(await visit.hear()) == [f"{text.upper()}?"]
        assert await visit.ask(status(codes.RUNNER_STREAM_END)) == []


async def test_a_flood_of_input_waits_for_the_command() -> None:
    async with fake_server() as server, running(server):
        visit = await server.visit()
        with anyio.fail_after(20):
            await visit.say(*[success(item("a", "swallow", STREAM, texts="x"))] * 3000)
        [said] = await visit.ask(status(codes.RUNNER_STREAM_END))
        [part] = response_of(said).outputs[0].data.parts
        assert part.data.int_value == 3000


async def test_author_code_knows_the_item_and_the_request() -> None:
    async with fake_server() as server, running(server):
        [said] = await asked(server, item("item-1", "ids"), req_id="gw-req-1")
        fields = response_of(said).outputs[0].data.parts[0].data.struct_value
        assert dict(fields) == {"item": "item-1", "request": "gw-req-1", "task": "item-1"}


async def test_signatures_are_those_of_the_commands() -> None:
    async with fake_server() as server, running(server):
        [said] = await asked(server, item("a", "_GET_SIGNATURES"))
        found = json.loads(response_of(said).outputs[0].data.text.raw)
        assert found["predict"]["methodType"] == "UNARY_UNARY"
        assert found["predict"]["inputFields"] == [
            {"name": "text", "type": "STR"},
            {"name": "n", "type": "INT", "default": "1"},
        ]
        assert (found["generate"]["methodType"], found["stream"]["methodType"]) == (
            "UNARY_STREAMING",
            "STREAMING_STREAMING",
        )
        assert not {"initialize", "cleanup"} & found.keys()


@pytest.mark.parametrize("method_type", [UNARY, GENERATE])
async def test_an_authors_error_is_told_and_an_accident_is_not(method_type: int) -> None:
    async with fake_server() as server, running(server):
        [said] = await asked(server, item("a", "boom", method_type, text="bad"))
        assert said.status.code == codes.SUCCESS
        assert failure(said) == ("FAILURE", "boom: bad")
        [said] = await asked(server, item("b", "secret", method_type))
        code, words = failure(said)
        assert code == "FAILURE"
        assert "1234" not in said.SerializeToString().decode("utf-8", "replace")
        assert words
        assert not response_of(said).status.stack_trace


async def test_an_error_behind_items_comes_behind_them() -> None:
    async with fake_server() as server, running(server):
        *heard, last = await asked(server, item("a", "gboom", GENERATE, text="bad"))
        assert [text_of(said) for said in heard] == [["bad-0"], ["bad-1"]]
        assert failure(last) == ("FAILURE", "gboom: bad")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (item("a", "nope"), "no method 'nope'"),
        (item("a", "initialize"), "no method 'initialize'"),
        (item("a", "cleanup"), "no method 'cleanup'"),
        (item("a", "generate", text="x"), "call it with GenerateModelOutputs"),
        (item("a", "predict", STREAM, text="x"), "call it with PostModelOutputs"),
        (item("a", "joined", STREAM, texts="x"), "call it with PostModelOutputs"),
        (item("a", "predict", text="x", bogus="x"), "bogus"),
        (service_pb2.RunnerItem(id="a"), ""),
    ],
)
async def test_what_cannot_be_called_is_told_why(made: service_pb2.RunnerItem, words: str) -> None:
    if made.WhichOneof("request") is None:  # none of the inputs
        made.processing_info.runner_method_type = GENERATE
        made.post_model_outputs_request.SetInParent()
        words = "0 inputs"
    async with fake_server() as server, running(server):
        [said] = await asked(server, made)
        assert said.status.code == codes.SUCCESS
        code, told = failure(said)
        assert code == "MODEL_INVALID_ARGUMENT"
        assert words in told
        [said] = await asked(server, item("b", "predict", text="on"))
        assert text_of(said) == ["on"]


async def test_what_is_no_item_is_a_failure_of_the_runner() -> None:
    two = success(item("a", "predict"), item("b", "predict"))
    task = service_pb2.RunnerItem(id="task-1")
    task.auto_annotation_request.SetInParent()
    typeless = item("c", "predict", resources_pb2.STREAMING_UNARY)
    async with fake_server() as server, running(server):
        for answer, item_id, words in (
            (two, "", "2 items"),
            (success(task), "task-1", "auto-annotation"),
            (success(typeless), "c", "STREAMING_UNARY"),
            (status(codes.RUNNER_STREAM_END), "", "input ends"),
        ):
            visit: Visit = await server.visit()
            [said] = await visit.ask(answer)
            assert said.runner_item_id == item_id
            assert said.status.code == codes.RUNNER_PROCESSING_FAILED
            assert words in said.status.details
            assert response_of(said).status == said.status
        [said] = await asked(server, item("d", "predict", text="on"))
        assert text_of(said) == ["on"]


async def test_an_item_that_is_processed_already_is_refused_and_goes_on() -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen, threads=2):
        first = await server.visit()
        await first.say(success(item("a", "until_let_go")))
        await seen.going.wait()
        [said] = await asked(server, item("a", "predict", text="x"))
        assert said.status.code == codes.RUNNER_PROCESSING_FAILED
        assert "already" in said.status.details
        seen.let_go.set()
        [said] = await first.hear_all()
        assert text_of(said) == ["done"]


async def test_what_is_too_large_is_an_error_and_not_cut() -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen, max_output=10_000):
        [said] = await asked(server, item("a", "large", size=9_000))
        assert len(text_of(said)[0]) == 9_000
        [said] = await asked(server, item("b", "large", size=10_001))
        assert failure(said)[0] == "RPC_MAX_MESSAGE_SIZE_EXCEEDED"
        first, last = await asked(server, item("c", "larger", GENERATE, size=20_000))
        assert text_of(first) == ["small"]
        assert failure(last)[0] == "RPC_MAX_MESSAGE_SIZE_EXCEEDED"
        assert (await seen.left.get())[0] == "larger"  # its generator was closed


async def test_messages_for_another_item_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen):
        visit = await server.visit()
        await visit.say(success(item("a", "until_let_go")))
        await seen.going.wait()
        await visit.say(cancel("other"), success(item("b", "predict")), status(codes.FAILURE), success())
        await visit.say(*[success(item("b", "predict"))] * 100)
        seen.let_go.set()
        [said] = await visit.hear_all()
        assert text_of(said) == ["done"]
        assert caplog.text.count("passed over") == 1


async def test_data_of_the_old_format_is_answered_in_it() -> None:
    made = item("a", "predict")
    made.post_model_outputs_request.inputs[0].data.Clear()
    made.post_model_outputs_request.inputs[0].data.text.raw = "old"
    async with fake_server() as server, running(server):
        [said] = await asked(server, made)
        [output] = response_of(said).outputs
        assert output.data.text.raw == "old"
        assert not output.data.parts
