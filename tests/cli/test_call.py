"""`penstock call` against a server of its own."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import httpx
import pytest

from cli.processes import Penstock, Server, started


def test_an_answer_is_printed_as_json(server: Server, penstock: Penstock) -> None:
    pretty = penstock("call", "add", "a=2", "b:=3", "--url", server.url)
    compact = penstock("call", "add", "a=2", "b:=3", "--json", PENSTOCK_URL=server.url)
    assert (pretty.returncode, pretty.stdout) == (0, '{\n  "sum": 5\n}\n')
    assert (compact.returncode, compact.stdout) == (0, '{"sum": 5}\n')


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("predict", "prompt=Say"), "Once upon a time\n"),
        (("count", "to=2"), '{"number": 0}\n{"number": 1}\n'),
        (("add", "a=1", "b=1"), '{"sum": 2}\n'),
    ],
)
def test_a_stream_is_printed_as_it_comes(
    server: Server, penstock: Penstock, arguments: tuple[str, ...], printed: str
) -> None:
    ended = penstock("call", *arguments, "--stream", "--url", server.url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, printed, "")


def test_frames_are_printed_as_json_lines(server: Server, penstock: Penstock) -> None:
    ended = penstock("call", "count", "to=1", "--stream", "--json", "--task-id", "mine", "--url", server.url)
    frames = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [frame["status"] for frame in frames] == ["accepted", "streaming", "completed"]
    assert {frame["task_id"] for frame in frames} == {"mine"}
    assert frames[1]["data"] == {"number": 0}


def test_a_file_is_an_input(server: Server, penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("über\n", encoding="utf-8")
    ended = penstock("call", "echo", f"text=@{tmp_path / 'text'}", "--url", server.url)
    assert json.loads(ended.stdout) == "über\n"
    (tmp_path / "all.json").write_text('{"a": 2, "b": 3}')
    ended = penstock("call", "add", f"@{tmp_path / 'all.json'}", "b:=5", "--url", server.url)
    assert json.loads(ended.stdout) == {"sum": 7}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ad", "a=1"), "did you mean add?"),
        (("add", "a=1", "b=1", "c=1"), "invalid_argument"),
        (("add", "a=x", "b=1"), "a: "),
        (("refuse",), "not today"),
        (("refuse", "--stream"), "not today"),
        (("refuse", "--stream", "--json"), "not today"),
        (("hold", "--stream", "--timeout", "0.05"), "deadline_exceeded"),
    ],
)
def test_a_failure_is_told_with_its_code(
    server: Server, penstock: Penstock, arguments: tuple[str, ...], said: str
) -> None:
    ended = penstock("call", *arguments, "--url", server.url)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments", [("add", "a"), ("add", "a:=x"), ("add", "a=@/nosuchfile"), ("add", "a=1", "a=2"), ()]
)
def test_a_wrong_command_line_is_a_usage_error(penstock: Penstock, arguments: tuple[str, ...]) -> None:
    assert penstock("call", *arguments).returncode == 2


def test_an_address_that_is_none_is_a_usage_error(penstock: Penstock) -> None:
    ended = penstock("call", "add", "--url", "127.0.0.1")
    assert ended.returncode == 2
    assert "http://" in ended.stderr


def test_no_server_has_an_exit_code_of_its_own(penstock: Penstock) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        ended = penstock("call", "add", "--url", url)
    assert ended.returncode == 3
    assert url in ended.stderr
    assert "penstock run" in ended.stderr


@pytest.mark.parametrize("how", [("--stream",), ("--stream", "--json"), ()])
def test_ctrl_c_cancels_the_call_and_says_so(server: Server, how: tuple[str, ...]) -> None:
    task_id = f"held{len(how)}"
    with started("call", "hold", *how, "--task-id", task_id, "--url", server.url) as process:
        server.wait_for(f"holding {task_id}")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"{task_id} was cancelled" in said
    task = httpx.get(f"{server.url}/tasks/{task_id}").json()
    assert (task["status"], task["reason"]) == ("cancelled", "caller")
