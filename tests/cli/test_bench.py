"""`penstock bench`: load on a server of its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import pytest

from cli.processes import PATIENCE_S, Penstock, Serve, Server, started


def test_json_tells_what_calls_took(server: Server, penstock: Penstock) -> None:
    ended = penstock("bench", server.url, "count", "to:=3", "--requests", 10, "--concurrency", 4, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    assert (told["command"], told["concurrency"], told["calls"], told["completed"]) == ("count", 4, 10, 10)
    assert (told["items"], told["errors"]) == (30, {})
    assert told["items_per_s"] == pytest.approx(3 * told["calls_per_s"])
    for times in (told["first_item_ms"], told["gap_ms"], told["total_ms"]):
        assert 0 <= times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert told["first_item_ms"]["max"] <= told["total_ms"]["max"] <= told["elapsed_s"] * 1000


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_a_table_and_a_histogram_are_for_people(server: Server, penstock: Penstock, scheme: str) -> None:
    url = server.url.replace("http", scheme)
    ended = penstock("bench", url, "add", "a=1", "b=2", "--seconds", "0.2")
    assert ended.returncode == 0, ended.stderr
    head, rates, *rest = ended.stdout.splitlines()
    calls = int(head.split()[1])
    assert head.startswith(f"add: {calls} calls in ")
    assert f" {calls} items " in rates  # the answer is the one item of a command that does not stream
    assert [line.split(",")[0] for line in rest if line.startswith(("first", "gap", "total"))] == [
        "first item",
        "total",
    ]
    bars = rest[rest.index("calls by their total, ms") + 1 :]
    assert sum(int(line.split()[-1]) for line in bars) == calls


def test_errors_are_counted_by_code(server: Server, penstock: Penstock) -> None:
    ended = penstock("bench", server.url, "refuse", "--requests", 3)
    assert ended.returncode == 1
    assert "errors: command_failed 3" in ended.stdout
    late = penstock("bench", server.url, "hold", "--requests", 2, "--timeout", "0.1", "--json")
    assert late.returncode == 1
    told = json.loads(late.stdout)
    assert (told["errors"], told["completed"], told["total_ms"]) == ({"deadline_exceeded": 2}, 0, None)


def test_ctrl_c_ends_it_and_tells_what_there_is(serve: Serve, tiny: Path) -> None:
    server = serve(tiny)  # where nobody was holding before
    with started("bench", server.url, "hold", "--requests", "1") as process:
        assert server.process.stdout is not None
        held = next(line for line in server.process.stdout if line.startswith("holding")).split()[1]
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert shown.startswith("hold: 0 calls in ")
    assert "Traceback" not in said
    with httpx.stream("GET", f"{server.url}/tasks/{held}/events", timeout=PATIENCE_S) as reply:
        *_, last = map(json.loads, reply.iter_lines())
    assert (last["status"], last["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("http://127.0.0.1:1", "add", "--requests", "1", "--seconds", "1"), 2),
        (("127.0.0.1", "add"), 2),
        (("http://127.0.0.1:1", "add", "a"), 2),
        (("http://127.0.0.1:1", "add", "--requests", "1"), 3),
    ],
)
def test_a_wrong_command_line_and_no_server_have_their_exit_codes(
    penstock: Penstock, arguments: tuple[str, ...], code: int
) -> None:
    assert penstock("bench", *arguments).returncode == code
