"""`initialize` reaches the processes: at once, in those to come, or not at all (WIRE.md section 5)."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import anyio
import pytest

from penstock.errors import AuthoringError, CallError
from penstock.testing.journal import Journal

pytestmark = pytest.mark.anyio

PROJECT = """
import ctypes
import logging
import os
from penstock import CommandError, Runtime, register_abort_callback
from penstock.testing.relay import RelayedJournal

rt = Runtime("manifest.yml")
journal = RelayedJournal()

class Voice:
    def __init__(self, key):
        self.key, self.pid = key, os.getpid()
    def close(self):
        journal.record(f"closed {self.key} {os.getpid()}", "voice")

@rt.command("initialize")
def initialize(key: str = "first"):
    journal.record(f"made {key} {os.getpid()}", "voice")
    if key == "heavy":
        ctypes.PyDLL(None).sleep(2)  # with the interpreter lock held, as some imports and loads do
    if key == "bad":
        raise CommandError("no such key")
    if key == "bad in whisper" and "[whisper]" in LOG_FORMAT:
        raise CommandError("whisper does not like it")
    return {"voice": Voice(key)}

# The lines that a process logs name its command.
FORMATTERS = [handler.formatter for handler in logging.getLogger().handlers if handler.formatter]
LOG_FORMAT = " ".join(formatter._fmt or "" for formatter in FORMATTERS)

@rt.command("speak")
async def speak(voice: Voice = None):
    return {"key": voice.key, "made": voice.pid, "pid": os.getpid()}

@rt.command("whisper")
async def whisper(voice: Voice = None):
    return {"key": voice.key, "made": voice.pid, "pid": os.getpid()}

@rt.command("hum")
async def hum():
    return os.getpid()
"""


async def test_state_that_only_processes_use_is_made_in_them_alone(isolate: Any, journal: Journal) -> None:
    async with isolate("speak", "whisper", "hum", code=PROJECT, manifest="startup: [initialize]") as app:
        pids = {app.pid("speak"), app.pid("whisper")}
        assert set(journal.of("voice")) == {f"made first {pid}" for pid in pids}
        for command in ("speak", "whisper"):
            pid = app.pid(command)
            assert await app.answer(command) == {"key": "first", "made": pid, "pid": pid}
        assert await app.answer("initialize") == {"state": ["voice"]}  # in force already
        assert len(journal.of("voice")) == 2
    for pid in pids:
        assert journal.count(f"closed first {pid}", "voice") == 1  # in good order, by the process itself


async def test_the_server_has_state_too_where_a_command_of_its_own_takes_it(
    isolate: Any, journal: Journal
) -> None:
    async with isolate("speak", code=PROJECT) as app:
        assert (await app.answer("whisper"))["made"] == os.getpid()  # whose first call initialises both
        assert (await app.answer("speak"))["made"] == app.pid("speak")
        assert len(journal.of("voice")) == 2


async def test_another_input_swaps_the_state_and_a_new_process_gets_the_last_one(
    isolate: Any, journal: Journal
) -> None:
    async with isolate("speak", code=PROJECT) as app:
        assert await app.answer("initialize", key="a") == {"state": ["voice"]}
        first = app.pid("speak")
        assert await app.answer("initialize", key="b") == {"state": ["voice"]}
        assert (await app.answer("speak"))["key"] == "b"
        with anyio.fail_after(20):
            await journal.wait(f"closed a {first}", "voice")
        os.kill(first, signal.SIGKILL)
        while (seen := await app.run("speak", stream=False))[-1].status != "completed":
            assert seen[-1].code == "unavailable"
        second = seen[-1].data
        assert second["key"] == "b"
        assert second["pid"] == second["made"] == app.pid("speak") != first


async def test_an_initialisation_that_fails_changes_nothing_anywhere(isolate: Any) -> None:
    async with isolate("speak", "whisper", code=PROJECT, manifest="startup: [initialize]") as app:
        last = (await app.run("initialize", key="bad"))[-1]
        assert (last.error, last.code) == ("no such key", "command_failed")
        last = (await app.run("initialize", key="bad in whisper"))[-1]
        assert last.error == "whisper does not like it"
        pids = {command: app.pid(command) for command in ("speak", "whisper")}
        for command, pid in pids.items():
            assert await app.answer(command) == {"key": "first", "made": pid, "pid": pid}
            assert (await app.checks())[command] == "running"


async def test_a_first_initialisation_that_fails_in_one_leaves_none_behind(isolate: Any) -> None:
    async with isolate("speak", "whisper", code=PROJECT) as app:
        last = (await app.run("initialize", key="bad in whisper"))[-1]
        assert last.error == "whisper does not like it"
        while (seen := await app.run("speak", stream=False))[-1].status != "completed":
            assert seen[-1].code in ("unavailable", "failed_precondition")
        assert seen[-1].data["key"] == "first"  # made by default, as nothing is in force


async def test_who_loads_a_model_may_hold_the_interpreter_lock(isolate: Any) -> None:
    async with isolate("speak", code=PROJECT, beat_s=0.1, frozen_s=0.5, held_s=0.5) as app:
        pid = app.pid("speak")
        assert await app.answer("initialize", key="heavy") == {"state": ["voice"]}
        assert app.pid("speak") == pid


async def test_cleanup_reaches_the_processes(isolate: Any, journal: Journal) -> None:
    async with isolate("speak", code=PROJECT, manifest="startup: [initialize]") as app:
        pid = app.pid("speak")
        assert await app.answer("cleanup") == {"state": []}
        with anyio.fail_after(20):
            await journal.wait(f"closed first {pid}", "voice")
        assert (await app.answer("speak"))["key"] == "first"
        assert journal.count(f"made first {pid}", "voice") == 2


async def test_an_initialisation_that_fails_in_a_new_process_is_tried_again(
    isolate: Any, folder: Any, journal: Journal
) -> None:
    async with isolate("speak", code=PROJECT, wait_s=0.5) as app:
        await app.answer("initialize", key="a")
        good = (folder / "run.py").read_text()
        (folder / "run.py").write_text(good.replace('if key == "bad":', 'if key == "a":'))
        os.kill(app.pid("speak"), signal.SIGKILL)
        failures = 0
        while "initialize" not in (await app.checks())["speak"]:
            failures += (await app.run("speak"))[-1].code == "unavailable"
        assert failures
        assert (await app.checks())["speak"] == "respawning after `initialize` fails there"
        (folder / "run.py").write_text(good)
        while (seen := await app.run("speak", stream=False))[-1].status != "completed":
            assert seen[-1].code == "unavailable"
        assert seen[-1].data["key"] == "a"


async def test_inputs_of_initialize_are_in_no_log(
    isolate: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with isolate("speak", code=PROJECT) as app:
        await app.answer("initialize", key="canary")
        os.kill(app.pid("speak"), signal.SIGKILL)
        while (await app.run("speak", stream=False))[-1].status != "completed":
            pass
    assert "canary" not in caplog.text
    assert "canary" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["initialize", "cleanup"])
async def test_what_makes_state_is_not_isolated_itself(isolate: Any, name: str) -> None:
    with pytest.raises(AuthoringError, match=f"{name} runs wherever state is needed"):
        async with isolate(name, code=PROJECT):
            raise AssertionError("it started")


async def test_without_state_it_is_refused_as_in_the_server(isolate: Any) -> None:
    needy = PROJECT.replace('key: str = "first"', "key: str")
    async with isolate("speak", code=needy) as app:
        with pytest.raises(CallError, match="call `initialize` with key first"):
            await app.open("speak")
