"""The load over WebSocket believes no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("load_ws")


def stream(items: int, name: str, change: Callable[[list[dict[str, Any]]], None] = lambda _: None) -> bytes:
    """Return the messages of one call, as a server sends them."""
    item = {"text": "token ", "chunk": "token ", "finished": False}
    frames = [{"status": "accepted"}, *({"status": "streaming", "data": item} for _ in range(items))]
    frames = [*({"type": "task", **frame} for frame in frames), {"type": "task", "status": "completed"}]
    frames = [{**frame, "task_id": name, "seq": seq} for seq, frame in enumerate(frames)]
    change(frames)
    texts = [json.dumps(frame, separators=(",", ":")).encode() for frame in frames]
    return b"".join(b"\x81\x7e" + len(text).to_bytes(2, "big") + text for text in texts)


async def hear(load: ModuleType, *pieces: bytes, calls: int = 1) -> tuple[SimpleNamespace, list[Exception]]:
    """Let a socket hear what a server says; return what it counted and complained about."""
    tally, faults = load.Tally(), []
    connection = load.Connection(load.Job("items", 3, calls), 0, tally, faults.append)
    connection.connection_made(SimpleNamespace(write=lambda _: None, close=lambda: None))
    connection.begin()
    for piece in (ACCEPTED, *pieces):
        connection.data_received(piece)
    return tally, faults


async def test_right_answers_are_counted_however_they_are_cut(load: ModuleType) -> None:
    streams = [stream(3, f"c0r{turn}") for turn in range(4)]  # a call begins when the one before has ended
    for size in (1, 7, 100, 1000):
        pieces = [text[begin : begin + size] for text in streams for begin in range(0, len(text), size)]
        tally, faults = await hear(load, *pieces)
        assert faults == []
        assert (tally.requests, len(tally.first_item_s)) == (4, 4)
        assert tally.received == sum(map(len, streams))


async def test_calls_on_one_socket_are_told_apart(load: ModuleType) -> None:
    turns = [b"".join(stream(3, f"c{call}r{turn}") for call in (1, 0)) for turn in range(3)]
    tally, faults = await hear(load, *turns, calls=2)
    assert (faults, tally.requests) == ([], 6)


def without_an_item(frames: list[dict[str, Any]]) -> None:
    del frames[2]


def with_another_item(frames: list[dict[str, Any]]) -> None:
    frames[2]["data"] = {**frames[2]["data"], "text": "tokem "}


def with_a_gap(frames: list[dict[str, Any]]) -> None:
    frames[2]["seq"] = 7


def with_an_early_end(frames: list[dict[str, Any]]) -> None:
    frames[-1]["seq"] = 3


def with_an_error(frames: list[dict[str, Any]]) -> None:
    frames[-1]["status"] = "error"


@pytest.mark.parametrize(
    "change", [without_an_item, with_another_item, with_a_gap, with_an_early_end, with_an_error]
)
async def test_a_wrong_answer_is_refused(load: ModuleType, change: Any) -> None:
    _, faults = await hear(load, stream(3, "c0r0", change), stream(3, "c0r1"))
    assert [type(fault) for fault in faults][:1] == [load.WrongAnswer]


async def test_what_is_no_websocket_is_refused(load: ModuleType) -> None:
    faults: list[Exception] = []
    connection = load.Connection(load.Job("items", 3, 1), 0, load.Tally(), faults.append)
    connection.connection_made(SimpleNamespace(write=lambda _: None))
    connection.data_received(b"HTTP/1.1 404 Not Found\r\n\r\n")
    assert [type(fault) for fault in faults] == [load.WrongAnswer]
