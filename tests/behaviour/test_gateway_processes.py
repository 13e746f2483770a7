"""A gateway in a process of its own, killed and stopped again and again under load: every call ends once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from behaviour.processes import START_S, process
from behaviour.promises import promise
from penstock.calls.tasks import TaskOwner
from penstock.client import AsyncClient, AsyncStream
from penstock.client.backoff import ONCE
from penstock.errors import CallCancelled, CallError, ConnectionFailed, ErrorCode, PenstockError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform == "win32", reason="processes are signalled in the Unix way"),
]

RESTARTS = int(os.environ.get("PENSTOCK_RESTARTS", "1"))  # ten with `make restarts`
CALLERS = 8
ITEMS = 30
SETTINGS = {
    "PENSTOCK_GATEWAY_HEARTBEAT_S": "0.4",
    "PENSTOCK_GATEWAY_RESUME_S": "3",
    "PENSTOCK_DRAIN_S": "0.3",
}
PROJECT = """
import asyncio
import os
from pathlib import Path

from penstock import Runtime, current_call

rt = Runtime("manifest.yml")
journal = os.open(Path(__file__).parent / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(word):
    os.write(journal, f"{word} {current_call().request_id}\\n".encode())


@rt.streaming_command("count", concurrency=64)
async def count(items: int):
    note("began")
    try:
        for i in range(items):
            yield {"i": i}
            await asyncio.sleep(0.01)
        note("whole")
    finally:
        note("ended")
"""


class Journal:
    """What the commands on the runner have written down."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "journal"

    def of(self, word: str) -> Counter[str]:
        """Return how often each call said this."""
        lines = [line.split() for line in self._file.read_text().splitlines()]
        return Counter(call for said, call in lines if said == word)


class Caller:
    """Makes one call after the other, and follows each to its end, whatever becomes of the gateway."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self.ends: dict[str, str] = {}  # by request id
        self.whole: list[str] = []
        self.stopping = False

    async def run(self) -> None:
        number = 0
        while not self.stopping:
            number += 1
            async with AsyncClient(self._url, retry=ONCE) as client:
                await self._call(client, f"{self._name}-{number}")

    async def _call(self, client: AsyncClient, task_id: str) -> None:
        items: list[int] = []
        stream = client.stream("count", items=ITEMS, task_id=task_id)
        end = await self._read(stream, items)
        if stream.request_id is None:  # it was never accepted
            await asyncio.sleep(0.1)
            return
        request_id, after = stream.request_id, stream.last_seq
        while end is None:
            again = client.resume(task_id, after=after)
            end = await self._read(again, items)
            after = max(after, again.last_seq)
            await asyncio.sleep(0.02)
        assert request_id not in self.ends
        self.ends[request_id] = end
        if end == "completed":
            assert items == list(range(ITEMS))
            self.whole.append(request_id)

    async def _read(self, stream: AsyncStream[Any], items: list[int]) -> str | None:
        """Read what there is; return how the call ended, None while that is not known."""
        try:
            async with stream:
                async for item in stream:
                    items.append(item["i"])
        except CallCancelled:
            return "cancelled"
        except ConnectionFailed:
            return None
        except CallError as error:
            return "forgotten" if error.code is ErrorCode.NOT_FOUND else error.code.value
        except PenstockError:  # cut off
            return None
        return "completed"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def ready(url: str) -> None:
    """Return once a runner is there."""
    async with AsyncClient(url) as client:
        with anyio.fail_after(START_S):
            while (await client.health()).status != "healthy":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)


@promise("P12", "P23", "P1")
async def test_every_accepted_call_ends_once_however_often_the_gateway_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(PROJECT)
    (tmp_path / "manifest.yml").write_text("name: project\nentrypoint: run.py\n")
    port, journal, tasks = free_port(), Journal(tmp_path), TaskOwner()
    url = f"http://127.0.0.1:{port}"
    gateway = ("gateway", "--port", port, "--ws-port", 0)
    callers = [Caller(url, f"caller{number}") for number in range(CALLERS)]
    runner = ("runner", tmp_path, "--gateway", url.replace("http", "ws"), "--name", "one")
    async with process(*runner, settings=SETTINGS):
        for number in range(RESTARTS + 1):
            async with process(*gateway, settings=SETTINGS) as (running, _):
                await ready(url)
                if not number:
                    loads = [tasks.start(caller.run(), awaited=True) for caller in callers]
                before = sum(len(caller.whole) for caller in callers)
                with anyio.fail_after(START_S):
                    while sum(len(caller.whole) for caller in callers) < before + 2 * CALLERS:
                        assert not any(load.done() for load in loads)
                        await asyncio.sleep(0.01)
                if number < RESTARTS:
                    running.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
                    await running.wait()
                    continue
                for caller in callers:
                    caller.stopping = True
                with anyio.fail_after(START_S):
                    await asyncio.gather(*loads)
                    while journal.of("began") != journal.of("ended"):  # noqa: ASYNC110 - likewise
                        await asyncio.sleep(0.02)
    began, ended, whole = (journal.of(word) for word in ("began", "ended", "whole"))
    assert set(began.values()) == set(ended.values()) == {1}  # none ran twice
    ends = [end for caller in callers for end in caller.ends.values()]
    assert set(ends) <= {"completed", "cancelled", "forgotten", "unavailable"}, Counter(ends)
    assert {request_id for caller in callers for request_id in caller.whole} <= whole.keys()
    assert {request_id for caller in callers for request_id in caller.ends} >= whole.keys()
