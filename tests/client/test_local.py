"""The in-process transport against a dispatcher that breaks the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import msgspec
import pytest

from penstock.client import AsyncClient
from penstock.errors import CallError, ErrorCode, PenstockError, RemoteProtocolError, StreamTruncated
from penstock.protocol.call import Ending, State
from penstock.protocol.dispatch import Batch, Dispatcher

pytestmark = pytest.mark.anyio


def frame(status: str, seq: int, **more: Any) -> bytes:
    return msgspec.json.encode({"type": "task", "status": status, **more, "task_id": "t", "seq": seq})


ACCEPTED, ITEM = frame("accepted", 0, request_id="9f"), frame("streaming", 1, data="a")
DONE = frame("completed", 2)


class Told:
    """A dispatcher and its one call, whose log is whatever it is told."""

    task_id = request_id = "t"

    def __init__(self, *batches: tuple[bytes, ...]) -> None:
        self._batches = batches
        self.left = 0

    async def open(self, *_: object) -> Told:
        return self

    def find(self, *_: object) -> Told:
        raise CallError("no task t", ErrorCode.NOT_FOUND)

    @asynccontextmanager
    async def reader(self, after: int = -1) -> AsyncIterator[AsyncIterator[Batch]]:
        try:
            yield self._read()
        finally:
            self.left += 1

    async def _read(self) -> AsyncIterator[Batch]:
        for lines in self._batches:
            ending = Ending(State.COMPLETED) if DONE in lines else None
            yield Batch(0, list(lines), ending)


@pytest.mark.parametrize(
    ("batches", "items", "error"),
    [
        (((ACCEPTED, ITEM, DONE),), ["a"], None),
        (((ACCEPTED,), (ITEM,), (DONE,)), ["a"], None),
        (((ACCEPTED, ITEM),), ["a"], StreamTruncated),
        ((), [], StreamTruncated),
        (((ACCEPTED, ITEM, DONE), (ITEM,)), ["a"], RemoteProtocolError),
        (((ACCEPTED, DONE),), [], RemoteProtocolError),
        (((ITEM, DONE),), [], RemoteProtocolError),
    ],
)
async def test_what_a_server_may_not_say_a_dispatcher_may_not_say(
    batches: tuple[tuple[bytes, ...], ...], items: list[str], error: type[PenstockError] | None
) -> None:
    told, got, raised = Told(*batches), [], None
    client = AsyncClient(cast("Dispatcher", told))
    try:
        with anyio.fail_after(5):
            async with client.stream("any") as stream:
                async for item in stream:
                    got.append(item)
    except PenstockError as caught:
        raised = type(caught)
    assert (got, raised) == (items, error)
    assert told.left == 1


async def test_a_run_whose_reader_is_closed_says_so() -> None:
    with pytest.raises(StreamTruncated, match="reader of t was closed"):
        await AsyncClient(cast("Dispatcher", Told((ACCEPTED, ITEM)))).run("any")
