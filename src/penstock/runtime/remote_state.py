"""State in other processes: made, replaced and dropped in all of them alike (WIRE.md section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from penstock.protocol.session import Open, read_object
from penstock.runtime.pool import Pool
from penstock.runtime.supervisor import Supervisor


class RemoteState:
    """What `initialize` made in the processes of some pools; those that come up later get the same.

    Args:
        pools: Whose commands need it.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = pools
        self._supervisors = [supervisor for pool in pools for supervisor in pool.supervisors]
        self._initial: bytes | None = None
        self._former: bytes | None = None

    async def initialise(self, opening: Open) -> list[str]:
        """Run `initialize` everywhere at once; where one fails, all go back to what was there.

        Returns:
            The names of the state.

        Raises:
            CallError: It failed, or a pool has no process.
        """
        for pool in self._pools:
            await pool.ready(opening.command)
        done: list[Supervisor] = []
        names: list[str] = []

        async def initialise(supervisor: Supervisor) -> None:
            end = await supervisor.initialise(opening)
            done.append(supervisor)
            if end is not None:
                names[:] = read_object(end.answer or b"{}").get("state", [])

        try:
            await _all(initialise(supervisor) for supervisor in self._supervisors)
        except BaseException:
            await _all(supervisor.restore(self._initial) for supervisor in done)
            raise
        self._former, self._initial = self._initial, opening.input
        return names

    async def undo(self) -> None:
        """Go back to what was there before the last `initialise`."""
        self._initial = self._former
        await _all(supervisor.restore(self._initial) for supervisor in self._supervisors)

    async def clean_up(self, opening: Open) -> None:
        """Run `cleanup` everywhere at once.

        Raises:
            CallError: It failed in one.
        """
        self._initial = None
        await _all(supervisor.clean_up(opening) for supervisor in self._supervisors)


async def _all(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of them to their ends; then raise what the first of them raised."""
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
