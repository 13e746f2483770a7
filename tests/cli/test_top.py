"""`penstock top`: what runs on a server, once and live, and cancelling it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from cli.processes import Penstock, Serve, Server
from cli.terminal import CTRL_C, at_terminal


@contextmanager
def holding(server: Server, task_id: str, *, frames: int = 2, **headers: str) -> Iterator[None]:
    """Have a call under way, of which so many frames were read."""
    body = {"command": "hold", "is_stream": True, "task_id": task_id}
    url = f"{server.url}/v2/execute"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as reply:
        lines = reply.iter_lines()
        read = [json.loads(next(lines))["status"] for _ in range(frames)]
        assert read == ["accepted", "streaming"][:frames]
        yield


def row(shown: str, begin: str) -> list[str]:
    """Return the words of the line that begins so."""
    found = [line.split() for line in shown.splitlines() if line.split()[:1] == [begin]]
    assert found, shown
    return found[0]


def test_once_prints_what_runs_and_how_full_its_command_is(server: Server, penstock: Penstock) -> None:
    with holding(server, "shown"):
        ended = penstock("top", server.url, "--once")
        again = penstock("top", PENSTOCK_URL=server.url)  # nobody watches
    assert (ended.returncode, ended.stderr) == (0, "")
    assert again.returncode == 0
    for shown in (ended.stdout, again.stdout):
        task, command, state, items, rate, age, unit = row(shown, "shown")
        assert (task, command, state, items, unit) == ("shown", "hold", "streaming", "1", "s")
        assert float(rate) >= 0
        assert float(age) >= 0
        running = re.search(r"^hold +(\d+) of (\d+)", shown, re.MULTILINE)
        assert running
        assert int(running[1]) >= 1


def test_calls_that_wait_are_told_from_those_that_run(
    serve: Serve, penstock: Penstock, tmp_path: Path
) -> None:
    file = tmp_path / "run.py"
    file.write_text(NARROW)
    server = serve(file)
    with holding(server, "first"), holding(server, "second", frames=1):
        shown = penstock("top", server.url, "--once").stdout
    assert row(shown, "first")[2] == "streaming"
    assert row(shown, "second")[1:4] == ["hold", "queued", "0"]
    assert re.search(r"^hold +1 of 1 +1 of \d+", shown, re.MULTILINE), shown


def test_a_quiet_server_says_so(serve: Serve, penstock: Penstock) -> None:
    server = serve("--engine", "scripted:text=one", "--no-metrics")
    ended = penstock("top", server.url, "--once")
    assert (ended.returncode, ended.stdout) == (0, "no call runs\n")


def test_cancel_ends_a_call_and_tells_of_one_that_is_unknown(server: Server, penstock: Penstock) -> None:
    with holding(server, "doomed"):
        ended = penstock("top", server.url, "--cancel", "doomed")
        again = penstock("top", server.url, "--cancel", "doomed", "--cancel", "nosuch")
    assert (ended.returncode, ended.stdout) == (0, "doomed: cancelled\n")
    assert (again.returncode, again.stdout) == (1, "doomed: already finished\n")
    assert "not_found" in again.stderr
    task = httpx.get(f"{server.url}/tasks/doomed").json()
    assert (task["status"], task["reason"]) == ("cancelled", "caller")


def test_what_it_may_not_see_is_left_out(
    serve: Serve, tiny: Path, penstock: Penstock, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.txt"
    key = penstock("keys", "new", "alice", "--file", keys).stdout.strip()
    server = serve(tiny, "--auth-keys", keys)
    with holding(server, "mine", authorization=f"Bearer {key}"):
        ended = penstock("top", server.url, "--once", PENSTOCK_API_KEY=key)
    assert ended.returncode == 0, ended.stderr
    assert row(ended.stdout, "mine")[1] == "hold"
    assert " of " not in ended.stdout
    refused = penstock("top", server.url, "--once")
    assert refused.returncode == 1
    assert "unauthenticated" in refused.stderr


def test_a_wrong_address_and_no_server_have_their_exit_codes(penstock: Penstock) -> None:
    assert penstock("top", "127.0.0.1", "--once").returncode == 2
    assert penstock("top", "http://127.0.0.1:1", "--once").returncode == 3


def test_the_screen_follows_and_cancels_what_is_typed(server: Server) -> None:
    with (
        holding(server, "watched"),
        at_terminal("top", server.url, "--every", "0.2", TERM="xterm") as terminal,
    ):
        terminal.wait_for("watched")
        terminal.type("c nosuch\r")
        terminal.wait_for("is known here")
        terminal.type("c watchee\x7fd\r")
        terminal.wait_for("watched: cancelled")
        terminal.type("q\r")
        assert terminal.end() == 0
    assert httpx.get(f"{server.url}/tasks/watched").json()["status"] == "cancelled"


def test_ctrl_c_leaves_the_screen(server: Server) -> None:
    with at_terminal("top", server.url, "--every", "0.2", TERM="xterm") as terminal:
        terminal.wait_for("q leaves")
        terminal.type(CTRL_C)
        assert terminal.end() == 0


NARROW = """
import asyncio

from penstock import Runtime

rt = Runtime()


@rt.streaming_command("hold", concurrency=1)
async def hold():
    yield 1
    await asyncio.Event().wait()
"""
