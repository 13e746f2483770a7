"""Workflows under way: frames, order, failures, retries, timeouts, cancels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import msgspec
import pytest

from penstock.calls.live import Live
from penstock.errors import CallError, CommandError, ErrorCode
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, Frame, Start
from penstock.runtime.context import current_call
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime
from penstock.testing import FakeClock, Journal

pytestmark = pytest.mark.anyio


class Shop:
    """A project whose commands record what happens to them."""

    def __init__(self, *steps: Any, commands: Any = None, **workflow: Any) -> None:
        self.journal = Journal()
        self.seen: list[str] = []
        self.produced = 0
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        spec = {"commands": commands or {}, "workflows": {"w": {"steps": steps, **workflow}}}
        self.runtime = Runtime(Manifest.model_validate(spec))
        self._commands(self.runtime)

    def _commands(self, rt: Runtime) -> None:
        @rt.streaming_command("say")
        async def say(text: str, n: int = 1) -> AsyncIterator[dict[str, Any]]:
            self.seen.append(text)
            for i in range(n):
                self.produced += 1
                yield {"text": text, "i": i}

        @rt.command("plain")
        async def plain(text: Any = None) -> Any:
            return text

        @rt.streaming_command("fail")
        async def fail(items: int = 0) -> AsyncIterator[int]:
            self.journal.record("tried", "fail")
            for i in range(items):
                yield i
            if self.failures:
                raise self.failures.pop(0)

        @rt.streaming_command("hang")
        async def hang(items: int = 0) -> AsyncIterator[int]:
            current_call().on_abort(lambda request_id: self.journal.record("aborted", request_id))
            self.journal.record("started", current_call().request_id)
            try:
                for i in range(items):
                    yield i
                await asyncio.Event().wait()
            finally:
                await turns(5)
                self.journal.record("stopped", current_call().request_id)

        @rt.command("deaf")
        async def deaf() -> None:
            self.journal.record("started", "deaf")
            while not self.gate.is_set():
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.journal.record("ignored", "deaf")

        @rt.command("one")
        async def one() -> None:
            await self.gate.wait()

        @rt.streaming_command("threaded")
        def threaded(n: int) -> Iterator[int]:
            yield from range(n)

        @rt.command("left")
        async def left() -> float | None:
            return current_call().remaining()

        @rt.streaming_command("report")
        async def report() -> AsyncIterator[int]:
            current_call().progress(0.5, "half")
            yield 1


async def start(served: Any, *, stream: bool = True, **options: Any) -> Live:
    given = msgspec.json.encode(options.pop("given", {}))
    options = {"workflow_id": "w", "is_stream": stream, "input": given, **options}
    return await served.app.open(Start(**options), LOCAL)


async def run(served: Any, **options: Any) -> list[Frame]:
    return await served.frames(await start(served, **options))


async def turns(number: int) -> None:
    """Let the event loop turn."""
    for _ in range(number):
        await asyncio.sleep(0)


def at_the_end(live: Live, look: Callable[[], int]) -> list[int]:
    """Return a list that will hold what ``look`` sees when the call ends."""
    seen: list[int] = []
    live.on_end(lambda _: seen.append(look()))
    return seen


def said(frames: list[Frame]) -> list[tuple[str | None, Any]]:
    return [(frame.step, frame.data) for frame in frames if frame.status == "streaming"]


# -- what comes out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_items_carry_their_step_and_the_end_all_answers(serve: Any, stream: bool) -> None:
    shop = Shop(
        {"id": "story", "command": "say", "input": {"text": "${input.prompt}", "n": 2}},
        {"id": "title", "command": "plain", "input": {"text": "Title: ${steps.story.text}"}},
    )
    async with serve(shop.runtime) as served:
        frames = await run(served, given={"prompt": "fox"}, stream=stream, task_id="t")
    first, *_, last = frames
    assert said(frames) == [
        ("story", {"text": "fox", "i": 0}),
        ("story", {"text": "fox", "i": 1}),
        ("title", "Title: fox"),
    ]
    assert last.data == {"steps": {"story": {"text": "fox", "i": 1}, "title": "Title: fox"}}
    assert [frame.status for frame in frames] == ["accepted", *["streaming"] * 3, "completed"]
    assert [frame.seq for frame in frames] == list(range(5))
    assert {(f.version, f.workflow_id, f.command, f.task_id) for f in frames} == {("v2", "w", None, "t")}
    assert first.request_id is not None
    assert last.metrics is not None
    assert last.metrics["items"] == 3


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("${steps.a.text}", "x"),
        ({"all": ["${steps.a.i}", "${input.p}!"]}, {"all": [0, "x!"]}),
        ("done", "done"),
        ("${steps.b}", None),
    ],
)
async def test_an_output_of_ones_own(serve: Any, output: Any, answer: Any) -> None:
    skipped = {"id": "b", "command": "plain", "when": False}
    shop = Shop({"id": "a", "command": "say", "input": {"text": "${input.p}"}}, skipped, output=output)
    async with serve(shop.runtime) as served:
        (*_, last) = await run(served, given={"p": "x"})
    assert (last.status, last.data) == ("completed", answer)


async def test_an_output_that_leads_to_nothing(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "plain"}, output="${steps.a.text}")
    async with serve(shop.runtime) as served:
        (*_, last) = await run(served)
    assert (last.status, last.code) == ("error", "command_failed")
    assert "${steps.a.text} leads to nothing" in str(last.error)


async def test_functions_in_threads_are_steps_too(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "threaded", "input": {"n": "${input.n}"}})
    async with serve(shop.runtime) as served:
        frames = await run(served, given={"n": 1000})
    assert [data for _, data in said(frames)] == list(range(1000))


async def test_a_whole_input_by_reference(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "say", "input": "${input}"})
    async with serve(shop.runtime) as served:
        assert said(await run(served, given={"text": "x", "n": 1})) == [("a", {"text": "x", "i": 0})]
        (*_, last) = await run(served, given={"txet": "x"})
        assert (last.code, last.details[0]) == ("invalid_argument", {"step": "a"})
        assert "did you mean text?" in str(last.error)


async def test_a_reference_to_what_is_no_object_is_no_input(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "plain", "input": "${input.list}"})
    async with serve(shop.runtime) as served:
        (*_, last) = await run(served, given={"list": []})
    assert (last.code, last.error) == (
        "command_failed",
        "step a: the input of a command is an object, and here it is list",
    )


async def test_skipped_steps_are_null_and_say_nothing(serve: Any) -> None:
    shop = Shop(
        {"id": "a", "command": "say", "input": {"text": "a"}, "when": "${input.go}"},
        {"id": "b", "command": "plain", "input": {"text": "${steps.a}"}, "when": "${steps.a} == null"},
    )
    async with serve(shop.runtime) as served:
        skipped = await run(served, given={"go": False})
        taken = await run(served, given={"go": True})
    assert said(skipped) == [("b", None)]
    assert skipped[-1].data == {"steps": {"a": None, "b": None}}
    assert said(taken) == [("a", {"text": "a", "i": 0})]
    assert taken[-1].data == {"steps": {"a": {"text": "a", "i": 0}, "b": None}}


async def test_a_stream_of_nothing_answers_null(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "say", "input": {"text": "a", "n": 0}})
    async with serve(shop.runtime) as served:
        frames = await run(served)
    assert frames[-1].data == {"steps": {"a": None}}


async def test_notes_carry_their_step(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "report"})
    async with serve(shop.runtime) as served:
        noted = await run(served, notes=True)
        silent = await run(served)
    (note,) = [frame for frame in noted if frame.status == "progress"]
    assert (note.step, note.workflow_id, note.data) == ("a", "w", {"fraction": 0.5, "message": "half"})
    assert [frame.status for frame in silent] == ["accepted", "streaming", "completed"]


async def test_a_place_in_the_queue_is_a_note(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "hang"}, commands={"hang": {"concurrency": 1}})
    async with serve(shop.runtime) as served:
        first = await start(served, notes=True)
        await shop.journal.wait("started")
        second = await start(served, notes=True)
        await anyio.wait_all_tasks_blocked()
        second.cancel(CancelReason.CALLER)
        notes = [frame for frame in await served.frames(second) if frame.status == "queued"]
        assert [(note.step, note.position) for note in notes] == [("a", 1)]
        first.cancel(CancelReason.CALLER)
        await served.frames(first)


# -- order ---------------------------------------------------------------------------------------------


async def test_a_group_runs_at_the_same_time_and_the_next_step_after_it(serve: Any) -> None:
    shop = Shop(
        {"parallel": [{"id": "a", "command": "hang"}, {"id": "b", "command": "hang"}]},
        {"id": "c", "command": "plain"},
    )
    async with serve(shop.runtime) as served:
        live = await start(served)
        with anyio.fail_after(5):
            await shop.journal.wait("started", times=2)
        assert served.permits == 2
        live.cancel(CancelReason.CALLER)
        await served.frames(live)


async def test_steps_have_ids_of_their_own_and_are_not_listed(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "hang"})
    async with serve(shop.runtime) as served:
        live = await start(served)
        with anyio.fail_after(5):
            await shop.journal.wait("started")
        assert shop.journal.count("started", live.request_id) == 0
        (record,) = served.app.tasks(LOCAL)
        assert (record.workflow_id, record.command, record.task_id) == ("w", "", live.task_id)
        assert (await served.app.health()).in_flight == 1
        live.cancel(CancelReason.CALLER)
        await served.frames(live)


async def test_a_reader_that_stops_holds_the_steps_back(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "say", "input": {"text": "x" * 1000, "n": 100_000}})
    async with serve(shop.runtime, window=10_000) as served:
        live = await start(served)
        async with live.reader() as reader:
            await reader.__anext__()
            await anyio.wait_all_tasks_blocked()
            assert 10 <= shop.produced < 60  # a window here, a window there, and a batch in between
        live.cancel(CancelReason.CALLER)
        await served.frames(live)


# -- failures ------------------------------------------------------------------------------------------


async def test_a_failing_step_is_named_and_its_siblings_are_cancelled(serve: Any) -> None:
    shop = Shop(
        {"parallel": [{"id": "a", "command": "hang"}, {"id": "b", "command": "fail", "input": {"items": 1}}]},
        {"id": "c", "command": "say", "input": {"text": "c"}},
    )
    shop.failures = [CommandError("no paper", details=[{"tray": 2}])]
    async with serve(shop.runtime) as served:
        live = await start(served)
        stopped_before_the_end = at_the_end(live, lambda: shop.journal.count("stopped"))
        (*_, last) = await served.frames(live)
        with anyio.fail_after(5):
            await shop.journal.wait("aborted")
        assert stopped_before_the_end == [1]
        assert (last.status, last.error, last.code) == ("error", "step b: no paper", "command_failed")
        assert (last.details, last.step, last.workflow_id) == ([{"step": "b"}, {"tray": 2}], None, "w")
        assert shop.journal.count("stopped") == shop.journal.count("aborted") == 1
        assert shop.seen == []


async def test_of_several_that_fail_the_first_is_named(serve: Any) -> None:
    shop = Shop({"parallel": [{"id": i, "command": "fail"} for i in "abc"]})
    shop.failures = [CommandError(text) for text in ("first", "second", "third")]
    async with serve(shop.runtime) as served:
        (*_, last) = await run(served)
    assert last.error == "step a: first"


async def test_an_exception_is_not_shown(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop({"id": "a", "command": "fail"})
    shop.failures = [ValueError("secret")]
    async with serve(shop.runtime) as served:
        (*_, last) = await run(served)
    assert (last.error, last.code) == ("step a: fail failed (ValueError)", "command_failed")


@pytest.mark.parametrize(
    ("text", "code"), [("${input.nope}", "invalid_argument"), ("${steps.a.nope}", "command_failed")]
)
async def test_a_path_that_is_missing_fails_the_step(serve: Any, text: str, code: str) -> None:
    steps = [{"id": "a", "command": "plain"}, {"id": "b", "command": "say", "input": {"text": text}}]
    async with serve(Shop(*steps).runtime) as served:
        (*_, last) = await run(served)
        assert (last.status, last.code) == ("error", code)
        assert last.error == f"step b: {text} leads to nothing: there is no 'nope'"
        assert last.details == [{"step": "b"}, {"reference": text[2:-1], "reason": "missing"}]


async def test_a_condition_that_leads_to_nothing_fails_the_step(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "plain", "when": "${input.nope}"})
    async with serve(shop.runtime) as served:
        (*_, last) = await run(served)
    assert last.error == "step a: ${input.nope} leads to nothing: there is no 'nope'"


@pytest.mark.parametrize(
    ("workflow_id", "given", "code"),
    [
        ("x", b"{}", ErrorCode.NOT_FOUND),
        ("w", b"[]", ErrorCode.INVALID_ARGUMENT),
        ("w", b"{}", ErrorCode.INVALID_ARGUMENT),
    ],
)
async def test_what_is_refused_before_it_is_accepted(
    serve: Any, workflow_id: str, given: bytes, code: ErrorCode
) -> None:
    shop = Shop({"id": "a", "command": "plain"}, input_schema={"required": ["p"]})
    async with serve(shop.runtime) as served:
        with pytest.raises(CallError) as refused:
            await served.app.open(Start(workflow_id=workflow_id, input=given), LOCAL)
        assert refused.value.code is code
        assert served.app.tasks(LOCAL) == []


async def test_names_in_flight_are_refused(serve: Any) -> None:
    async with serve(Shop({"id": "a", "command": "hang"}).runtime) as served:
        live = await start(served, task_id="t")
        with pytest.raises(CallError) as refused:
            await start(served, task_id="t")
        assert refused.value.code is ErrorCode.CONFLICT
        live.cancel(CancelReason.CALLER)
        await served.frames(live)


# -- again ---------------------------------------------------------------------------------------------

RETRYABLE = ("try again", ErrorCode.UNAVAILABLE)


def again(attempts: int, **more: Any) -> dict[str, Any]:
    return {"id": "a", "command": "fail", "retry": {"attempts": attempts, "delay_s": 5}, **more}


async def test_a_step_is_tried_again_after_its_delay(serve: Any) -> None:
    clock = FakeClock()
    shop = Shop(again(3))
    shop.failures = [CallError(*RETRYABLE), CallError(*RETRYABLE)]
    async with serve(shop.runtime, clock=clock) as served:
        live = await start(served)
        for tried in (1, 2):
            await anyio.wait_all_tasks_blocked()
            clock.advance(4.9)
            await anyio.wait_all_tasks_blocked()
            assert shop.journal.count("tried") == tried
            clock.advance(0.1)
        (*_, last) = await served.frames(live)
    assert last.status == "completed"
    assert shop.journal.count("tried") == 3


async def test_attempts_are_counted(serve: Any) -> None:
    shop = Shop(again(2) | {"retry": {"attempts": 2}})
    shop.failures = [CallError(*RETRYABLE) for _ in range(5)]
    async with serve(shop.runtime) as served:
        (*_, last) = await run(served)
    assert (last.code, last.retryable, shop.journal.count("tried")) == ("unavailable", True, 2)


@pytest.mark.parametrize(
    ("failure", "items"), [(CommandError("no"), 0), (ValueError("no"), 0), (CallError(*RETRYABLE), 1)]
)
async def test_what_is_not_tried_again(serve: Any, failure: Exception, items: int) -> None:
    shop = Shop(again(5, input={"items": items}))
    shop.failures = [failure]
    async with serve(shop.runtime) as served:
        (*_, last) = await run(served)
    assert (last.status, shop.journal.count("tried")) == ("error", 1)


async def test_a_step_that_finds_no_room_is_tried_again(serve: Any) -> None:
    clock = FakeClock()
    step = {"id": "a", "command": "one", "retry": {"attempts": 2, "delay_s": 5}}
    shop = Shop(step, commands={"one": {"concurrency": 1, "queue": 0}})
    async with serve(shop.runtime, clock=clock) as served:
        first = await start(served)
        await anyio.wait_all_tasks_blocked()
        second = await start(served)
        await anyio.wait_all_tasks_blocked()
        shop.gate.set()
        await served.frames(first)
        clock.advance(5)
        (*_, last) = await served.frames(second)
    assert last.status == "completed"


async def test_a_cancel_ends_the_wait_for_the_next_attempt(serve: Any) -> None:
    clock = FakeClock()
    shop = Shop(again(2))
    shop.failures = [CallError(*RETRYABLE)]
    async with serve(shop.runtime, clock=clock) as served:
        live = await start(served)
        await anyio.wait_all_tasks_blocked()
        live.cancel(CancelReason.CALLER)
        (*_, last) = await served.frames(live)
        assert last.status == "cancelled"
        await served.settled()
        assert clock.pending == 1  # of the store, that forgets what has ended
    assert shop.journal.count("tried") == 1


# -- time ----------------------------------------------------------------------------------------------


async def test_a_step_that_hangs_is_cut_by_its_timeout(serve: Any) -> None:
    clock = FakeClock()
    shop = Shop({"id": "a", "command": "hang", "timeout_s": 3})
    async with serve(shop.runtime, clock=clock) as served:
        live = await start(served)
        await anyio.wait_all_tasks_blocked()
        clock.advance(3)
        (*_, last) = await served.frames(live)
        assert (last.status, last.code) == ("error", "deadline_exceeded")
        assert last.details == [{"step": "a"}, {"budget": "total", "limit_s": 3}]
        with anyio.fail_after(5):
            await shop.journal.wait("aborted")


async def test_a_step_does_not_begin_when_the_time_of_the_workflow_is_over(serve: Any) -> None:
    clock = FakeClock()
    shop = Shop({"id": "a", "command": "hold"}, {"id": "b", "command": "say", "input": {"text": "b"}})

    @shop.runtime.command("hold")
    async def hold() -> None:
        clock.hold(10)  # it holds the event loop, and no timer fires

    async with serve(shop.runtime, clock=clock) as served:
        live = await start(served, timeout_s=10)
        (*_, last) = await served.frames(live)
        assert last.code == "deadline_exceeded"
        assert shop.seen == []


async def test_every_attempt_has_the_timeout(serve: Any) -> None:
    clock = FakeClock()
    shop = Shop({"id": "a", "command": "hang", "timeout_s": 3, "retry": {"attempts": 2}})
    async with serve(shop.runtime, clock=clock) as served:
        live = await start(served)
        for _ in range(2):
            await anyio.wait_all_tasks_blocked()
            clock.advance(3)
            await anyio.wait_all_tasks_blocked()
            clock.advance(0)
        (*_, last) = await served.frames(live)
    assert last.code == "deadline_exceeded"
    assert shop.journal.count("started") == 2


async def test_the_whole_has_a_deadline_and_steps_know_what_remains(serve: Any) -> None:
    clock = FakeClock()
    shop = Shop(
        {"id": "a", "command": "left"},
        {"id": "b", "command": "left", "timeout_s": 3},
        {"id": "c", "command": "hang", "timeout_s": 300},
    )
    async with serve(shop.runtime, clock=clock) as served:
        live = await start(served, timeout_s=10)
        await anyio.wait_all_tasks_blocked()
        clock.advance(10)
        frames = await served.frames(live)
    assert said(frames) == [("a", 10.0), ("b", 3.0)]
    assert (frames[-1].code, frames[-1].details) == (
        "deadline_exceeded",
        [{"budget": "total", "limit_s": 10}],
    )
    assert str(frames[-1].error).startswith("w took longer")


# -- cancel --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [0, 3])
async def test_one_cancel_stops_all_of_it(serve: Any, items: int) -> None:
    group = [{"id": i, "command": "hang", "input": {"items": items}} for i in "abc"]
    shop = Shop({"parallel": group}, {"id": "d", "command": "say", "input": {"text": "d"}})
    async with serve(shop.runtime) as served:
        live = await start(served)
        with anyio.fail_after(5):
            await shop.journal.wait("started", times=3)
        await anyio.wait_all_tasks_blocked()
        assert live.cancel(CancelReason.CALLER) == "cancelled"
        (*_, last) = await served.frames(live)
        with anyio.fail_after(5):
            await shop.journal.wait("aborted", times=3)
        assert (last.status, last.reason) == ("cancelled", "caller")
        assert last.cancel is not None
        assert last.cancel.delivered_at is not None
        await served.settled()
        assert served.permits == 0
        assert shop.journal.count("stopped") == shop.journal.count("aborted") == 3
        assert shop.journal.count("aborted", live.request_id) == 0
        assert shop.seen == []


@pytest.mark.parametrize("reason", list(CancelReason))
async def test_steps_are_cut_at_once_and_for_the_same_reason(serve: Any, reason: CancelReason) -> None:
    shop = Shop({"id": "a", "command": "hang"})
    async with serve(shop.runtime) as served:
        live = await start(served, timeout_s=10)
        with anyio.fail_after(5):
            await shop.journal.wait("started")
        (inner,) = served.app._working - {live}
        live.cancel(reason)
        assert inner.cancel_reason is reason
        await served.frames(live)


async def test_a_caller_that_leaves_stops_all_of_it(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "hang", "input": {"items": 1}})
    async with serve(shop.runtime) as served:
        live = await start(served)
        async with live.reader() as reader:
            await reader.__anext__()
            with anyio.fail_after(5):
                await shop.journal.wait("started")
        (*_, last) = await served.frames(live)
        assert last.reason == "disconnect"
        await served.settled()
        assert shop.journal.count("stopped") == 1


async def test_a_drain_reaches_the_steps(serve: Any) -> None:
    shop = Shop({"id": "a", "command": "hang"})
    async with serve(shop.runtime) as served:
        live = await start(served)
        with anyio.fail_after(5):
            await shop.journal.wait("started")
        await served.app.aclose()
        (*_, last) = await served.frames(live)
        assert (last.status, last.code, last.retryable) == ("error", "unavailable", True)
        assert shop.journal.count("stopped") == 1


async def test_work_that_ignores_the_cancel_is_reported_as_stuck(serve: Any) -> None:
    clock = FakeClock()
    shop = Shop({"id": "a", "command": "deaf"})
    async with serve(shop.runtime, clock=clock) as served:
        live = await start(served)
        with anyio.fail_after(5):
            await shop.journal.wait("started")
        live.cancel(CancelReason.CALLER)
        await anyio.wait_all_tasks_blocked()
        clock.advance(2)
        (*_, last) = await served.frames(live)
        await turns(20)
        checks, permits = (await served.app.health()).checks, served.permits
        shop.gate.set()
        assert (last.status, checks, permits) == ("cancelled", {"stuck": "1"}, 1)
        await served.settled()
        assert served.permits == 0
        assert (await served.app.health()).checks == {}


async def test_nothing_begins_after_a_cancel(serve: Any) -> None:
    shop = Shop(*({"id": f"s{i}", "command": "say", "input": {"text": str(i)}} for i in range(5)))
    before = threading.active_count()
    async with serve(shop.runtime) as served:
        for number in range(40):
            shop.seen.clear()
            live = await start(served)
            await turns(number)
            live.cancel(CancelReason.CALLER)
            seen = len(shop.seen)
            frames = await served.frames(live)
            await served.settled()
            assert len(shop.seen) == seen
            assert [frame.seq for frame in frames] == list(range(len(frames)))
            assert frames[-1].status in ("cancelled", "completed")
        assert served.permits == 0
    assert threading.active_count() < before + 20
