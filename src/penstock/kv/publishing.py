"""A pool's events over ZeroMQ, for whoever reads those of vLLM; needs the extra ``kv-events``.

A message is one event, under the event's number.  Whoever lost some asks a second socket for those from a
number on, and gets what is still kept, and then an end.
"""

from __future__ import annotations

import logging
from types import TracebackType

import zmq
import zmq.asyncio

from penstock.errors import RemoteProtocolError, ReplayTruncated
from penstock.kv.events import EventLog, NumberedEvent
from penstock.kv.feed import follow
from penstock.kv.wire import END_SEQ, EventBatch, read_seq, seq_frame, write_frames

_log = logging.getLogger(__name__)


class EventPublisher:
    """Publishes a log's events while ``publish`` and ``serve_replays`` run; a context manager that binds.

    Args:
        log: What is published.
        endpoint: Where, such as ``tcp://127.0.0.1:5557``; with the port ``*`` a free one is taken.
        replay_endpoint: Where lost events can be asked for; empty for nowhere.
        topic: What subscribers choose by.
        rank: What tells engines of one model apart.
    """

    def __init__(
        self,
        log: EventLog,
        endpoint: str,
        replay_endpoint: str = "",
        *,
        topic: str = "",
        rank: int | None = None,
    ) -> None:
        self._log = log
        self.endpoint = endpoint
        self.replay_endpoint = replay_endpoint
        self._topic = topic.encode()
        self._rank = rank

    def __enter__(self) -> EventPublisher:
        self._context = zmq.asyncio.Context()
        self._context.linger = 0
        try:
            self._events = self._context.socket(zmq.PUB)
            self._replays = self._context.socket(zmq.ROUTER)
            self.endpoint = _bind(self._events, self.endpoint)
            if self.replay_endpoint:
                self.replay_endpoint = _bind(self._replays, self.replay_endpoint)
        except BaseException:
            self._context.destroy()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy()

    async def publish(self) -> None:
        """Publish the events that are kept, and those to come, until this is cancelled."""
        after = self._log.first_seq - 1
        while True:
            try:
                async for event in follow(self._log, after):
                    after = event.seq
                    await self._events.send_multipart(self._frames(event))
            except ReplayTruncated as truncated:  # readers see the gap in the numbers, and ask
                _log.warning("KV events came faster than they could be published: %s", truncated)
                after = truncated.first_seq - 1

    async def serve_replays(self) -> None:
        """Answer those who ask for events from a number on, until this is cancelled."""
        while True:
            request = await self._replays.recv_multipart()
            try:
                peer, start = request[0], read_seq(request[-1])
            except RemoteProtocolError as error:
                _log.warning("a replay of KV events was asked for wrongly: %s", error)
                continue
            await self._replay(peer, start)

    async def _replay(self, peer: bytes, start: int) -> None:
        after = max(start, self._log.first_seq) - 1
        while after + 1 < self._log.next_seq:
            try:
                events = self._log.read(after)
            except ReplayTruncated as truncated:
                after = truncated.first_seq - 1
                continue
            for event in events:
                await self._replays.send_multipart((peer, b"", *self._frames(event)))
                after = event.seq
        await self._replays.send_multipart((peer, b"", b"", seq_frame(END_SEQ), b""))

    def _frames(self, event: NumberedEvent) -> tuple[bytes, bytes, bytes]:
        batch = EventBatch(event.seq, event.timestamp, (event.event,), self._rank)
        return write_frames(batch, self._topic)


def _bind(socket: zmq.asyncio.Socket, endpoint: str) -> str:
    socket.bind(endpoint)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
