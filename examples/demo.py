"""What penstock does, seen from its callers: `make demo`.

Serves the storyteller on a free port, streams a story, asks the same again over WebSocket, cancels another
from a second connection, runs a workflow, and shows what was measured.  The server is ended in any case.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from penstock import AsyncClient, CallCancelled

STORYTELLER = Path(__file__).parent / "storyteller"
STORY = "Tell me a short story about a fox who wants to cross a wide river."
SHORT = "In one sentence, what does a fox dream of?"
OTHER = "Tell me a long story about an owl who keeps a lighthouse."
START_S = 90.0  # a cold disk may take long to read the model
STOP_S = 15.0
WHOLE_S = 170.0

console = Console(highlight=False)


@dataclass
class Told:
    """A story as it was told: what the server measured of it."""

    what: str
    first_token_ms: float
    tokens_per_s: float
    prefix_hits: float


@asynccontextmanager
async def storyteller() -> AsyncIterator[str]:
    """Serve the storyteller in a process of its own; gives its URL."""
    command = ("-m", "penstock.cli", "run", str(STORYTELLER), "--port", "0")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        yield await asyncio.wait_for(ready_url(process), START_S)
    finally:
        await end(process)
    console.print(f"\nThe server (process {process.pid}) has ended with exit code {process.returncode}.")


async def ready_url(process: asyncio.subprocess.Process) -> str:
    """Read what the server prints until it is ready."""
    assert process.stdout is not None
    async for line in process.stdout:
        console.print(f"[dim]{line.decode().strip()}[/dim]\n", soft_wrap=True)
        if found := re.search(r"https?://\S+", line.decode()):
            return found.group()
    raise SystemExit("The server ended before it was ready; what it said stands above.")


async def end(process: asyncio.subprocess.Process) -> None:
    """End the server, kindly first."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()


async def tell(client: AsyncClient, what: str, max_tokens: int) -> Told:
    """Stream a story onto the terminal."""
    console.rule(what, align="left")
    async with client.stream("predict", prompt=STORY, max_tokens=max_tokens) as stream:
        async for item in stream:
            console.out(item["chunk"], end="")
    console.print("\n")
    metrics = stream.metrics
    return Told(what, metrics["ttft_ms"], metrics["throughput_tps"], metrics["prefix_hit_rate"])


async def tell_and_title(client: AsyncClient) -> None:
    """Run a workflow: a story, then a title for it."""
    console.rule("A workflow: a story, then its title", align="left")
    step = None
    async with client.workflow("story_then_title", prompt=SHORT) as stream:
        async for frame in stream.frames():
            if frame.status == "streaming":
                if frame.step != step:
                    step = frame.step
                    console.print(f"\n[dim]{step}:[/dim] ", end="")
                console.out(frame.data["chunk"], end="")
    console.print("\n")


async def cancel_midway(client: AsyncClient, url: str, after: int) -> float:
    """Begin a story, cancel it from another connection; returns how long that took, in milliseconds."""
    console.rule("Another story, cancelled from another connection", align="left")
    pieces = 0
    asked_at = 0.0
    async with AsyncClient(url) as other:
        await other.health()  # so that it is connected, and only the cancel itself is measured
        try:
            async with client.stream("predict", prompt=OTHER, max_tokens=512, task_id="owl") as stream:
                async for item in stream:
                    console.out(item["chunk"], end="")
                    pieces += 1
                    if pieces == after:
                        asked_at = time.perf_counter()
                        await other.cancel("owl")
        except CallCancelled:
            took_ms = (time.perf_counter() - asked_at) * 1000
            console.print(f" …\n\n[dim]cancelled after {pieces} pieces[/dim]\n")
            return took_ms
    raise SystemExit("The other story ended before it could be cancelled.")


def show(told: list[Told], cancel_ms: float) -> None:
    """Print the table."""
    table = Table("", "first token", "tokens/s", "prefix hit rate", "cancel took")
    for story in told:
        table.add_row(
            story.what,
            f"{story.first_token_ms:.0f} ms",
            f"{story.tokens_per_s:.1f}",
            f"{story.prefix_hits:.0%}",
        )
    table.add_row("Another, cancelled", "", "", "", f"{cancel_ms:.1f} ms")
    console.print(table)


async def demo() -> None:
    """Run the demo from start to end."""
    me = asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    async with storyteller() as url, AsyncClient(url) as client:
        told = [await tell(client, "A story", 160)]
        async with AsyncClient(url.replace("http", "ws", 1)) as socket:
            told.append(await tell(socket, "The same again, over WebSocket", 24))
        cancel_ms = await cancel_midway(client, url, after=24)
        await tell_and_title(client)
        show(told, cancel_ms)


def main() -> None:
    """Run the demo; whatever ends it, the server is ended first."""
    try:
        asyncio.run(asyncio.wait_for(demo(), WHOLE_S))
    except asyncio.CancelledError:
        raise SystemExit("Interrupted.") from None
    except asyncio.TimeoutError:
        raise SystemExit(f"The demo took longer than {WHOLE_S:.0f} seconds.") from None


if __name__ == "__main__":
    main()
