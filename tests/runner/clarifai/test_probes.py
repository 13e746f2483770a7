"""What asks a runner how it is, and what a runner asks its model."""

from __future__ import annotations

import asyncio

import anyio
import httpx
import pytest
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock import Runtime
from penstock.errors import PenstockError
from penstock.runner.clarifai.probes import Probes, read_where
from penstock.runtime.app import App
from runner.clarifai.fake_server import UNARY, FakeServer, fake_server, item, response_of, success, text_of
from runner.clarifai.one_loop import anyio_backend, one_loop
from runner.clarifai.running import running

__all__ = ["anyio_backend", "one_loop"]  # fixtures

pytestmark = pytest.mark.anyio


async def states(where: str) -> dict[str, int]:
    async with httpx.AsyncClient(trust_env=False) as client:
        names = ("liveness", "readiness", "startup")
        return {name: (await client.get(f"{where}/healthz/{name}")).status_code for name in names}


async def test_probes_tell_whether_items_can_come() -> None:
    async with fake_server() as server:
        async with running(server, health=("127.0.0.1", 0)) as runner:
            assert runner.probes is not None
            where = runner.probes.where
            assert where in runner.words
            await server.control()
            with anyio.fail_after(10):
                while (found := await states(where))["readiness"] != 200:
                    pass
            assert found == {"liveness": 200, "readiness": 200, "startup": 200}
            await server.stop()
            with anyio.fail_after(10):
                while (found := await states(where))["readiness"] != 503:
                    pass
            assert found == {"liveness": 200, "readiness": 503, "startup": 200}
        with pytest.raises(httpx.HTTPError):
            await states(where)


async def test_other_requests_are_not_found() -> None:
    probes = Probes("127.0.0.1", 0, {"startup": lambda: False})
    await probes.start()
    try:
        async with httpx.AsyncClient(base_url=probes.where, trust_env=False) as client:
            for path in ("/", "/healthz/", "/healthz/else", "/healthz"):
                assert (await client.get(path)).status_code == 404
            assert (await client.post("/healthz/startup")).status_code == 404
            assert (await client.get("/healthz/startup?x=1")).status_code == 503
        port = int(probes.where.rpartition(":")[2])
        for sent in (b"\x00" * 20_000, b"GET /healthz/startup", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            writer.write_eof()
            with anyio.fail_after(10):
                assert b"200" not in await reader.read()
            writer.close()
        with pytest.raises(PenstockError, match="--health"):
            await Probes("127.0.0.1", port, {}).start()
    finally:
        await probes.aclose()


def test_where_probes_are_answered_is_read() -> None:
    assert read_where("8080") == ("127.0.0.1", 8080)
    assert read_where("0.0.0.0:8080") == ("0.0.0.0", 8080)
    assert read_where("[::]:0") == ("::", 0)
    for text in ("", "x", "1:2:x", "70000", "-1"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            read_where(text)


class Gate:
    """Says whether a project wants more work."""

    def __init__(self) -> None:
        self.open = False
        self.asked = asyncio.Event()


def gated(gate: Gate, *, fails: bool = False) -> App:
    rt = Runtime()

    @rt.command("predict")
    async def predict(text: str) -> str:
        return text

    @rt.command("check_admission")
    async def check_admission() -> bool:
        gate.asked.set()
        if fails:
            raise RuntimeError("no idea")
        return gate.open

    return App(rt)


async def answer(server: FakeServer, name: str) -> list[str]:
    visit = await server.visit()
    (said,) = await visit.ask(success(item(name, "predict", UNARY, text=name)))
    return text_of(said)


async def test_a_model_that_wants_no_more_keeps_one_stream() -> None:
    gate = Gate()
    async with fake_server() as server, running(server, app=gated(gate), threads=3):
        with anyio.fail_after(20):
            await gate.asked.wait()
            assert await answer(server, "a") == ["a"]
            assert await answer(server, "b") == ["b"]  # the first slot never asks
            assert sum(not visit.gone.is_set() and not visit.control for visit in server.visits) <= 1
            gate.open = True
            open_ones = [await server.visit() for _ in range(3)]
        assert len({visit.hello.runner_id for visit in open_ones}) == 1


async def test_a_model_that_cannot_say_takes_work() -> None:
    async with fake_server() as server, running(server, app=gated(Gate(), fails=True), threads=3):
        with anyio.fail_after(20):
            visits = [await server.visit() for _ in range(3)]
            (said,) = await visits[0].ask(success(item("x", "check_admission")))
    assert response_of(said).status.code == codes.MODEL_INVALID_ARGUMENT  # it is no method
