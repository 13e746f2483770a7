"""A stream of ``ProcessRunnerItems``, over gRPC; ``penstock.gateway.clarifai.lanes.Line``."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from clarifai_grpc.grpc.api.status import status_pb2

from penstock.calls.tasks import TaskOwner
from penstock.gateway.clarifai.streams import Told, refusal

FLUSH_S = 5.0  # how long what is to be said last may take
REFUSED_S = 5.0  # how long a stream that was refused is kept for the replica to leave it

_log = logging.getLogger("penstock.gateway")


class GrpcLine:
    """Writes, and ends the stream.

    Whoever serves the stream runs it in the current task, and returns when that is cancelled and ``ending``
    says that it was here: then gRPC ends the stream with OK.

    Args:
        context: Of the RPC.
        tasks: Owns what writes.
    """

    def __init__(self, context: Any, tasks: TaskOwner) -> None:
        self._context = context
        self._tasks = tasks
        self._server = asyncio.current_task()
        self._waiting: deque[bytes] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._written = False
        self._reading: asyncio.Future[None] | None = None
        self.unsent = 0
        self.ending = False

    def send(self, told: Told) -> None:
        """See ``Line.send``."""
        if self.ending:
            return
        data = told.SerializeToString()
        self._waiting.append(data)
        self.unsent += len(data)
        if self._writing is None:
            self._writing = self._tasks.start(self._write(), name="writing to a Clarifai runner")

    def recall(self) -> bool:
        """See ``Line.recall``."""
        self._waiting.clear()
        self.unsent = 0
        return not self._written

    def resume(self) -> None:
        """See ``Line.resume``."""
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)

    def end(self) -> None:
        """See ``Line.end``."""
        self._end(0.0)

    def refuse(self, status: status_pb2.Status) -> None:
        """See ``Line.refuse``: it leaves by itself, and if it does not the stream ends as any other."""
        self.send(refusal(status))
        self._end(REFUSED_S)

    async def until_resumed(self) -> None:
        """Return once more is to be read."""
        self._reading = asyncio.get_running_loop().create_future()
        await self._reading

    def _end(self, after_s: float) -> None:
        if self.ending:
            return
        self.ending = True
        loop = asyncio.get_running_loop()
        if self._writing is None:
            loop.call_later(after_s, self._leave)
        else:
            self._writing.add_done_callback(lambda _: loop.call_later(after_s, self._leave))
            loop.call_later(after_s + FLUSH_S, self._leave)

    def _leave(self) -> None:
        if self._server is not None:
            self._server.cancel()

    async def _write(self) -> None:
        try:
            while self._waiting:
                data = self._waiting.popleft()
                self._written = True
                await self._context.write(data)
                self.unsent = max(0, self.unsent - len(data))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  the top of a link: gRPC says in many ways that it is gone
            _log.debug("a Clarifai runner was not written to: %r", error)
            self._waiting.clear()
        finally:
            self._writing = None
