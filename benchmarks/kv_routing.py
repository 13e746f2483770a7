"""How long it takes to the first token behind a gateway, with several tenants that ask again and again.

Each of six tenants has a system prompt of its own of about 500 tokens; two runners hold two of them each, so
that a prompt that is not held has to be computed, which takes a second.  The same questions come in the same
random order to a gateway that routes by what runners hold (``prefix``), and to one that is not told
(``rounds``): there the runners take turns.  The time is that of a caller over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from load import WrongAnswer, arguments, tell

from penstock.calls.tasks import TaskOwner
from penstock.compose import build_gateway
from penstock.gateway.hub import Hub
from penstock.gateway.settings import GatewaySettings
from penstock.server.host import Host
from penstock.server.settings import ServerSettings

APP = Path(__file__).parent / "apps" / "kv_runner.py"
RUNNERS = ("one", "two")
TENANTS = ("ant", "bee", "cat", "dog", "eel", "fox")
WORDS = ("answer", "always", "before", "calm", "customer", "doubt", "every", "friend", "letter", "never")
PROMPT_WORDS = 480  # about 500 tokens
ANSWER_TOKENS = 4
CALLS = 24
WARM_UP = 10
READY_S = 60.0
ANSWER_S = 60.0


def system_prompt(tenant: str) -> str:
    """Return what a tenant's model is told beforehand."""
    words = random.Random(tenant)
    return f"You work for the house of the {tenant}. " + " ".join(words.choices(WORDS, k=PROMPT_WORDS))


def questions(count: int) -> list[tuple[str, str]]:
    """Return who asks what, in an order that is always the same."""
    order = random.Random(20261120)
    return [(order.choice(TENANTS), f"What is rule {n}?") for n in range(count)]


async def ask(http: httpx.AsyncClient, tenant: str, question: str) -> float:
    """Return the seconds until the first piece of an answer.

    Raises:
        WrongAnswer: There was none.
    """
    given = {"prompt": question, "system_prompt": system_prompt(tenant)}
    given |= {"max_tokens": ANSWER_TOKENS, "temperature": 0}
    body = {"command": "predict", "input": given, "is_stream": True}
    began, first, last = time.perf_counter(), 0.0, ""
    async with http.stream("POST", "/v2/execute", json=body) as answer:
        async for line in answer.aiter_lines():
            last = line
            if not first and '"streaming"' in line:
                first = time.perf_counter() - began
    if '"completed"' not in last or not first:
        raise WrongAnswer(f"a call of {tenant} ended with {last[:300]}")
    return first


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Ask all questions, a few at once."""
    settings = GatewaySettings() if args.command == "prefix" else GatewaySettings(prefix_blocks=0)
    waiting = iter(questions(WARM_UP + CALLS))
    times: list[float] = []
    async with served(settings) as url, httpx.AsyncClient(base_url=url, timeout=ANSWER_S) as http:

        async def keep_asking() -> None:
            for tenant, question in waiting:
                times.append(await ask(http, tenant, question))

        await asyncio.gather(*(keep_asking() for _ in range(args.connections)))
    felt_ms = [round(seconds * 1000, 2) for seconds in times[WARM_UP:]]
    return {"command": args.command, "items": 0, "felt_ms": felt_ms}


@asynccontextmanager
async def served(settings: GatewaySettings) -> AsyncIterator[str]:
    """Run a gateway in here, and its runners in processes of their own; its URL."""
    hub, extension = build_gateway("gateway", ServerSettings(port=0), settings)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    tasks = TaskOwner()
    host = Host(hub, ServerSettings(port=0), ready.set_result, None, extension)
    serving = tasks.start(host.serve(), name="gateway")
    try:
        url = await ready
        with runners(url):
            await connected(hub)
            yield url
    finally:
        serving.cancel()
        await tasks.aclose()


async def connected(hub: Hub) -> None:
    """Return once all runners are there."""
    until = time.monotonic() + READY_S
    while sum(runner.takes for runner in hub.runners) < len(RUNNERS):
        if time.monotonic() > until:
            raise WrongAnswer("the runners do not come; `penstock pull smollm2-135m` brings their model")
        await asyncio.sleep(0.05)


@contextmanager
def runners(url: str) -> Iterator[None]:
    """Run the runners' processes; they end when their standard input does."""
    with ExitStack() as stack:
        for name in RUNNERS:
            own = [sys.executable, str(APP), "--gateway", url.replace("http", "ws"), "--name", name]
            every = set(range(os.cpu_count() or 1))
            move = partial(os.sched_setaffinity, 0, every)  # what measures has a core, and they have all
            stack.enter_context(subprocess.Popen(own, stdin=subprocess.PIPE, preexec_fn=move))
        yield


if __name__ == "__main__":
    tell(measure, arguments(__doc__).parse_args())
