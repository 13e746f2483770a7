"""``Runner``: offers an app's commands to gateways that it dials."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from penstock.calls.clock import Clock, SystemClock
from penstock.calls.tasks import TaskOwner
from penstock.kv.held import HeldPrefixes
from penstock.protocol.runners import MAX_CONCURRENCY, RunnerHello, check_name
from penstock.runner.dialling import target_of
from penstock.runner.line import Line
from penstock.runtime.app import App
from penstock.runtime.offered_workflows import offer_workflows
from penstock.runtime.offers import make_offer

_log = logging.getLogger("penstock.runner")


class Runner:
    """Serves an app's commands to gateways; ``async with`` starts and stops it.

    Args:
        app: Runs the calls; it is started and closed here.
        urls: The gateways, such as ``ws://127.0.0.1:8000``; each has a session of its own.
        name: Of this runner; a gateway has no two of one name.
        token: The key of this runner.
        tls: What a gateway's certificate is judged by; None is by those that the machine trusts.
        labels: For calls that ask for some.
        capacity: Calls at once, whatever they are; None sets no bound besides those of the commands.
        clock: Tells the time.
        chance: A number from 0 to 1, for the waits between attempts.

    Raises:
        ValueError: A URL or the name is none.
    """

    def __init__(
        self,
        app: App,
        urls: Sequence[str],
        name: str,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        labels: Mapping[str, str] | None = None,
        capacity: int | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._app = app
        self._targets = [target_of(url, token, tls) for url in dict.fromkeys(urls)]
        self._name = check_name(name)
        self._labels = dict(labels or {})
        self._capacity = capacity or MAX_CONCURRENCY
        self._clock = clock or SystemClock()
        self._chance = chance
        self._tasks = TaskOwner()
        self.held = HeldPrefixes()
        """What its engines hold of prompts."""
        self.lines: list[Line] = []
        """One for each gateway, once it is started."""
        self.over = asyncio.Event()
        """Set when no gateway wants this runner any more."""

    async def __aenter__(self) -> Runner:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def words(self) -> str:
        """What it offers, and where, for people."""
        commands = ", ".join(self._app.commands) or "none"
        places = " and ".join(target.url for target in self._targets)
        return f"runner {self._name} offers {commands} to {places}"

    async def start(self) -> None:
        """Start the app, and begin to dial.

        Raises:
            AuthoringError: The project does not start.
        """
        await self._app.start()
        hello = await self._hello()
        self.lines = [
            Line(self._app, target, hello, self._clock, self._chance, self.held) for target in self._targets
        ]
        self._tasks.start(self._run_lines(), name="lines")

    async def drain(self) -> None:
        """Take no more calls, and let those that run end; then close in good order."""
        await asyncio.gather(*(line.leave() for line in self.lines))
        await self._app.drain()
        await asyncio.gather(*(line.finish() for line in self.lines))

    async def aclose(self) -> None:
        """Stop everything."""
        await asyncio.gather(*(line.aclose() for line in self.lines))
        await self._tasks.aclose()
        await self._app.aclose()

    async def _run_lines(self) -> None:
        lines = [self._tasks.start(line.run(), name="line") for line in self.lines]
        await asyncio.wait(lines)
        self.over.set()

    async def _hello(self) -> RunnerHello:
        described = (await self._app.describe()).commands
        bound = self._app.bound
        return RunnerHello(
            software=_software(),
            name=self._name,
            offers=[make_offer(bound[name], shown) for name, shown in described.items()],
            capacity=self._capacity,
            labels=self._labels,
            workflows=offer_workflows(self._app.manifest.workflows),
            default_command=self._app.manifest.default_command,
        )


def _software() -> str:
    try:
        return f"penstock {version('penstock')}"
    except PackageNotFoundError:
        return "penstock"
