"""The events of another cache over ZeroMQ: penstock's, vLLM's, SGLang's; needs the extra ``kv-events``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import zmq
import zmq.asyncio

from penstock.errors import ReplayTruncated
from penstock.kv.wire import EventBatch, read_frames, seq_frame


async def subscribe(
    endpoint: str, replay_endpoint: str | None = None, *, topic: str = "", after: int | None = None
) -> AsyncIterator[EventBatch]:
    """Yield the batches that are published, in their order and without a gap, until this is left.

    Args:
        endpoint: Where they are published, such as ``tcp://127.0.0.1:5557``.
        replay_endpoint: Where those that were lost are asked for.
        topic: Only what is published under topics that begin with it.
        after: The number after which to begin, for which a replay is asked at once; else with what comes.

    Raises:
        ReplayTruncated: Some are lost and cannot be had any more, or the publisher was started anew.
        RemoteProtocolError: What came is no message of KV events.
    """
    context = zmq.asyncio.Context()
    context.linger = 0
    try:
        news = context.socket(zmq.SUB)
        news.subscribe(topic)
        news.connect(endpoint)
        reader = _Reader(context, replay_endpoint)
        if after is not None:
            async for batch in reader.replay(after + 1, None):
                yield batch
        while True:
            heard = read_frames(await news.recv_multipart())
            if heard is not None:
                async for batch in reader.in_order(heard):
                    yield batch
    finally:
        context.destroy()


class _Reader:
    """Puts what comes into order: twice is once, and what is missing is asked for."""

    def __init__(self, context: zmq.asyncio.Context, replay_endpoint: str | None) -> None:
        self._context = context
        self._replay_endpoint = replay_endpoint
        self._next: int | None = None
        self._heard = -1
        self._newest = 0.0

    async def in_order(self, batch: EventBatch) -> AsyncIterator[EventBatch]:
        """Yield a batch that was published, and before it those that are missing."""
        if self._began_anew(batch):
            raise _lost(self._next or 0, batch.seq, "the publisher was started anew")
        self._heard = batch.seq
        if self._next is not None and batch.seq > self._next:
            async for each in self.replay(self._next, batch.seq):
                yield each
        if self._next is None or batch.seq == self._next:
            self._note(batch)
            yield batch

    def _began_anew(self, batch: EventBatch) -> bool:
        """Numbers that are published only grow; what a replay has brought already is not newer than it."""
        seen_before = self._next is not None and batch.seq < self._next
        return batch.seq <= self._heard or (seen_before and batch.timestamp > self._newest)

    def _note(self, batch: EventBatch) -> None:
        self._next, self._newest = batch.seq + 1, batch.timestamp

    async def replay(self, start: int, due: int | None) -> AsyncIterator[EventBatch]:
        """Ask for what there is from a number on, of which all before ``due`` must come."""
        if self._replay_endpoint is None:
            raise _lost(start, due or start, "there is nobody to ask for them")
        self._next = start
        with self._context.socket(zmq.DEALER) as socket:
            socket.connect(self._replay_endpoint)
            await socket.send_multipart((b"", seq_frame(start)))
            while (batch := read_frames(await socket.recv_multipart())) is not None:
                if batch.seq != self._next:
                    raise _lost(self._next, batch.seq, "they are kept no longer")
                self._note(batch)
                yield batch
        if due is not None and self._next < due:
            raise _lost(self._next, due, "they are kept no longer")


def _lost(start: int, first: int, why: str) -> ReplayTruncated:
    return ReplayTruncated(
        f"the KV events from {start} on are lost: {why}; start anew with what is cached now", first_seq=first
    )
