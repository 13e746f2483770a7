"""One call made from the command line, and what Ctrl-C does to it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import typer

from penstock.calls.tasks import TaskOwner
from penstock.cli.exits import Exit
from penstock.cli.output import TextOutput, print_answer, print_frame
from penstock.client import AsyncClient
from penstock.client.backoff import ONCE
from penstock.client.outcome import failure_of
from penstock.client.stream import AsyncStream
from penstock.errors import CallCancelled, PenstockError


class Calling:
    """A call, named by its caller so that it can be cancelled before anything was answered.

    Args:
        url: The server.
        command: What it runs.
        inputs: Its input.
        task_id: The call's name; invented if absent.
        timeout_s: Its total budget, in seconds.
        route: Which runner of a gateway it is for.
        tls: What the server's certificate is judged by.

    Raises:
        ValueError: ``url`` is none.
    """

    def __init__(
        self,
        url: str,
        command: str,
        inputs: Mapping[str, Any],
        *,
        task_id: str | None,
        timeout_s: float | None,
        route: Mapping[str, Any] | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._client = AsyncClient(url, tls=tls, retry=ONCE)
        self._command = command
        self._inputs = inputs
        self._task_id = task_id or f"call-{secrets.token_hex(8)}"
        self._timeout_s = timeout_s
        self._route = route
        self._tasks = TaskOwner()
        self._interrupted = False

    async def run(self, *, stream: bool, as_json: bool) -> None:
        """Make the call and print what it answers.

        Raises:
            PenstockError: It was refused, failed, or was cancelled by somebody else.
            typer.Exit: It was interrupted.
        """
        async with self._client:
            work = self._tasks.start(self._call(stream, as_json), awaited=True)
            with suppress(NotImplementedError):  # Windows: Ctrl-C breaks the connection, which cancels too
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt, work)
            try:
                await work
            except (CallCancelled, asyncio.CancelledError) as error:
                if not self._interrupted:
                    raise
                _end_interrupted(f"{self._task_id} was cancelled", error)
            finally:
                await self._tasks.aclose()
        if self._interrupted:
            _end_interrupted(f"{self._task_id} had finished before it could be cancelled")

    async def _call(self, stream: bool, as_json: bool) -> None:
        options: dict[str, Any] = {
            "task_id": self._task_id,
            "timeout_s": self._timeout_s,
            "route": self._route,
        }
        if not stream:
            print_answer(await self._client.run(self._command, self._inputs, **options), compact=as_json)
            return
        async with self._client.stream(self._command, self._inputs, **options) as frames:
            await (_print_frames(frames) if as_json else _print_items(frames))

    def _interrupt(self, work: asyncio.Task[None]) -> None:
        if self._interrupted:
            work.cancel()
            return
        self._interrupted = True
        print(f"\npenstock: cancelling {self._task_id} (again: leave at once)", file=sys.stderr)
        self._tasks.start(self._cancel(work))

    async def _cancel(self, work: asyncio.Task[None]) -> None:
        try:
            await self._client.cancel(self._task_id)
        except PenstockError:
            # Not there yet, or nobody to tell: going away is the other way to cancel.
            work.cancel()


async def _print_items(stream: AsyncStream[Any]) -> None:
    output = TextOutput()
    try:
        async for item in stream:
            output.item(item)
    finally:
        output.end_line()


async def _print_frames(stream: AsyncStream[Any]) -> None:
    async for frame in stream.frames():
        print_frame(frame)
        if (failure := failure_of(frame)) is not None:
            raise failure


def _end_interrupted(said: str, error: BaseException | None = None) -> None:
    print(f"penstock: {said}", file=sys.stderr)
    raise typer.Exit(Exit.INTERRUPTED) from error
