"""Who is told what becomes of an item; ``penstock.gateway.clarifai.lanes.Sink``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.streams import Finished


class Calls(Protocol):
    """The calls of a replica."""

    def output_of(self, request_id: str, text: bytes) -> None: ...
    def finish(self, request_id: str, how: Finished) -> None: ...
    def lose_call(self, request_id: str, why: str) -> None: ...


@dataclass(frozen=True)
class CallSink:
    """Hands what becomes of an item to its call."""

    calls: Calls
    request_id: str

    def output(self, text: bytes) -> None:
        self.calls.output_of(self.request_id, text)

    def finished(self, how: Finished) -> None:
        self.calls.finish(self.request_id, how)

    def lost(self, why: str) -> None:
        self.calls.lose_call(self.request_id, why)


@dataclass(frozen=True)
class TaskSink:
    """Hands on whether a task of annotation has begun; what comes of it is posted."""

    calls: Calls
    request_id: str
    began: Callable[[], None]

    def output(self, text: bytes) -> None:
        raise AssertionError("it has one answer")

    def finished(self, how: Finished) -> None:
        if how.error is None and not how.cut:
            self.began()
        else:
            self.calls.finish(self.request_id, how)

    def lost(self, why: str) -> None:
        self.calls.lose_call(self.request_id, why)


@dataclass(frozen=True)
class Answer:
    """Keeps the answer to a question of the gateway's own."""

    future: asyncio.Future[Finished]
    over: Callable[[], None]

    def output(self, text: bytes) -> None:
        raise AssertionError("a question has one answer")

    def finished(self, how: Finished) -> None:
        self.over()
        if not self.future.done():
            self.future.set_result(how)

    def lost(self, why: str) -> None:
        self.finished(Finished(error=CallError(why, ErrorCode.UNAVAILABLE)))
