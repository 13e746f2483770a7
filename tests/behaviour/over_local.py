"""In process: the dispatcher itself."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import msgspec

from behaviour.raw_http import Departure
from behaviour.way import Frame, Handle, Refused, Way
from penstock.errors import CallError
from penstock.protocol.dispatch import FrameReader, LiveCall
from penstock.protocol.messages import CancelReason, OnDisconnect, Start


class LocalHandle(Handle):
    """A reader of a live call."""

    def __init__(self, way: Way, live: LiveCall, only_last: bool) -> None:
        super().__init__(way, live.request_id, live.task_id)
        self._only_last = only_last
        self._lines: deque[bytes] = deque()
        self._reader: FrameReader

    async def attach(self, live: LiveCall, after: int) -> LocalHandle:
        """Start to read."""
        self._reader = await live.reader(after).__aenter__()
        return self

    async def next_line(self) -> bytes | None:
        while not self._lines:
            try:
                batch = await self._reader.__anext__()
            except StopAsyncIteration:
                return None
            if not self._only_last:
                self._lines.extend(batch.lines)
            elif batch.ending is not None:
                self._lines.append(batch.lines[-1])
        return self._lines.popleft()

    async def drop(self, how: Departure = "fin") -> None:
        self._reader.close()

    async def aclose(self) -> None:
        self._reader.close()


class Local(Way):
    """The dispatcher itself, in process."""

    name = "local"
    departures = ("fin",)

    async def open(
        self, command: str, input: Frame | None = None, *, is_stream: bool = True, **more: Any
    ) -> Handle:
        try:
            live = await self.dispatcher.open(_start(command, input, is_stream, more), self.caller)
        except CallError as error:
            raise Refused.raised(error) from error
        handle = await LocalHandle(self, live, only_last=not is_stream).attach(live, -1)
        self.handles.append(handle)
        return handle

    async def resume(self, call_id: str, after: int = -1) -> Handle:
        try:
            live = self.dispatcher.find(call_id, self.caller)
            handle = await LocalHandle(self, live, only_last=False).attach(live, after)
        except CallError as error:
            raise Refused.raised(error) from error
        self.handles.append(handle)
        return handle

    async def cancel(self, call_id: str) -> str:
        try:
            return await self.dispatcher.cancel(call_id, CancelReason.CALLER, self.caller)
        except CallError as error:
            raise Refused.raised(error) from error

    async def record(self, call_id: str) -> Frame:
        try:
            return json.loads(msgspec.json.encode(self.dispatcher.find(call_id, self.caller).record()))
        except CallError as error:
            raise Refused.raised(error) from error

    async def health(self) -> Frame:
        return msgspec.to_builtins(await self.dispatcher.health())


def _start(command: str, input: Frame | None, is_stream: bool, more: Frame) -> Start:
    return Start(
        command=command,
        input=json.dumps(input or {}).encode(),
        is_stream=is_stream,
        task_id=more.get("task_id"),
        workflow_id=more.get("workflow_id"),
        notes=more.get("notes", False),
        on_disconnect=OnDisconnect.parse(more.get("on_disconnect", "cancel")),
        timeout_s=more.get("timeout"),
    )
