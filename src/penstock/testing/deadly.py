"""The part of the model zoo that takes its process down, or makes it useless: for isolated commands only.

A project of it is two files: a manifest that isolates the commands a test is about, and an entrypoint with
``from penstock.testing.deadly import deadly_zoo`` and ``animals = deadly_zoo("manifest.yml")``.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from penstock.runtime.context import current_call
from penstock.runtime.runtime import Runtime
from penstock.testing.relay import RelayedJournal
from penstock.testing.zoo import Zoo, model_zoo

MIB = 1024 * 1024
HOLD_S = 600


def deadly_zoo(manifest: str | Path) -> Zoo:
    """Return a zoo whose journal is told to the test, with the commands of ``model_zoo`` and these:

    - ``whoami()`` returns the ids of the process and of the call, and how many threads there are.
    - ``exit_at(k, code)`` yields k items, then ends the process without a word.
    - ``segv_at(k)`` yields k items, then reads from address 0.
    - ``oom(room_mb)`` allocates until it is refused, under a limit of ``room_mb`` more than is in use.
    - ``gil_hold()`` yields once, then holds the interpreter lock.
    - ``freeze()`` yields once, then stops the process, as SIGSTOP does.
    - ``spin_loop()`` yields once, then spins on the event loop.
    - ``fork_child()`` forks, yields the child's process id, and waits; the child does nothing, for long.
    """
    animals = model_zoo(Runtime(manifest), RelayedJournal())
    for add in (_add_plain, _add_dying, _add_greedy, _add_holding, _add_forking):
        add(animals)
    return animals


def _add_plain(animals: Zoo) -> None:
    @animals.runtime.command("whoami")
    async def whoami() -> dict[str, object]:
        call = current_call()
        return {
            "pid": os.getpid(),
            "request_id": call.request_id,
            "task_id": call.task_id,
            "remaining": call.remaining(),
            "metadata": dict(call.metadata),
            "output_config": dict(call.output_config),
            "threads": threading.active_count(),
        }


def _add_dying(animals: Zoo) -> None:
    @animals.runtime.streaming_command("exit_at")
    async def exit_at(k: int = 0, code: int = 3) -> AsyncIterator[dict[str, int]]:
        with animals.life():
            for i in range(k):
                yield {"tick": i}
                await asyncio.sleep(0)
            os._exit(code)

    @animals.runtime.streaming_command("segv_at")
    async def segv_at(k: int = 0) -> AsyncIterator[dict[str, int]]:
        with animals.life():
            for i in range(k):
                yield {"tick": i}
                await asyncio.sleep(0)
            ctypes.string_at(0)


def _add_greedy(animals: Zoo) -> None:
    @animals.runtime.command("oom")
    async def oom(room_mb: int = 64) -> int:
        import resource  # not on Windows

        with animals.life():
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + room_mb * MIB, hard))
            taken = []
            while True:
                taken.append(bytearray(8 * MIB))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _add_holding(animals: Zoo) -> None:
    @animals.runtime.streaming_command("gil_hold")
    async def gil_hold() -> AsyncIterator[dict[str, int]]:
        with animals.life():
            yield {"tick": 0}
            await asyncio.sleep(0)
            ctypes.PyDLL(None).sleep(HOLD_S)  # PyDLL, unlike CDLL, keeps the lock

    @animals.runtime.streaming_command("freeze")
    async def freeze() -> AsyncIterator[dict[str, int]]:
        with animals.life():
            yield {"tick": 0}
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGSTOP)

    @animals.runtime.streaming_command("spin_loop")
    async def spin_loop() -> AsyncIterator[dict[str, int]]:
        with animals.life():
            yield {"tick": 0}
            await asyncio.sleep(0)
            while True:
                pass


def _add_forking(animals: Zoo) -> None:
    @animals.runtime.streaming_command("fork_child")
    async def fork_child() -> AsyncIterator[dict[str, int]]:
        with animals.life():
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            yield {"pid": child}
            await asyncio.Event().wait()
