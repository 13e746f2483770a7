"""A runner against gateways that lie, forget, fall silent and send it away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from behaviour.checks import until
from penstock import CommandError, Runtime
from penstock.protocol.messages import CancelReason
from penstock.protocol.reliable import ReliableSession
from penstock.protocol.runners import Refusal, RunnerHello, Welcome, encode_hello, read_hello
from penstock.protocol.session import (
    Cancel,
    Check,
    Checked,
    Close,
    Credit,
    End,
    Input,
    InputEnd,
    InputTaken,
    Items,
    Message,
    Open,
    Ping,
    Pong,
    Progress,
)
from penstock.runner.runner import Runner
from penstock.runtime.app import App

pytestmark = pytest.mark.anyio

SESSIONS = ("1" * 32, "2" * 32)


def project() -> Runtime:
    rt = Runtime()

    @rt.command("add")
    async def add(a: int, b: int) -> int:
        return a + b

    @rt.streaming_command("echo")
    async def echo(words: AsyncIterable[str]) -> AsyncIterator[str]:
        async for word in words:
            yield word

    @rt.streaming_command("wait")
    async def wait() -> AsyncIterator[int]:
        yield 0
        await asyncio.Event().wait()

    @rt.streaming_command("many")
    async def many(count: int, size: int) -> AsyncIterator[str]:
        for _ in range(count):
            yield "x" * size

    @rt.command("fail")
    async def fail(size: int) -> None:
        raise CommandError("x" * size)

    @rt.command("large")
    async def large(size: int) -> str:
        return "x" * size

    return rt


class Gateway:
    """Takes one connection after the other, and says what the test says."""

    def __init__(self) -> None:
        self.visits: asyncio.Queue[Visit] = asyncio.Queue()
        self.url = ""

    async def visit(self) -> Visit:
        """Return the next connection, behind its hello."""
        with anyio.fail_after(5):
            return await self.visits.get()


class Visit:
    """One connection of the runner."""

    def __init__(self, socket: ServerConnection, hello: RunnerHello) -> None:
        self.socket = socket
        self.hello = hello
        self.done = asyncio.Event()
        self.session = ReliableSession()
        self.backlog: deque[Message] = deque()

    async def welcome(self, session: str = SESSIONS[0], received: int = 0, **more: Any) -> Visit:
        """Take it in."""
        settings = {"heartbeat_s": 60.0, "resume_s": 30.0, "max_message": 1024 * 1024, **more}
        await self.socket.send(encode_hello(Welcome(session=session, received=received, **settings)))
        return self

    async def say(self, *messages: Message) -> None:
        """Send messages, in one parcel."""
        for message in messages:
            self.session.push(message)
        await self.socket.send(self.session.parcel())

    async def hear(self, kind: type[Any]) -> Any:
        """Return the next message of a kind."""
        with anyio.fail_after(5):
            while True:
                while self.backlog:
                    message = self.backlog.popleft()
                    if isinstance(message, kind):
                        return message
                self.backlog.extend(self.session.feed(await self.socket.recv(decode=False)))

    async def ended(self) -> int | None:
        """Return the code with which the runner closes."""
        with anyio.fail_after(5), suppress(ConnectionClosed):
            while True:
                await self.socket.recv()
        return self.socket.close_code


@asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    """A gateway on a real socket."""
    at = Gateway()

    async def take(socket: ServerConnection) -> None:
        visit = Visit(socket, read_hello(await socket.recv(decode=False)))
        at.visits.put_nowait(visit)
        with suppress(ConnectionClosed):
            await socket.wait_closed()

    async with serve(take, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=0.2) as server:
        at.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield at


@asynccontextmanager
async def running(at: Gateway, **more: Any) -> AsyncIterator[tuple[Runner, Visit]]:
    """A runner that has dialled."""
    async with Runner(App(project()), [at.url], "one", chance=lambda: 0.0, **more) as runner:
        yield runner, await at.visit()


def opening(command: str, given: bytes = b"{}", number: int = 1, **more: Any) -> Open:
    request_id = f"{number:032x}"
    return Open(request_id=request_id, task_id=request_id, command=command, input=given, window=1000, **more)


async def test_what_it_says_first() -> None:
    async with gateway() as at, running(at, labels={"zone": "a"}, capacity=7) as (_, visit):
        hello = visit.hello
        assert (hello.name, hello.session, hello.received, hello.capacity) == ("one", "", 0, 7)
        assert hello.labels == {"zone": "a"}
        offers = {offer.name: offer for offer in hello.offers}
        assert set(offers) == {"add", "echo", "wait", "many", "fail", "large"}
        assert (offers["add"].streaming, offers["echo"].takes_stream, offers["wait"].concurrency) == (
            False,
            True,
            100,
        )
        assert offers["add"].input_schema["required"] == ["a", "b"]


async def test_a_call_runs_and_a_bad_one_is_answered() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()
        await visit.say(opening("add", b'{"a":1,"b":2}'))
        assert (await visit.hear(End)).answer == b"3"
        for number, wrong in enumerate(
            (
                opening("add", b'{"a":1}', 2),
                opening("add", b"{", 3),
                opening("nothing", b"{}", 4),
                opening("add", b'{"a":1,"b":2}', 5, output_config=b"["),
                Open(request_id="x", task_id="no name!", command="add", window=1),
            )
        ):
            await visit.say(wrong)
            end = await visit.hear(End)
            assert end.request_id == wrong.request_id, number
            assert end.error is not None


async def test_a_call_that_is_opened_twice_runs_once() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()
        call = opening("wait")
        await visit.say(call, call)
        await visit.hear(Items)
        await visit.say(Cancel(request_id=call.request_id, reason=CancelReason.CALLER))
        assert (await visit.hear(End)).reason is CancelReason.CALLER
        await visit.say(Ping(number=3))
        assert await visit.hear(Pong) == Pong(number=3)


async def test_what_is_about_no_call_and_what_is_none_of_its_business_is_passed_over() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()
        await visit.say(
            Cancel(request_id="unknown", reason=CancelReason.CALLER),
            Credit(request_id="unknown", size=-5),
            Input(request_id="unknown", item=b"{"),
            InputEnd(request_id="unknown"),
            Items(request_id="unknown", items=[b"{"]),
            Progress(request_id="unknown", about=b"1"),
            Checked(number=4),
            Pong(number=4),
            Ping(number=5),
        )
        assert await visit.hear(Pong) == Pong(number=5)


async def test_it_judges_inputs() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()
        await visit.say(Check(number=1, command="add", input=b'{"a":"1","b":2}'))
        assert await visit.hear(Checked) == Checked(number=1)
        await visit.say(Check(number=2, command="add", input=b'{"a":"x","b":2}'))
        refused = await visit.hear(Checked)
        assert (refused.number, refused.error and refused.error.code.value) == (2, "invalid_argument")


async def test_a_stream_of_input_is_handed_on_and_a_wrong_item_ends_the_call() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()
        good, bad = (opening("echo", b"{}", number, more_input=True) for number in (1, 2))
        item = Input(request_id=good.request_id, item=b'"a"')
        await visit.say(good, item, InputEnd(request_id=good.request_id))
        assert (await visit.hear(Items)).items == [b'"a"']
        assert (await visit.hear(End)).error is None
        await visit.say(bad, Input(request_id=bad.request_id, item=b"7"))
        end = await visit.hear(End)
        assert (end.request_id, end.error.code.value) == (bad.request_id, "invalid_argument")


async def test_what_was_taken_of_a_stream_of_input_is_counted_where_it_is_asked_for() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()
        assert {offer.name for offer in visit.hello.offers if offer.counts_input} == {"echo"}
        call = opening("echo", b'{"words":["x","y"]}', more_input=True, counts_input=True)
        items = [Input(request_id=call.request_id, item=b'"a"') for _ in range(7)]
        await visit.say(call, *items)
        left = len(items)
        while left:
            left -= (await visit.hear(InputTaken)).count
        assert left == 0  # those that came with the call are not among them
        await visit.say(InputEnd(request_id=call.request_id))
        assert (await visit.hear(End)).error is None
        quiet = opening("echo", b"{}", 2, more_input=True)
        more = Input(request_id=quiet.request_id, item=b'"a"')
        await visit.say(quiet, more, InputEnd(request_id=quiet.request_id))
        assert isinstance(await visit.hear((InputTaken, End)), End)  # type: ignore[arg-type]


async def test_an_answer_that_no_message_can_hold_is_an_error() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome(max_message=256 * 1024)
        await visit.say(opening("large", b'{"size":300000}'))
        end = await visit.hear(End)
        assert (end.answer, end.error.code.value) == (None, "too_large")


async def test_items_that_no_message_can_hold_together_go_in_several() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome(max_message=4096)
        await visit.say(
            msgspec.structs.replace(opening("many", b'{"count":50,"size":900}'), window=1_000_000)
        )
        got = 0
        while got < 50:
            items = (await visit.hear(Items)).items
            assert sum(map(len, items)) <= 4096
            got += len(items)
        assert (await visit.hear(End)).error is None


async def test_an_item_or_a_failure_that_no_message_can_hold_ends_its_call_only() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome(max_message=4096)
        for number, call in enumerate(("many", "fail"), 1):
            given = b'{"count":1,"size":9000}' if call == "many" else b'{"size":9000}'
            await visit.say(opening(call, given, number))
            end = await visit.hear(End)
            assert (end.request_id, end.error.code.value) == (f"{number:032x}", "too_large")
        await visit.say(opening("add", b'{"a":1,"b":2}', 3))
        assert (await visit.hear(End)).answer == b"3"


async def test_garbage_breaks_a_connection_and_the_session_goes_on() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()
        await visit.say(opening("wait"))
        await visit.hear(Items)
        await visit.socket.send(b"garbage")
        assert await visit.ended() == 1002
        again = await at.visit()
        assert (again.hello.session, again.hello.received) == (SESSIONS[0], 1)
        again.session = visit.session
        again.session.resume(again.hello.received)
        await again.welcome(received=again.session.received)
        await again.say(Cancel(request_id=f"{1:032x}", reason=CancelReason.CALLER))
        assert (await again.hear(End)).reason is CancelReason.CALLER


async def test_a_session_in_which_nothing_makes_sense_is_given_up() -> None:
    async with gateway() as at, running(at) as (_, visit):
        for _attempt in range(3):
            await visit.welcome()
            await visit.socket.send(msgspec.msgpack.encode([1, 0, [[7]]]))
            await visit.ended()
            visit = await at.visit()
        assert visit.hello.session == ""
        await visit.welcome(SESSIONS[1])
        await visit.say(Ping(number=1))
        assert await visit.hear(Pong)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage",
        encode_hello(RunnerHello(name="a")),
        msgspec.msgpack.encode({"type": "welcome", "version": 2}),
        encode_hello(Refusal(code="conflict", message="no")),  # type: ignore[arg-type]
    ],
)
async def test_a_reply_that_is_none_is_tried_again(reply: bytes) -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.socket.send(reply)
        await visit.ended()
        again = await at.visit()
        await again.welcome()
        await again.say(Ping(number=1))
        assert await again.hear(Pong)


async def test_a_gateway_that_forgot_has_its_calls_cancelled() -> None:
    async with gateway() as at, running(at) as (runner, visit):
        await visit.welcome()
        await visit.say(opening("wait"))
        await visit.hear(Items)
        [line] = runner.lines
        old = line._calls
        assert old is not None
        await visit.socket.close()
        again = await at.visit()
        assert again.hello.session == SESSIONS[0]
        await again.welcome(SESSIONS[1])
        await until(lambda: not len(old), lambda: f"{len(old)} calls")
        await again.say(Ping(number=1))
        assert await again.hear(Pong)


async def test_a_gateway_that_falls_silent_is_left() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome(heartbeat_s=0.02)
        again = await at.visit()
        assert again.hello.session == SESSIONS[0]


async def test_a_gateway_that_does_not_want_it_is_left_for_good() -> None:
    async with gateway() as at, running(at) as (runner, visit):
        await visit.welcome()
        await visit.say(Ping(number=1))
        await visit.hear(Pong)
        await visit.socket.close(4001, "removed")
        with anyio.fail_after(5):
            await runner.over.wait()
        assert at.visits.empty()


async def test_leaving_waits_for_the_gateways_word_and_for_the_last_frame() -> None:
    async with gateway() as at, running(at) as (runner, visit):
        await visit.welcome()
        await visit.say(opening("add", b'{"a":1,"b":2}'))
        assert (await visit.hear(End)).answer == b"3"
        async with anyio.create_task_group() as group:
            group.start_soon(runner.drain)
            assert await visit.hear(Close) == Close()
            await visit.say(opening("add", b'{"a":2,"b":2}', 2), Close())  # given before it heard
            assert (await visit.hear(End)).answer == b"4"
            ping = await visit.hear(Ping)
            await visit.say(Pong(number=ping.number))
            assert await visit.ended() == 1000


async def test_credit_that_is_not_given_holds_a_call_back() -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()
        call = opening("echo", b"{}", more_input=True)
        item = b'"' + b"x" * 600 + b'"'
        await visit.say(call, *(Input(request_id=call.request_id, item=item) for _ in range(8)))
        got = 0
        while got < 8:
            new = len((await visit.hear(Items)).items)
            await visit.say(Credit(request_id=call.request_id, size=new * len(item)))
            got += new
        await visit.say(InputEnd(request_id=call.request_id))
        assert (await visit.hear(End)).error is None


async def test_pings_are_answered_only_while_its_code_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as at, running(at) as (runner, visit):
        await visit.welcome()
        monkeypatch.setattr(App, "answers", False)  # its workers are frozen
        await visit.say(Ping(number=1), opening("add", b'{"a":1,"b":2}'))
        await visit.hear(End)
        monkeypatch.setattr(App, "answers", True)
        await visit.say(Ping(number=2))
        assert await visit.hear(Pong) == Pong(number=2)
        assert runner.lines[0].connected


async def test_whatever_breaks_a_line_is_dialled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as at, running(at) as (_, visit):
        await visit.welcome()

        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr("penstock.runner.line.Line._heard", broken)
            await visit.say(Ping(number=1))
            assert await visit.ended() == 1011
        again = await at.visit()
        await again.welcome(SESSIONS[1])
        await again.say(Ping(number=1))
        assert await again.hear(Pong)
