"""Where work stands that does not stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from penstock.calls.stacks import stack_of, stack_of_thread

pytestmark = pytest.mark.anyio


async def inner(gate: asyncio.Event) -> None:
    await gate.wait()


async def outer(gate: asyncio.Event) -> None:
    await inner(gate)


async def test_a_coroutine_shows_where_it_waits_outermost_first() -> None:
    gate = asyncio.Event()
    work = outer(gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: work)
        await anyio.wait_all_tasks_blocked()
        text = stack_of(work)
        gate.set()
    assert 0 < text.index("in outer") < text.index("in inner") < text.index("in wait")


async def test_an_async_generator_shows_where_it_waits() -> None:
    gate = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await inner(gate)

    work = items()
    await anext(work)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: anext_or_none(work))
        await anyio.wait_all_tasks_blocked()
        text = stack_of(work)
        gate.set()
    assert 0 < text.index("in items") < text.index("in inner")


async def anext_or_none(items: AsyncIterator[int]) -> int | None:
    return await anext(items, None)


def test_a_generator_shows_the_one_it_delegates_to() -> None:
    def below() -> Iterator[int]:
        yield 1

    def above() -> Iterator[int]:
        yield from below()

    work = above()
    next(work)
    text = stack_of(work)
    work.close()  # type: ignore[attr-defined]
    assert 0 < text.index("in above") < text.index("in below")


def test_a_thread_shows_where_it_is() -> None:
    there, go = threading.Event(), threading.Event()

    def waits_here() -> None:
        there.set()
        go.wait(10)

    thread = threading.Thread(target=waits_here)
    thread.start()
    there.wait(10)
    text = stack_of_thread(thread.ident)
    go.set()
    thread.join(10)
    assert "in waits_here" in text
    assert stack_of_thread(thread.ident) == stack_of_thread(None) == "an unknown place"


class Teller:
    """Work that knows its own stack."""

    def stack(self) -> str:
        return "in a far place"


async def ended() -> None: ...


async def test_what_has_a_stack_of_its_own_is_asked_and_what_has_none_is_somewhere() -> None:
    assert stack_of(Teller()) == "in a far place"
    assert stack_of(None) == "an unknown place"
    work = ended()
    await work
    assert stack_of(work) == "an unknown place"
