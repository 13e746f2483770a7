"""Events as vLLM and SGLang publish them: MessagePack, three frames a message.

Written is the form of vLLM from June 2026 on: a batch is an array, an event a map with its ``type``.  Read
are arrays and maps at both levels, as older releases, and SGLang, write the events as arrays too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.errors import RemoteProtocolError
from penstock.kv.events import AllBlocksCleared, BlockRemoved, BlockStored, CacheEvent

END_SEQ = -1  # the number that ends a replay
_SEQ_BYTES = 8
_KINDS: dict[str, tuple[str, ...]] = {
    kind.__name__: kind.__struct_fields__ for kind in (BlockStored, BlockRemoved, AllBlocksCleared)
}


class EventBatch(msgspec.Struct, frozen=True):
    """One message: events that happened together.  ``rank`` tells engines of one model apart."""

    seq: int
    timestamp: float
    events: tuple[CacheEvent, ...]
    rank: int | None = None


def write_frames(batch: EventBatch, topic: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """Return the frames of a message: topic, number, payload."""
    payload = msgspec.msgpack.encode((batch.timestamp, batch.events, batch.rank))
    return topic, seq_frame(batch.seq), payload


def seq_frame(seq: int) -> bytes:
    """Return a number as a frame."""
    return seq.to_bytes(_SEQ_BYTES, "big", signed=True)


def read_seq(frame: bytes) -> int:
    """Read the frame of a number.

    Raises:
        RemoteProtocolError: It is none.
    """
    if len(frame) != _SEQ_BYTES:
        raise RemoteProtocolError(f"the number of a KV event message has {len(frame)} bytes instead of 8")
    return int.from_bytes(frame, "big", signed=True)


def read_frames(frames: Sequence[bytes]) -> EventBatch | None:
    """Read a message, whatever comes before its number and payload; None is the end of a replay.

    Raises:
        RemoteProtocolError: It is no message of KV events.
    """
    if len(frames) < 2:
        raise RemoteProtocolError(f"a message of KV events has {len(frames)} frames; at least 2 were due")
    seq = read_seq(frames[-2])
    if seq == END_SEQ:
        return None
    try:
        timestamp, events, rank = _parts(msgspec.msgpack.decode(frames[-1]))
        read = tuple(map(_event, events))
        return msgspec.convert((seq, timestamp, read, rank), _Envelope).batch(read)
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RemoteProtocolError(f"message {seq} of KV events cannot be read: {error!r}") from None


class _Envelope(msgspec.Struct, array_like=True):
    seq: int
    timestamp: float
    events: tuple[Any, ...]
    rank: int | None

    def batch(self, events: tuple[CacheEvent, ...]) -> EventBatch:
        return EventBatch(self.seq, self.timestamp, events, self.rank)


def _parts(batch: Any) -> tuple[Any, Any, Any]:
    if isinstance(batch, dict):
        return batch["ts"], batch["events"], batch.get("data_parallel_rank")
    timestamp, events, *rest = batch
    return timestamp, events, rest[0] if rest else None


def _event(event: Any) -> CacheEvent:
    if isinstance(event, list):
        kind, *values = event
        event = {"type": kind, **dict(zip(_KINDS[kind], values))}  # noqa: B905 - newer ones have more
    read: CacheEvent = msgspec.convert(event, CacheEvent, builtin_types=(bytes,))
    return read
