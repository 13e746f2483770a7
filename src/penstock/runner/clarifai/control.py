"""The stream on which cancels come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from penstock.calls.clock import Clock
from penstock.calls.tasks import TaskOwner
from penstock.runner.clarifai.conversation import cancelled_ids
from penstock.runner.clarifai.identity import Identity
from penstock.runner.clarifai.link import Link
from penstock.runner.clarifai.wire import Stream, StreamLost
from penstock.runner.pausing import pause
from penstock.runtime.supervisor import Backoff

BACKOFF_S = 0.5  # most before it is opened again; doubled from one time to the next
BACKOFF_MOST_S = 5.0  # without it cancels are slow
STEADY_S = 5.0

_log = logging.getLogger("penstock.runner")


class Control:
    """Keeps the control stream open.

    Args:
        link: The connection.
        identity: Whose stream it is.
        cancel: Told the id of each item that is cancelled.
        clock: Tells the time.
        chance: A number from 0 to 1, for the waits between attempts.
    """

    def __init__(
        self,
        link: Link,
        identity: Identity,
        cancel: Callable[[str], None],
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._link = link
        self._identity = identity
        self._cancel = cancel
        self._clock = clock
        self._backoff = Backoff(BACKOFF_S, BACKOFF_MOST_S, chance, fixed=0.0)
        self._tasks = TaskOwner()
        self._over = asyncio.Event()
        self._open = False

    @property
    def open(self) -> bool:
        """Whether cancels can come, as far as is known."""
        return self._open

    async def run(self) -> None:
        """Listen, on one stream after the other, until this task is cancelled."""
        while True:
            connection = await self._link.connection()
            began = self._clock.monotonic()
            try:
                with connection.stream(control=True) as stream:
                    await self._listen(stream)
            except StreamLost as lost:
                _log.info("the control stream has ended (%s); opening another", lost.why)
            except Exception:  # noqa: BLE001 - the top of a stream: whatever breaks, another one is opened
                _log.exception("the control stream failed")
            finally:
                self._open = False
            if self._clock.monotonic() - began >= STEADY_S:
                self._backoff.reset()
            await pause(self._backoff.next_s(), self._over, self._clock, self._tasks)

    async def aclose(self) -> None:
        """Drop what waits."""
        await self._tasks.aclose()

    async def _listen(self, stream: Stream) -> None:
        await stream.send(self._identity.control_hello())
        self._open = True
        while (message := await stream.receive()) is not None:
            self._link.heard()
            self._backoff.reset()
            for item_id in cancelled_ids(message):
                self._cancel(item_id)
