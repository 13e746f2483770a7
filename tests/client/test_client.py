"""``AsyncClient``: the same tests in process, over NDJSON, SSE and WebSocket."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import anyio
import pytest

from penstock.client import AsyncClient
from penstock.errors import (
    CallCancelled,
    CallError,
    ErrorCode,
    LocalProtocolError,
    ReplayTruncated,
    StreamTruncated,
)
from penstock.protocol.dispatch import LOCAL
from penstock.runtime.app import App

pytestmark = pytest.mark.anyio


# -- run ---------------------------------------------------------------------------------------------


async def test_run_returns_the_answer(client: AsyncClient) -> None:
    assert await client.run("echo", {"text": "A fox"}) == {"text": "A fox"}
    assert await client.run("echo", text="A fox") == {"text": "A fox"}


async def test_run_of_a_streaming_command_returns_its_last_item(client: AsyncClient) -> None:
    assert await client.run("tick", n=3) == {"n": 2}


async def test_names_of_options_go_into_the_mapping_and_the_rest_may_be_keywords(client: AsyncClient) -> None:
    mixed = await client.run("clash", {"task_id": "inner"}, command="run", input=4, task_id="outer")
    assert mixed == ["run", "inner", 4]
    assert (await client.task("outer")).status == "completed"


async def test_a_name_given_twice_is_refused(client: AsyncClient) -> None:
    with pytest.raises(TypeError, match="text: given in the input and as a keyword"):
        await client.run("echo", {"text": "a"}, text="b")


async def test_bytes_travel(client: AsyncClient) -> None:
    assert await client.run("size", data=b"\0\xff\xfe") == 3


async def test_run_raises_what_the_author_raised(client: AsyncClient) -> None:
    with pytest.raises(CallError, match="no more paper") as caught:
        await client.run("fail", after=2)
    error = caught.value
    assert (error.code, error.retryable, error.retry_after_s) == (ErrorCode.COMMAND_FAILED, True, 3)
    assert error.details == ({"tray": 2},)


@pytest.mark.parametrize(
    ("command", "given", "code"),
    [
        ("eco", {}, ErrorCode.NOT_FOUND),
        ("echo", {}, ErrorCode.INVALID_ARGUMENT),
        ("echo", {"text": "a", "txt": "b"}, ErrorCode.INVALID_ARGUMENT),
    ],
)
async def test_a_refusal_is_the_same_for_run_and_stream(
    client: AsyncClient, command: str, given: dict[str, str], code: ErrorCode
) -> None:
    with pytest.raises(CallError) as of_run:
        await client.run(command, given)
    with pytest.raises(CallError) as of_stream:
        async with client.stream(command, given):
            pytest.fail("it was opened")
    assert of_run.value.code is of_stream.value.code is code
    assert of_run.value.message == of_stream.value.message


@pytest.mark.parametrize("value", [float("nan"), {1: {2: float("inf")}}, object(), "\ud800"])
async def test_what_json_cannot_say_is_refused_before_it_travels(client: AsyncClient, value: object) -> None:
    with pytest.raises(CallError, match="input cannot be sent") as caught:
        await client.run("echo", text=value)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_timeout_ends_the_call(client: AsyncClient) -> None:
    with pytest.raises(CallError, match="longer than its total budget") as caught:
        await client.run("hang", timeout_s=0.05)
    assert caught.value.code is ErrorCode.DEADLINE_EXCEEDED


async def test_the_clients_own_timeout_is_the_default(app: App, url: str) -> None:
    for target in (app, url):
        async with AsyncClient(target, timeout_s=0.05) as client:
            with anyio.fail_after(5), pytest.raises(CallError, match=r"total budget of 0\.05 s"):
                await client.run("hang")


async def test_a_run_that_is_cancelled_elsewhere_says_so(client: AsyncClient) -> None:
    async def cancel() -> None:
        while not await client.tasks():
            await anyio.lowlevel.checkpoint()
        assert await client.cancel("mine") == "cancelled"

    async with anyio.create_task_group() as group:
        group.start_soon(cancel)
        with pytest.raises(CallCancelled, match="call mine was cancelled") as caught:
            await client.run("hang", task_id="mine")
    assert caught.value.reason == "caller"


async def test_leaving_a_run_cancels_the_call(client: AsyncClient, seen: SimpleNamespace) -> None:
    with anyio.move_on_after(0.1):
        await client.run("hang")
    with anyio.fail_after(5):
        await seen.stopped.wait()


async def test_a_correlation_id_is_invented_or_given(client: AsyncClient, seen: SimpleNamespace) -> None:
    await client.run("echo", text="a")
    await client.run("echo", text="a", correlation_id="trace-1")
    invented, given = (metadata["x_request_id"] for metadata in seen.metadata)
    assert len(invented) == 32
    assert given == "trace-1"


# -- stream ------------------------------------------------------------------------------------------


async def test_a_stream_gives_the_items_then_the_metrics(client: AsyncClient) -> None:
    async with client.stream("tick", n=1000, task_id="mine") as stream:
        assert (stream.task_id, len(stream.request_id or "")) == ("mine", 32)
        assert (stream.status, stream.last_seq, stream.metrics) == ("accepted", 0, {})
        assert [item["n"] async for item in stream] == list(range(1000))
        assert stream.metrics["items"] == 1000
    assert (stream.status, stream.last_seq) == ("completed", 1001)


async def test_a_task_id_that_was_not_given_names_the_call_all_the_same(client: AsyncClient) -> None:
    async with client.stream("tick", n=0) as stream:
        assert (await client.task(stream.task_id)).request_id == stream.request_id


async def test_the_answer_of_a_plain_command_is_the_one_item(client: AsyncClient) -> None:
    async with client.stream("echo", text="A fox") as stream:
        assert [item async for item in stream] == [{"text": "A fox"}]
        assert stream.text == "A fox"


@pytest.mark.parametrize(
    ("command", "given", "text"),
    [
        ("words", {"text": "a b c"}, "abc"),
        ("drafts", {}, "A fox"),
        ("pieces", {}, "A fox"),
        ("tick", {"n": 2}, ""),
    ],
)
async def test_the_text_so_far(client: AsyncClient, command: str, given: dict[str, str], text: str) -> None:
    async with client.stream(command, given) as stream:
        async for _ in stream:
            assert text.startswith(stream.text)
        assert stream.text == text


async def test_frames_run_from_accepted_to_the_terminal_one(client: AsyncClient) -> None:
    async with client.stream("tick", n=2) as stream:
        frames = [frame async for frame in stream.frames()]
    assert [(frame.seq, frame.status) for frame in frames] == [
        (0, "accepted"),
        (1, "streaming"),
        (2, "streaming"),
        (3, "completed"),
    ]


async def test_frames_continue_where_items_stopped(client: AsyncClient) -> None:
    async with client.stream("tick", n=3) as stream:
        assert await stream.__anext__() == {"n": 0}
        assert [frame.seq async for frame in stream.frames()] == [0, 2, 3, 4]


async def test_notes_are_shown_to_whoever_asks_and_are_no_items(client: AsyncClient) -> None:
    async with client.stream("words", text="a b", notes=True) as stream:
        statuses = [frame.status async for frame in stream.frames()]
    assert "progress" in statuses
    async with client.stream("words", text="a b", notes=True) as stream:
        assert [item["chunk"] async for item in stream] == ["a", "b"]
    async with client.stream("words", text="a b") as stream:
        assert "progress" not in [frame.status async for frame in stream.frames()]


async def test_a_failure_comes_after_the_items(client: AsyncClient) -> None:
    async with client.stream("fail", after=2) as stream:
        assert [await stream.__anext__(), await stream.__anext__()] == [0, 1]
        for _ in range(2):
            with pytest.raises(CallError, match="no more paper") as caught:
                await stream.__anext__()
    assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.COMMAND_FAILED, 3)
    assert stream.status == "error"


async def test_frames_tell_a_failure_and_do_not_raise_it(client: AsyncClient) -> None:
    async with client.stream("fail") as stream:
        last = [frame async for frame in stream.frames()][-1]
    assert (last.status, last.error, last.code) == ("error", "no more paper", "command_failed")


async def test_cancel_ends_the_stream(client: AsyncClient, seen: SimpleNamespace) -> None:
    async with client.stream("hang") as stream:
        assert await stream.__anext__() == "first"
        assert await stream.cancel() == "cancelled"
        with pytest.raises(CallCancelled) as caught:
            await stream.__anext__()
        assert await stream.cancel() == "already_finished"
    assert caught.value.reason == "caller"
    assert seen.stopped.is_set()


async def test_leaving_a_stream_cancels_the_call(client: AsyncClient, seen: SimpleNamespace) -> None:
    async with client.stream("hang", task_id="mine") as stream:
        await stream.__anext__()
    with anyio.fail_after(5):
        await seen.stopped.wait()
    async with client.resume("mine") as again:
        frames = [frame async for frame in again.frames()]
    assert (frames[-1].status, frames[-1].reason) == ("cancelled", "disconnect")


async def test_leaving_a_stream_that_continues_leaves_the_call_running(client: AsyncClient) -> None:
    async with client.stream("hang", task_id="mine", on_disconnect="continue") as stream:
        await stream.__anext__()
    assert (await client.task("mine")).status == "streaming"
    async with client.resume("mine", after=0) as again:
        assert await again.__anext__() == "first"
        assert await again.cancel() == "cancelled"


async def test_a_stream_is_used_within_its_block_and_once(client: AsyncClient) -> None:
    stream = client.stream("tick", n=3)
    for ask in (stream.cancel, stream.end_input):
        with pytest.raises(LocalProtocolError, match="async with"):
            await ask()
    async with stream:
        await stream.__anext__()
        with pytest.raises(LocalProtocolError, match="entered once"):
            await stream.__aenter__()
    with pytest.raises(LocalProtocolError, match="async with"):
        await stream.__anext__()


async def test_a_stream_that_is_read_without_a_block_is_opened_by_that(client: AsyncClient) -> None:
    assert [item["n"] async for item in client.stream("tick", n=3)] == [0, 1, 2]
    assert [frame.seq async for frame in client.stream("tick", n=1).frames()] == [0, 1, 2]
    await client.run("tick", n=2, task_id="mine")
    assert [frame.seq async for frame in client.resume("mine", after=0).frames()] == [1, 2, 3]


async def test_a_stream_that_is_forgotten_is_left(client: AsyncClient, seen: SimpleNamespace) -> None:
    async for _ in client.stream("hang"):
        break
    gc.collect()
    with anyio.fail_after(5):
        await seen.stopped.wait()


async def test_the_correlation_id_is_told_by_streams_and_errors(client: AsyncClient) -> None:
    assert len(client.stream("tick", n=1).correlation_id) == 32
    async with client.stream("fail", correlation_id="trace-1") as stream:
        assert stream.correlation_id == "trace-1"
        with pytest.raises(CallError) as of_stream:
            await stream.__anext__()
    with pytest.raises(CallError) as of_run:
        await client.run("nope", correlation_id="trace-2")
    with pytest.raises(CallError) as of_opening:
        await client.stream("nope", correlation_id="trace-3").__aenter__()
    errors = (of_stream.value, of_run.value, of_opening.value)
    assert [error.correlation_id for error in errors] == ["trace-1", "trace-2", "trace-3"]


async def test_a_client_that_was_closed_runs_nothing(app: App, url: str) -> None:
    for target in (url, url.replace("http", "ws")):
        client = AsyncClient(target)
        await client.aclose()
        for ask in (client.run("echo"), client.stream("echo").__aenter__()):
            with pytest.raises(CallError, match="was closed"):
                await ask


@pytest.mark.parametrize(
    "options", [{"on_disconnect": "stay"}, {"task_id": "a b"}, {"timeout_s": 0}, {"timeout_s": float("nan")}]
)
async def test_bad_options_are_refused_at_once(client: AsyncClient, options: dict[str, object]) -> None:
    with pytest.raises(CallError) as caught:
        client.stream("tick", {"n": 1}, **options)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


# -- resume, tasks, server ---------------------------------------------------------------------------


@pytest.mark.parametrize("after", [-1, 0, 1, 4])
async def test_resume_gives_the_frames_behind_a_number(client: AsyncClient, after: int) -> None:
    async with client.stream("tick", n=4, task_id="mine", on_disconnect="continue") as stream:
        assert [item["n"] async for item in stream] == [0, 1, 2, 3]
    async with client.resume("mine", after) as again:
        assert [frame.seq async for frame in again.frames()] == list(range(after + 1, 6))
        assert again.metrics["items"] == 4
    async with client.resume("mine", after) as again:
        assert [item["n"] async for item in again] == list(range(max(after, 0), 4))


async def test_resume_behind_the_end_has_nothing_to_give(client: AsyncClient) -> None:
    await client.run("tick", n=1, task_id="mine")
    async with client.resume("mine", after=2) as stream:
        with pytest.raises(StreamTruncated):
            await stream.__anext__()


async def test_resume_of_an_unknown_call_or_frame_is_refused(client: AsyncClient) -> None:
    with pytest.raises(CallError) as unknown:
        await client.resume("nobody").__aenter__()
    await client.run("tick", n=1, task_id="mine")
    with pytest.raises(CallError) as beyond:
        await client.resume("mine", after=99).__aenter__()
    assert (unknown.value.code, beyond.value.code) == (ErrorCode.NOT_FOUND, ErrorCode.INVALID_ARGUMENT)


async def test_resume_behind_frames_that_are_gone_says_where_to_continue(
    client: AsyncClient, app: App
) -> None:
    await client.run("tick", n=100, task_id="mine")
    app.find("mine", LOCAL).log.trim(1000)
    with pytest.raises(ReplayTruncated) as caught:
        await client.resume("mine", after=0).__aenter__()
    async with client.resume("mine", after=caught.value.first_seq - 1) as stream:
        assert [item["n"] async for item in stream][-1] == 99


async def test_tasks_are_shown(client: AsyncClient) -> None:
    await client.run("echo", text="a", task_id="first")
    async with client.stream("fail", task_id="second") as stream:
        assert [frame.status async for frame in stream.frames()][-1] == "error"
    first, second = await client.tasks()
    assert (first.task_id, first.status, first.result) == ("first", "completed", {"text": "a"})
    assert (second.task_id, second.status, second.code) == ("second", "error", "command_failed")
    assert (await client.task("first")) == first


async def test_cancel_of_what_is_over_or_unknown(client: AsyncClient) -> None:
    await client.run("echo", text="a", task_id="mine")
    assert await client.cancel("mine") == "already_finished"
    for ask in (client.cancel, client.task):
        with pytest.raises(CallError) as caught:
            await ask("no/such")
        assert caught.value.code is ErrorCode.NOT_FOUND


async def test_commands_are_shown(client: AsyncClient) -> None:
    commands = await client.commands()
    assert commands["tick"].streaming
    assert not commands["echo"].streaming
    assert commands["echo"].input_schema["properties"]["text"]["type"] == "string"


async def test_workflows_are_shown(client: AsyncClient) -> None:
    (workflow,) = (await client.workflows()).values()
    assert [step["id"] for step in workflow.steps] == ["count", "say"]


async def test_health_is_shown_also_when_it_is_bad(client: AsyncClient, app: App) -> None:
    assert (await client.health()).status == "healthy"
    await app.drain()
    assert (await client.health()).status == "draining"
    with pytest.raises(CallError) as caught:
        await client.run("echo", text="a")
    assert (caught.value.code, caught.value.retryable) == (ErrorCode.UNAVAILABLE, True)
    assert caught.value.retry_after_s == 1
