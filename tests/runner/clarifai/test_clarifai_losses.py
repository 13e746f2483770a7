"""A runner comes back from whatever its server and the network do, and not all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

import anyio
import grpc
import pytest
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from behaviour.cable import Cable
from behaviour.checks import until
from penstock.calls.limits import CallLimits
from penstock.runner.clarifai.address import Address, read_address
from penstock.runner.clarifai.identity import Credentials
from penstock.runner.clarifai.link import Link
from penstock.runner.clarifai.runner import ClarifaiRunner
from penstock.runtime.app import App
from penstock.testing.clock import FakeClock, FakeTimer
from runner.clarifai.fake_server import (
    GENERATE,
    Answer,
    FakeServer,
    Said,
    Visit,
    cancel,
    fake_server,
    item,
    response_of,
    status,
    success,
    text_of,
)
from runner.clarifai.one_loop import anyio_backend, one_loop
from runner.clarifai.running import IDENTITY, running
from runner.clarifai.toy import Seen, toy

__all__ = ["anyio_backend", "one_loop"]  # fixtures

pytestmark = pytest.mark.anyio

BAD = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
LINGER_S, LOOK_S = 10.0, 3.0


class Waits(FakeClock):
    """A clock on which time passes as soon as somebody waits for it to; it tells for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.free = True

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> FakeTimer:
        timer = super().call_later(delay_s, callback)
        if delay_s not in (LINGER_S, LOOK_S):
            self.waits.append(delay_s)
            if self.free:
                asyncio.get_running_loop().call_soon(self._pass, timer)
        return timer

    def _pass(self, timer: FakeTimer) -> None:
        timer.fire()


async def works(server: FakeServer, text: str = "on") -> None:
    """Have the runner process something; a stream of a connection that was just cut may still be in line."""
    said: list[Said] = []
    while not said:
        said = await _asked(await server.visit(), success(item(f"item-{text}", "predict", text=text)))
    assert [text_of(one) for one in said] == [[text]]


async def _asked(visit: Visit, answer: Answer) -> list[Said]:
    """Return what comes of a message; nothing if the stream is no more."""
    try:
        return await visit.ask(answer)
    except (grpc.RpcError, grpc.aio.BaseError):
        return []


async def test_no_code_that_ends_a_stream_ends_the_runner() -> None:
    async with fake_server() as server, running(server, clock=Waits()):
        for code in BAD:
            (await server.visit()).end(code)
            (await server.control()).end(code)
            await works(server, code.name)
        await server.control()


async def test_a_server_that_takes_no_stream_is_asked_ever_later() -> None:
    clock = Waits()
    async with fake_server() as server:
        server.refuse = grpc.StatusCode.UNAUTHENTICATED
        async with running(server, clock=clock, chance=lambda: 1.0):
            await until(lambda: len(clock.waits) >= 24, lambda: clock.waits)
            server.refuse = None
            await works(server)
            await server.control()
    # The stream for work waits up to 30 s, the control stream up to 5.
    assert {0.5, 1.0, 2.0, 4.0, 5.0, 8.0, 16.0, 30.0} == set(clock.waits)


async def test_waits_are_by_chance() -> None:
    clock, chances = Waits(), iter(number % 7 / 7 for number in range(10_000))
    async with fake_server() as server:
        server.refuse = grpc.StatusCode.INTERNAL
        async with running(server, clock=clock, chance=lambda: next(chances)):
            await until(lambda: len(clock.waits) >= 40, lambda: clock.waits)
            server.refuse = None
            await works(server)
    assert len(set(clock.waits)) > 12
    assert min(clock.waits) == 0.0


@pytest.mark.parametrize(
    "code", [codes.FAILURE, codes.CONN_KEY_INVALID, codes.RUNNER_DOES_NOT_EXIST, codes.ZERO, 987654]
)
async def test_a_status_that_is_no_success_has_the_runner_wait_and_come_again(code: int) -> None:
    clock = Waits()
    async with fake_server() as server, running(server, clock=clock, chance=lambda: 1.0):
        for _ in range(3):
            visit = await server.visit()
            await visit.say(status(code, "not now"))
            await visit.ended()
        await works(server)
        for expected in (1.0, 2.0, 4.0):
            assert expected in clock.waits


async def test_a_stream_without_work_is_opened_again_at_once_but_not_for_ever() -> None:
    clock = Waits()
    clock.free = False
    async with fake_server() as server, running(server, clock=clock, chance=lambda: 1.0):
        (await server.visit()).end()
        await (await server.visit()).say(status(codes.RUNNER_NEEDS_RETRY))
        assert clock.waits == []
        await (await server.visit()).say(success())
        await until(lambda: clock.waits == [1.0], lambda: clock.waits)
        clock.advance(1.0)
        await works(server)
        (await server.visit()).end()
        await works(server)
        visit = await server.visit()
        clock.advance(40.0)
        visit.end()  # as servers recycle what is idle
        await works(server)
        assert clock.waits == [1.0]


async def test_a_stream_that_a_server_does_not_end_is_ended_in_a_while() -> None:
    clock = Waits()
    async with fake_server() as server, running(server, clock=clock):
        visit = await server.visit()
        await visit.say(success(item("a", "predict", text="x")))
        [said] = await visit.hear_all()
        assert text_of(said) == ["x"]
        await works(server)  # on another stream
        assert not visit.gone.is_set()
        clock.advance(LINGER_S)
        await visit.ended()
        await works(server)


async def test_a_lost_control_stream_comes_back_while_work_goes_on() -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen, clock=Waits()) as runner:
        visit = await server.visit()
        await visit.say(success(item("a", "quiet", GENERATE)))
        await visit.hear()
        for code in (None, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE):
            (await server.control()).end(code)
        control = await server.control()
        await until(lambda: runner.connected, lambda: "not connected")
        await control.say(cancel("a"))
        [last] = await visit.hear_all()
        assert response_of(last).status.code == codes.REQUEST_CANCELED_BY_USER


@pytest.mark.parametrize("headers", [True, False])
async def test_a_server_that_goes_and_returns_finds_the_runner(headers: bool) -> None:
    clock, seen = Waits(), Seen()
    server = FakeServer(headers=headers)
    await server.start()
    async with running(server, seen, clock=clock, threads=4) as runner:
        visit, control = await server.visit(), await server.control()
        await visit.say(success(item("a", "quiet", GENERATE)))
        await visit.hear()
        await server.stop()
        with anyio.fail_after(5):
            assert (await seen.left.get())[0] == "quiet"
        await until(lambda: not runner.connected, lambda: "connected")
        await control.ended()
        before = len(clock.waits)
        await until(lambda: len(clock.waits) > before + 5, lambda: clock.waits)
        await server.start(server.port)
        await works(server)
        await server.control()
    await server.stop()


async def test_a_server_that_is_away_is_dialled_ever_later_by_one_who_dials_for_all() -> None:
    server, clock = FakeServer(), Waits()
    await server.start()
    address = read_address(server.url, None)
    await server.stop()
    clock.free = False
    link = Link(address, Credentials(), clock, lambda: 1.0)
    async with anyio.create_task_group() as group:
        group.start_soon(link.run)
        for count, expected in enumerate((0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0), 1):
            clock.advance(clock.waits[-1] if clock.waits else 0.0)
            await until(lambda: len(clock.waits) == count, lambda: clock.waits)  # noqa: B023
            assert clock.waits[-1] == expected
        await server.start(address.port)
        clock.advance(30.0)
        with anyio.fail_after(5):
            await link.connection()
        clock.advance(60.0)  # it was a good connection: the next wait is a short one
        await server.stop()
        await until(lambda: len(clock.waits) == 9, lambda: clock.waits)
        assert clock.waits[-1] == 0.5
        await link.aclose()


async def test_a_fault_of_its_own_ends_no_link(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Address):
        """An address whose first channels cannot be made."""

        faults: ClassVar[list[str]] = ["one", "two"]

        def channel(self) -> grpc.aio.Channel:
            if self.faults:
                raise ValueError(self.faults.pop())
            return super().channel()

    async with fake_server() as server:
        link = Link(Odd(*read_address(server.url, None)), Credentials(), Waits(), lambda: 1.0)
        async with anyio.create_task_group() as group:
            group.start_soon(link.run)
            with anyio.fail_after(5):
                await link.connection()
            await link.aclose()
    assert caplog.text.count("the connection to") == 2


async def test_a_server_may_come_after_the_runner() -> None:
    server, clock = FakeServer(), Waits()
    await server.start()
    port = server.port
    await server.stop()
    try:
        async with running(server, clock=clock):
            await until(lambda: len(clock.waits) >= 2, lambda: clock.waits)
            await server.start(port)
            await works(server)
    finally:
        await server.stop()


async def test_a_broken_connection_ends_its_items_and_is_made_again() -> None:
    seen = Seen()
    async with fake_server() as server, Cable(("127.0.0.1", server.port)) as cable:
        url = cable.url.replace("ws://", "http://")
        async with running(server, seen, url=url, clock=Waits(), threads=2):
            for number in range(3):
                visit = await server.visit()
                await visit.say(success(item(f"a-{number}", "quiet", GENERATE)))
                await visit.hear()
                cable.cut()
                with anyio.fail_after(5):
                    assert (await seen.left.get())[0] == "quiet"
                await visit.ended()
                await works(server, f"on-{number}")


async def test_a_connection_on_which_nothing_comes_through_is_found_by_pings() -> None:
    seen = Seen()
    async with fake_server() as server, Cable(("127.0.0.1", server.port)) as cable:
        url = cable.url.replace("ws://", "http://")
        async with running(server, seen, url=url, clock=Waits(), keepalive_s=0.5):
            visit = await server.visit()
            await visit.say(success(item("a", "quiet", GENERATE)))
            await visit.hear()
            cable.freeze()
            with anyio.fail_after(20):
                assert (await seen.left.get())[0] == "quiet"
            await works(server)


async def test_all_streams_share_one_connection() -> None:
    async with fake_server() as server, running(server, threads=128) as runner:
        visits = [await server.visit() for _ in range(128)]
        control = await server.control()
        assert len({visit.context.peer() for visit in (*visits, control)}) == 1
        assert sum(slot.open for slot in runner.slots) == 128
        for number, visit in enumerate(visits):
            await visit.say(success(item(f"a-{number}", "predict", text=str(number))))
        for number, visit in enumerate(visits):
            [said] = await visit.hear_all()
            assert text_of(said) == [str(number)]
            visit.end()


class Sick(App):
    """Its workers may hang."""

    hangs = False

    @property
    def answers(self) -> bool:
        """See ``App.answers``."""
        return not self.hangs


async def test_streams_are_open_only_while_the_projects_code_can_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen, clock = Seen(), Waits()
    app = Sick(toy(seen))
    async with fake_server() as server, running(server, app=app, clock=clock, threads=2) as runner:
        busy, idle = await server.visit(), await server.visit()
        await busy.say(success(item("a", "until_let_go")))
        await seen.going.wait()
        app.hangs = True
        clock.advance(LOOK_S)
        await idle.ended()
        await until(lambda: not any(slot.open for slot in runner.slots), lambda: "open")
        assert not busy.gone.is_set()
        seen.let_go.set()
        [said] = await busy.hear_all()
        assert text_of(said) == ["done"]
        busy.end()
        app.hangs = False
        clock.advance(LOOK_S)
        await works(server)
        assert "no work is taken" in caplog.text
        assert "trying again" not in caplog.text


async def test_no_stream_is_open_before_the_project_has_started() -> None:
    loads = asyncio.Event()
    rt = toy(Seen())

    async def load() -> None:
        await loads.wait()

    class Slow(App):
        async def start(self) -> None:
            """See ``App.start``."""
            await load()
            await super().start()

    async with fake_server() as server, anyio.create_task_group() as group:
        runner = ClarifaiRunner(Slow(rt), read_address(server.url, None), IDENTITY, threads=1)
        group.start_soon(runner.start)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not server.visits
        loads.set()
        await server.visit()
        await runner.aclose()


# -- leaving -------------------------------------------------------------------------------------------


async def leaving(runner: ClarifaiRunner, visits: list[Visit]) -> asyncio.Task[None]:
    """Have a runner leave; returns once it takes no more work."""
    task = asyncio.get_running_loop().create_task(runner.drain())
    for visit in visits:
        await visit.ended()
    return task


async def test_who_leaves_finishes_what_it_has() -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen, threads=3) as runner:
        busy, *idle = [await server.visit() for _ in range(3)]
        await busy.say(success(item("a", "until_let_go")))
        await seen.going.wait()
        task = await leaving(runner, idle)
        assert runner.connected  # cancels could still come
        seen.let_go.set()
        [said] = await busy.hear_all()
        assert text_of(said) == ["done"]
        busy.end()
        with anyio.fail_after(5):
            await task
        assert len(server.visits) == 4  # none was opened after


async def test_who_leaves_may_be_cancelled_meanwhile() -> None:
    seen = Seen()
    async with fake_server() as server, running(server, seen, threads=2) as runner:
        busy, idle, control = await server.visit(), await server.visit(), await server.control()
        await busy.say(success(item("a", "wait")))
        await seen.going.wait()
        task = await leaving(runner, [idle])
        await control.say(cancel("a"))
        [said] = await busy.hear_all()
        assert response_of(said).status.code == codes.REQUEST_CANCELED_BY_USER
        busy.end()
        with anyio.fail_after(5):
            await task


async def test_what_takes_too_long_for_who_leaves_is_told_that_it_was_cut() -> None:
    clock, seen = Waits(), Seen()
    clock.free = False
    app = App(toy(seen), limits=CallLimits(drain_s=7.0))
    async with fake_server() as server, running(server, app=app, clock=clock, threads=2) as runner:
        busy, idle = await server.visit(), await server.visit()
        await busy.say(success(item("a", "quiet", GENERATE)))
        await busy.hear()
        task = await leaving(runner, [idle])
        assert not task.done()
        clock.advance(7.0)
        [said] = await busy.hear_all()
        assert response_of(said).status.code == codes.MODEL_BUSY_PLEASE_RETRY
        busy.end()
        with anyio.fail_after(5):
            await task
        assert (await seen.left.get())[0] == "quiet"
