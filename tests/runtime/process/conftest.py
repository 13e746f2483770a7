"""Projects on disk whose commands run in processes of their own, and the means to see those processes go."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.waiting import wait_ended
from penstock.compose import load_project
from penstock.protocol.dispatch import LOCAL, Caller
from penstock.protocol.messages import Frame, OnDisconnect, Start, decode_frame
from penstock.runtime.app import App
from penstock.runtime.process import ProcessSettings
from penstock.runtime.project import ProjectSource
from penstock.testing.journal import Journal
from penstock.testing.relay import listen

BOUND_S = 20  # twenty times the second in which P18 promises a typed end
ZOO = 'from penstock.testing.deadly import deadly_zoo\nanimals = deadly_zoo("manifest.yml")\n'


class Isolated:
    """An app, some of whose commands run in processes of their own."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def open(self, command: str, *, stream: bool = True, caller: Caller = LOCAL, **given: Any) -> Live:
        """Open a call; keywords that ``Start`` knows belong to it, the rest is the input."""
        known = {name: given.pop(name) for name in tuple(given) if name in Start.__struct_fields__}
        known.setdefault("on_disconnect", OnDisconnect(None))
        start = Start(command=command, input=msgspec.json.encode(given), is_stream=stream, **known)
        return await self.app.open(start, caller)

    async def frames(self, live: Live) -> list[Frame]:
        """Return every frame of a call, once it has ended."""
        with anyio.fail_after(BOUND_S):
            await wait_ended(live)
        return [decode_frame(line) for line in live.log.read(-1, 1 << 30)]

    async def run(self, command: str, **given: Any) -> list[Frame]:
        """Open a call and return every frame of it."""
        return await self.frames(await self.open(command, **given))

    async def answer(self, command: str, **given: Any) -> Any:
        """Return what a command answers; fails the test if it does not complete."""
        last = (await self.run(command, stream=False, **given))[-1]
        assert last.status == "completed", last
        return last.data

    async def started(self, live: Live, items: int = 1) -> None:
        """Return once a call has yielded so many items."""
        async with live.reader() as reader:
            with anyio.fail_after(BOUND_S):
                async for batch in reader:
                    items -= sum(b'"status":"streaming"' in line for line in batch.lines)
                    if items <= 0:
                        return
        raise AssertionError(f"the call ended: {live.ending}")

    async def settled(self, left: int = 0) -> None:
        """Return once the code of every call has stopped, or all but so many."""
        with anyio.fail_after(BOUND_S):
            while len(self.app._tasks) > left:
                await anyio.lowlevel.checkpoint()

    @property
    def permits(self) -> int:
        """Permits and places in queues that are taken."""
        return sum(door.running + door.waiting for door in self.app._admissions.values())

    def pid(self, command: str) -> int:
        """The process of a command, which is up."""
        [pid] = self.pids(command)
        return pid

    def pids(self, command: str) -> list[int]:
        """The processes of a command that are up, in the order of their names."""
        pool = self.app._isolation.pool(command)
        assert pool is not None
        return [supervisor.process.pid for supervisor in pool.supervisors if supervisor.process is not None]

    async def checks(self) -> dict[str, str]:
        """Return what the health probe says of the processes."""
        return dict((await self.app.health()).checks)


Isolate = Callable[..., Any]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as those of Unix sockets must be."""
    with tempfile.TemporaryDirectory(prefix="pen", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def isolate(folder: Path) -> Isolate:
    """Return ``isolate(*commands, code=…, manifest=…, settings…)``, an async context that gives an app, with
    those commands in processes of their own (``name=inline`` for one that is not).  Leaving it proves that
    nothing is left behind."""

    @asynccontextmanager
    async def run(
        *commands: str, code: str = ZOO, manifest: str = "", grace_s: float = 5.0, **settings: float
    ) -> AsyncIterator[Isolated]:
        app = make_app(folder, commands, code, manifest, grace_s, settings)
        before = resources()
        async with app:
            isolated = Isolated(app)
            yield isolated
            assert {name for name in commands if "=" not in name} <= set(await isolated.checks())
            processes = [supervisor.process for supervisor in app._isolation.supervisors()]
        assert len(app._tasks) == 0
        assert len(app._store) == 0
        assert isolated.permits == 0
        for process in filter(None, processes):
            await wait_gone(process.pid)
        await returned_to(before)

    return run


async def returned_to(before: Resources) -> None:
    """Return once nothing is left that was not there before: event loops close sockets a turn later, and
    threads end when they are next given a processor."""
    with anyio.move_on_after(BOUND_S):
        while (now := resources()).more_than(before):
            await anyio.lowlevel.checkpoint()
    assert not now.more_than(before), f"{now} where there was {before}"


def make_app(
    folder: Path,
    commands: tuple[str, ...],
    code: str = ZOO,
    manifest: str = "",
    grace_s: float = 5.0,
    settings: dict[str, float] | None = None,
) -> App:
    """Write a project and return its app."""
    settings_of = [(*name.split("="), "process")[:2] for name in commands]
    isolated = ", ".join(f"{name}: {{isolation: {where}}}" for name, where in settings_of)
    text = f"name: zoo\nentrypoint: run.py\ncommands: {{{isolated}}}\n{manifest}"
    (folder / "manifest.yml").write_text(text)
    (folder / "run.py").write_text(code)
    source = ProjectSource("penstock.compose:load_project", {"project": str(folder)})
    return App(
        lambda owner: load_project(owner, **source.arguments),
        limits=CallLimits(cancel_grace_s=grace_s),
        source=source,
        processes=ProcessSettings(**{"backoff_s": 0.01, "wait_s": BOUND_S, **(settings or {})}),
    )


@pytest.fixture
async def journal(folder: Path) -> AsyncIterator[Journal]:
    """What happens in the zoo's processes."""
    with listen(folder / "j") as told:
        yield told


@pytest.fixture
async def children() -> AsyncIterator[Callable[[], tuple[str, ...]]]:
    """Return what names the processes started from here; leaving the test proves that nothing is left."""
    before = resources()
    yield lambda: resources().children
    await returned_to(before)


@dataclass(frozen=True)
class Resources:
    """What a process can leave behind here.

    Attributes:
        descriptors: What each open one stands for.
        threads: The names of those of ours that keep the process from ending.
        children: Processes, by id.
    """

    descriptors: tuple[str, ...]
    threads: tuple[str, ...]
    children: tuple[str, ...]

    def more_than(self, before: Resources) -> bool:
        """Whether something is here that was not there before."""
        return (
            len(self.descriptors) > len(before.descriptors)
            or len(self.threads) > len(before.threads)
            or not set(self.children) <= set(before.children)
        )


def resources() -> Resources:
    """Return what there is now."""
    children: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that ends meanwhile
            children += (task / "children").read_text().split()
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one the names were read with
            descriptors.append(os.readlink(f"/proc/self/fd/{name}"))
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("penstock-")]
    lasting = [thread.name for thread in threads if not thread.daemon]
    return Resources(tuple(descriptors), tuple(lasting), tuple(children))


async def wait_gone(pid: int) -> None:
    """Return once a process has ended, whoever started it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        with anyio.fail_after(BOUND_S):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


@pytest.fixture
def gone() -> Callable[[int], Any]:
    """Return what waits until a process has ended."""
    return wait_gone
