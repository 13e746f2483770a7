"""A cancel reaches the author's code at once, whatever that does, and by whichever way it comes."""

from __future__ import annotations

import asyncio
import random
import time

import anyio
import grpc
import pytest
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from behaviour.checks import until
from penstock.runner.clarifai.items import MAX_EARLY
from runner.clarifai.fake_server import (
    GENERATE,
    STREAM,
    UNARY,
    Said,
    cancel,
    fake_server,
    item,
    response_of,
    status,
    success,
    text_of,
)
from runner.clarifai.one_loop import anyio_backend, one_loop
from runner.clarifai.running import running
from runner.clarifai.toy import Seen

__all__ = ["anyio_backend", "one_loop"]  # fixtures

pytestmark = pytest.mark.anyio

ROUNDS = 200
KINDS = [("wait", UNARY), ("quiet", GENERATE), ("endless", GENERATE), ("stream", STREAM)]


def was_cancelled(said: Said) -> bool:
    """Whether a message says that its item was cancelled."""
    response = response_of(said)
    return (
        said.status.code == codes.SUCCESS
        and response.status.code == codes.REQUEST_CANCELED_BY_USER
        and not response.outputs
    )


@pytest.mark.parametrize(("method", "method_type"), KINDS)
async def test_a_cancel_on_the_control_stream_stops_the_code_and_is_told(
    method: str, method_type: int
) -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen):
        control, visit = await server.control(), await server.visit()
        await visit.say(
            success(item("a", method, method_type, **({"texts": "x"} if method == "stream" else {})))
        )
        if method == "stream":
            await visit.hear()
        else:
            await seen.going.wait()
        await control.say(cancel("a"))
        with anyio.fail_after(5):
            assert (await seen.left.get())[0] == method
        *_, last = await visit.hear_all()
        assert was_cancelled(last)
        visit.end()
        [said] = await (await server.visit()).ask(success(item("b", "predict", text="on")))
        assert text_of(said) == ["on"]


@pytest.mark.parametrize(("method", "method_type"), KINDS)
@pytest.mark.parametrize("code", [None, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL])
async def test_the_end_of_the_stream_stops_the_code(
    method: str, method_type: int, code: grpc.StatusCode | None
) -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen, chance=lambda: 0.0):
        visit = await server.visit()
        await visit.say(
            success(item("a", method, method_type, **({"texts": "x"} if method == "stream" else {})))
        )
        if method == "stream":
            await visit.hear()
        else:
            await seen.going.wait()
        visit.end(code)
        with anyio.fail_after(5):
            assert (await seen.left.get())[0] == method
        [said] = await (await server.visit()).ask(success(item("b", "predict", text="on")))
        assert text_of(said) == ["on"]


@pytest.mark.parametrize("answer", [cancel("a"), status(codes.RUNNER_ITEM_CANCELLED)])
async def test_a_cancel_on_the_items_own_stream_is_one(answer: object) -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen):
        visit = await server.visit()
        await visit.say(success(item("a", "wait")))
        await seen.going.wait()
        [last] = await visit.ask(answer)  # type: ignore[arg-type]
        assert was_cancelled(last)


async def test_what_is_cancelled_before_it_comes_is_never_begun() -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen) as runner:
        control = await server.control()
        await control.say(cancel("a"), cancel("b"))
        await control.say(cancel(""), success(), success(item("c", "wait")))  # nothing comes of these
        await until(lambda: "b" in runner._items._early, lambda: "not heard")
        for name, method, method_type in (("a", "wait", UNARY), ("b", "endless", GENERATE)):
            [said] = await (await server.visit()).ask(success(item(name, method, method_type)))
            assert was_cancelled(said)
        assert not seen.going.is_set()
        [said] = await (await server.visit()).ask(success(item("c", "predict", text="on")))
        assert text_of(said) == ["on"]


async def test_of_what_is_cancelled_and_never_comes_only_so_much_is_remembered() -> None:
    async with fake_server() as server, running(server) as runner:
        control = await server.control()
        for number in range(MAX_EARLY + 10):
            await control.say(cancel(f"early-{number}"))
        await control.say(cancel("last"))
        await until(lambda: "last" in runner._items._early, lambda: "not heard")
        [said] = await (await server.visit()).ask(success(item("last", "predict", text="x")))
        assert was_cancelled(said)
        assert len(runner._items._early) == MAX_EARLY
        [said] = await (await server.visit()).ask(success(item("early-0", "predict", text="forgotten")))
        assert text_of(said) == ["forgotten"]


async def test_a_batch_that_is_cancelled_begins_no_more_of_it() -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen):
        control, visit = await server.control(), await server.visit()
        made = item("a", "wait")
        for _ in range(3):
            made.post_model_outputs_request.inputs.append(made.post_model_outputs_request.inputs[0])
        await visit.say(success(made))
        await seen.going.wait()
        await control.say(cancel("a"))
        [last] = await visit.hear_all()
        assert was_cancelled(last)
        assert seen.left.qsize() == 1


async def test_a_place_is_free_only_when_its_code_has_stopped() -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen):
        control, visit = await server.control(), await server.visit()
        await visit.say(success(item("a", "deaf")))
        assert await asyncio.to_thread(seen.began.wait, 10)
        await control.say(cancel("a"))
        [last] = await visit.hear_all()
        assert was_cancelled(last)
        visit.end()
        await visit.ended()
        assert server.work.empty()
        seen.let_go.set()
        [said] = await (await server.visit()).ask(success(item("b", "predict", text="on")))
        assert text_of(said) == ["on"]


async def test_a_generator_waits_for_a_server_that_does_not_read() -> None:
    """The server's grpc has read what its window holds; the rest waits in the author's generator."""
    seen = Seen()
    async with fake_server() as server, running(server, seen):
        server.reads = False
        control, visit = await server.control(), await server.visit()
        await visit.say(success(item("a", "endless", GENERATE)))
        await seen.going.wait()
        before = -1
        with anyio.fail_after(10):
            while seen.yielded > before:
                before = seen.yielded
                await asyncio.sleep(0.1)
        assert 0 < seen.yielded * 1000 < 32 * 1024 * 1024
        await control.say(cancel("a"))
        with anyio.fail_after(5):
            assert (await seen.left.get())[0] == "endless"
        visit.end()


@pytest.mark.parametrize("seed", range(3))
async def test_whenever_a_cancel_comes_an_answer_is_whole_or_says_that_it_is_not(seed: int) -> None:
    chance, count = random.Random(seed), 40
    whole = cut = 0
    async with fake_server() as server, running(server, threads=4):
        control = await server.control()
        for number in range(60):
            visit, name = await server.visit(), f"a-{number}"
            await visit.say(success(item(name, "generate", GENERATE, text="t", count=count)))
            heard = [await visit.hear() for _ in range(chance.choice((0, 0, 1, 5, count - 1)))]
            if chance.random() < 0.8:
                await control.say(*[cancel(name)] * chance.choice((1, 1, 3)))
            heard += await visit.hear_all()
            visit.end()
            is_cut = was_cancelled(heard[-1])
            texts = [text_of(said) for said in (heard[:-1] if is_cut else heard)]
            assert texts == [[f"t-{at}"] for at in range(len(texts))]
            assert is_cut or len(texts) == count
            whole, cut = whole + (not is_cut), cut + is_cut
    assert whole
    assert cut


async def test_how_long_a_cancel_takes_from_the_server_to_the_authors_code() -> None:
    took: list[float] = []
    async with fake_server() as server:
        seen = Seen()
        async with running(server, seen):
            control = await server.control()
            for number in range(ROUNDS):
                visit = await server.visit()
                seen.going.clear()
                await visit.say(success(item(f"a-{number}", "wait")))
                await seen.going.wait()
                began = time.perf_counter()
                await control.say(cancel(f"a-{number}"))
                with anyio.fail_after(5):
                    took.append((await seen.left.get())[1] - began)
                await visit.hear_all()
                visit.end()
    took.sort()
    # 0.00014 is usual, and 0.0004 for the slowest of a hundred: nothing waits for a poll, or for an item.
    assert took[ROUNDS // 2] < 0.25
