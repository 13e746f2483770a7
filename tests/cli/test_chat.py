"""`penstock chat`: through a pipe, and at a terminal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.processes import PATIENCE_S, Penstock, Serve, Server, command, environment, started
from cli.terminal import CTRL_C, CTRL_D, at_terminal

PARROT = """
import asyncio

from penstock import CommandError, Runtime

rt = Runtime()


@rt.command("shout")
def shout(prompt: str):
    return prompt.upper()


@rt.streaming_command("talk", openai="chat", model="parrot")
async def talk(messages: list[dict]):
    if messages[-1]["content"] == "fail":
        raise CommandError("not today")
    for turn in messages:
        yield f"{turn['role'][0]}:{turn['content']}|"
    if messages[-1]["content"] == "hold":
        await asyncio.Event().wait()
"""


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that says what it was asked, all of it."""
    file = tmp_path_factory.mktemp("parrot") / "parrot.py"
    file.write_text(PARROT)
    with started("run", file, "--port", 0) as process:
        yield Server(process)


def piped(text: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("chat", *arguments),
        input=text,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_each_line_of_a_pipe_is_answered_on_one(parrot: Server) -> None:
    ended = piped("one\n\ntwo\n", parrot.url, "--system", "Be brief")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "s:Be brief|u:one|\ns:Be brief|u:one|a:s:Be brief|u:one||u:two|\n"


def test_orders_change_what_the_model_is_asked(parrot: Server) -> None:
    typed = "one\n/reset\n/system Be brief\ntwo\n/reset\n/system\n/model shout\nthree\n/nope\n/model no\n"
    ended = piped(f"{typed}/exit\nfour\n", PENSTOCK_URL=parrot.url)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "u:one|",
        "s:Be brief|u:two|",
        "THREE",
        "there is no /nope; /help shows what there is",
        "there is nobody called 'no'; there are: parrot (command talk), shout",
    ]


def test_a_turn_has_several_lines_and_is_no_order_then(parrot: Server) -> None:
    ended = piped('one \\\ntwo\n/reset\n"""\n/exit\n\nthree\n"""\n', parrot.url)
    assert ended.stdout == "u:one \ntwo|\nu:/exit\n\nthree|\n", ended.stderr


def test_an_engine_is_talked_to_over_http_and_websocket(serve: Serve) -> None:
    server = serve("--engine", "scripted:text=Once upon a time")
    for url in (server.url, server.url.replace("http", "ws")):
        assert piped("Say", url).stdout == "Once upon a time\n"


@pytest.mark.parametrize(
    ("typed", "arguments", "said"),
    [
        ("fail\nnever\n", (), "not today"),
        ("one\n", ("--model", "nobody"), "parrot"),
        ("one\n", ("--model", "shout", "--system", "x"), "system_prompt"),
        ("hold\n", ("--timeout", "0.2"), "deadline_exceeded"),
    ],
)
def test_a_failure_ends_a_pipe(parrot: Server, typed: str, arguments: tuple[str, ...], said: str) -> None:
    ended = piped(typed, parrot.url, *arguments)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "never" not in ended.stdout
    assert "Traceback" not in ended.stderr


def test_a_server_without_models_says_so(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(
        "from penstock import Runtime\nrt = Runtime()\nrt.command('one')(lambda: 1)\n"
    )
    ended = piped("one\n", serve(tmp_path / "run.py").url)
    assert ended.returncode == 1
    assert "messages" in ended.stderr


def test_a_wrong_address_and_no_server_have_their_exit_codes(penstock: Penstock) -> None:
    assert penstock("chat", "127.0.0.1").returncode == 2
    assert penstock("chat", "http://127.0.0.1:1").returncode == 3


def test_ctrl_c_cancels_the_answer_and_the_conversation_goes_on(parrot: Server) -> None:
    with at_terminal("chat", parrot.url) as terminal:
        terminal.wait_for("parrot")
        terminal.type("hold\n")
        terminal.wait_for("u:hold|")
        terminal.type(CTRL_C)
        terminal.wait_for("(cancelled)")
        terminal.type("fail\n")
        terminal.wait_for("not today (command_failed)")
        terminal.type("more\n")
        terminal.wait_for("u:hold|a:u:hold||u:more|")
        terminal.type("/exit\n")
        assert terminal.end() == 0
    tasks = httpx.get(f"{parrot.url}/tasks").json()["tasks"]
    held = [task for task in tasks if task["status"] == "cancelled" and task["reason"] == "caller"]
    assert held


def test_ctrl_c_twice_leaves(parrot: Server) -> None:
    with at_terminal("chat", parrot.url) as terminal:
        terminal.wait_for("> ")
        # Readline may miss a Ctrl-C that comes just before it waits; it is felt at the end of the line then.
        terminal.type("half a question" + CTRL_C + "\n")
        terminal.wait_for("(again: leave)")
        terminal.wait_for("> ")
        terminal.type("whole\n")
        assert "half" not in terminal.wait_for("u:whole|")
        terminal.wait_for("> ")
        terminal.type(CTRL_C + "\n")
        terminal.wait_for("(again: leave)")
        terminal.wait_for("> ")
        terminal.type(CTRL_C + "\n")
        assert terminal.end() == 130


def test_ctrl_d_leaves(parrot: Server) -> None:
    with at_terminal("chat", parrot.url) as terminal:
        terminal.wait_for("> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0


def test_what_was_typed_can_be_fetched_again(parrot: Server) -> None:
    pytest.importorskip("readline")
    with at_terminal("chat", parrot.url) as terminal:
        terminal.wait_for("> ")
        terminal.type("remember\n")
        terminal.wait_for("u:remember|")
        terminal.wait_for("> ")
        terminal.type("/reset\n")
        terminal.wait_for("> ")
        terminal.type("\x10\x10\n")  # Ctrl-P, as the arrow key
        terminal.wait_for("u:remember|")
        terminal.wait_for("> ")  # before, Ctrl-D would be lost
        terminal.type(CTRL_D)
        assert terminal.end() == 0
