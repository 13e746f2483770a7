"""``Client``: the same over every way in, from threads, and what becomes of calls that are interrupted."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from client.conftest import QUICK, WAIT_S, project, served
from client.cutter import Cutter
from penstock import App, AsyncClient, CallCancelled, CallError, Client, ConnectionFailed, Stream
from penstock.client import Retry
from penstock.errors import ErrorCode, LocalProtocolError, StreamTruncated

ROOT = Path(__file__).parents[2]


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    """Where the server runs."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def server(portal: BlockingPortal, seen: SimpleNamespace) -> Iterator[str]:
    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async with App(project(seen)) as app, served(app) as url:
            yield url

    with portal.wrap_async_context_manager(serving()) as url:
        yield url


@pytest.fixture(params=["local", "ndjson", "sse", "websocket"])
def blocking(request: pytest.FixtureRequest, seen: SimpleNamespace) -> Iterator[Client]:
    """A client over each way in."""
    way: Any = request.param
    if way == "local":
        client = Client(App(project(seen)))
    else:
        url = request.getfixturevalue("server")
        client = Client(url.replace("http", "ws")) if way == "websocket" else Client(url, form=way)
    with client:
        yield client


def wait_stopped(client: Client, seen: SimpleNamespace, portal: BlockingPortal) -> None:
    async def stopped() -> None:
        with anyio.fail_after(WAIT_S):
            await seen.stopped.wait()

    if hasattr(client._transport._transport, "_dispatcher"):
        client._transport._portal.call(stopped)
    else:
        portal.call(stopped)


# -- the same as the other ---------------------------------------------------------------------------


def test_it_is_what_the_script_writes() -> None:
    if not (ROOT / "scripts" / "blocking_client.py").exists():
        pytest.skip("the script is not here")
    check = [sys.executable, str(ROOT / "scripts" / "blocking_client.py"), "--check"]
    checked = subprocess.run(check, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_both_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert names(Client) == names(AsyncClient) - {"aclose"} | {"close"}


def test_answers_streams_and_questions(blocking: Client) -> None:
    assert blocking.run("echo", text="A fox") == {"text": "A fox"}
    with blocking.stream("words", text="a b c", task_id="mine", notes=True) as stream:
        assert (stream.task_id, stream.status) == ("mine", "accepted")
        assert [item["chunk"] for item in stream] == ["a", "b", "c"]
        assert (stream.text, stream.metrics["items"], stream.status) == ("abc", 3, "completed")
    assert [frame.status for frame in blocking.resume("mine").frames()][-1] == "completed"
    assert list(blocking.workflow("count_and_say", n=1))[:2] == [{"n": 0}, {"text": "last was 0"}]
    assert blocking.run_workflow("count_and_say", n=1)["steps"]["count"] == {"n": 0}
    assert blocking.commands()["tick"].streaming
    assert blocking.task("mine") in blocking.tasks()
    assert blocking.health().status == "healthy"
    assert blocking.cancel("mine") == "already_finished"


def test_a_stream_is_read_without_a_block(blocking: Client) -> None:
    assert [item["n"] for item in blocking.stream("tick", n=3000)] == list(range(3000))


def test_failures_are_raised(blocking: Client) -> None:
    with pytest.raises(CallError, match="no more paper") as caught:
        blocking.run("fail", after=1)
    assert caught.value.correlation_id is not None
    stream = blocking.stream("fail", after=1)
    assert next(stream) == 0
    for _ in range(2):
        with pytest.raises(CallError, match="no more paper"):
            next(stream)
    with pytest.raises(CallError) as refused:
        next(blocking.stream("nope"))
    assert refused.value.code is ErrorCode.NOT_FOUND
    with pytest.raises(LocalProtocolError, match="use `with client"):
        blocking.stream("tick", n=1).cancel()


def test_cancel_ends_the_stream(blocking: Client) -> None:
    with blocking.stream("hang") as stream:
        assert next(stream) == "first"
        assert stream.cancel() == "cancelled"
        with pytest.raises(CallCancelled):
            next(stream)


def test_a_cancel_from_another_thread_is_heard_by_the_one_that_waits(blocking: Client) -> None:
    with blocking.stream("hang", task_id="mine") as stream, ThreadPoolExecutor(1) as other:
        assert next(stream) == "first"
        cancelling = other.submit(blocking.cancel, "mine")
        with pytest.raises(CallCancelled):
            next(stream)
        assert cancelling.result(WAIT_S) == "cancelled"


# -- leaving -----------------------------------------------------------------------------------------


def test_a_stream_that_is_closed_is_left(
    blocking: Client, seen: SimpleNamespace, portal: BlockingPortal
) -> None:
    stream = blocking.stream("hang")
    assert next(stream) == "first"
    stream.close()
    wait_stopped(blocking, seen, portal)
    with pytest.raises(LocalProtocolError):
        next(stream)


def test_a_stream_that_is_forgotten_is_left(
    blocking: Client, seen: SimpleNamespace, portal: BlockingPortal
) -> None:
    for _ in blocking.stream("hang"):
        break
    gc.collect()
    wait_stopped(blocking, seen, portal)


def interrupt_when(ready: threading.Event) -> threading.Thread:
    """Press Ctrl-C once the main thread is about to wait."""

    def press() -> None:
        assert ready.wait(WAIT_S)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def test_ctrl_c_cancels_what_is_waited_for(
    blocking: Client, seen: SimpleNamespace, portal: BlockingPortal
) -> None:
    kept: list[Stream[Any]] = []
    ready = threading.Event()

    def read() -> None:
        kept.append(blocking.stream("hang"))
        assert next(kept[0]) == "first"
        ready.set()
        next(kept[0])

    thread = interrupt_when(ready)
    with pytest.raises(KeyboardInterrupt):
        read()
    thread.join()
    wait_stopped(blocking, seen, portal)
    assert blocking.run("echo", text="a") == {"text": "a"}


def test_ctrl_c_cancels_a_run(blocking: Client, seen: SimpleNamespace, portal: BlockingPortal) -> None:
    ready = threading.Event()

    def watch() -> None:
        while not blocking.tasks():
            pass
        ready.set()

    watching, pressing = threading.Thread(target=watch), interrupt_when(ready)
    watching.start()
    with pytest.raises(KeyboardInterrupt):
        blocking.run("hang")
    watching.join()
    pressing.join()
    wait_stopped(blocking, seen, portal)


# -- threads and ends --------------------------------------------------------------------------------


def test_threads_share_a_client(blocking: Client) -> None:
    def read(n: int) -> list[int]:
        assert blocking.run("tick", n=n + 1) == {"n": n}
        return [item["n"] for item in blocking.stream("tick", n=n)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, range(40))) == [list(range(n)) for n in range(40)]


def test_a_closed_client_is_closed_and_its_thread_ends(blocking: Client) -> None:
    thread = blocking._transport._portal._thread
    stream = blocking.stream("hang")
    next(stream)
    blocking.close()
    assert not thread.is_alive()
    blocking.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        blocking.run("echo", text="a")


def test_a_stream_may_be_left_after_its_client(blocking: Client) -> None:
    with blocking.stream("hang") as stream:
        assert next(stream) == "first"
        blocking.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        next(blocking.stream("hang"))


def test_a_client_that_is_forgotten_ends_its_thread_with_its_last_stream(server: str) -> None:
    stream = Client(server).stream("tick", n=2)
    thread = stream._source.transport._portal._thread
    gc.collect()
    assert [item["n"] for item in stream] == [0, 1]
    del stream
    gc.collect()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_program_ends_that_closes_nothing(server: str) -> None:
    program = f"from penstock import Client\nclient = Client({server!r})\nprint(next(client.stream('hang')))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "first\n", "")


def test_what_runs_elsewhere_is_not_for_threads(portal: BlockingPortal, seen: SimpleNamespace) -> None:
    with (
        portal.wrap_async_context_manager(App(project(seen))) as app,
        pytest.raises(LocalProtocolError, match="use AsyncClient"),
    ):
        Client(app)


def test_nobody_there_and_bad_addresses() -> None:
    with pytest.raises(ValueError, match="write it like"):
        Client("localhost")
    for url in ("http://127.0.0.1:9", "ws://127.0.0.1:9"):
        with Client(url, retry=Retry(attempts=1, base_s=0.001)) as client:
            with pytest.raises(ConnectionFailed):
                client.run("echo")
            with pytest.raises(ConnectionFailed):
                next(client.stream("echo"))


def test_a_dropped_connection_is_read_on(server: str, portal: BlockingPortal) -> None:
    with Client(server, on_disconnect={"grace_s": 5}) as client:
        stream = client.stream("tick", n=5)
        assert next(stream) == {"n": 0}
        stream._drop()
        assert [item["n"] for item in stream] == [1, 2, 3, 4]
    with Client(server, retry=Retry(attempts=0)) as client, pytest.raises(StreamTruncated):
        list(client.resume(stream.task_id, after=stream.last_seq))


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_cut_here_and_there_a_stream_gives_each_item_once(
    server: str, portal: BlockingPortal, scheme: str
) -> None:
    """At every byte that is tried for ``AsyncClient``, whose text this one's is."""

    def read(cutter: Cutter) -> list[Any]:
        with portal.wrap_async_context_manager(cutter) as url:
            options: dict[str, Any] = {"retry": QUICK, "on_disconnect": {"grace_s": 5}}
            with Client(url.replace("http", scheme), **options) as client:
                return list(client.stream("tick", n=3))

    whole = Cutter(server)
    assert read(whole) == [{"n": 0}, {"n": 1}, {"n": 2}]
    resumed = 0
    for offset in range(whole.carried // 3, whole.carried, 47):
        cutter = Cutter(server, offset)
        assert read(cutter) == [{"n": 0}, {"n": 1}, {"n": 2}], offset
        resumed += cutter.connections > 1
    assert resumed > 10
