"""A pool's events as they come: for ``async for``, and as lines of NDJSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from functools import partial

import msgspec

from penstock.errors import RemoteProtocolError
from penstock.kv.events import AllBlocksCleared, BlockHash, BlockRemoved, BlockStored, EventLog, NumberedEvent


async def follow(log: EventLog, after: int = -1) -> AsyncIterator[NumberedEvent]:
    """Yield the events after the number ``after``, and go on with those to come; ends when it is left.

    The pool may be used in other threads than that of the event loop.

    Raises:
        ReplayTruncated: The reader was too slow, and events are lost to it.
    """
    news, loop = asyncio.Event(), asyncio.get_running_loop()
    end = log.listen(partial(_tell, loop, news))
    try:
        while True:
            news.clear()
            for event in log.read(after):
                yield event
                after = event.seq
            if after + 1 == log.next_seq:
                await news.wait()
    finally:
        end()


def _tell(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    if not news.is_set():
        with suppress(RuntimeError):  # the loop is closed, and nobody follows any more
            loop.call_soon_threadsafe(news.set)


class _Line(msgspec.Struct, omit_defaults=True):
    """An event as a line: hashes as hex digits, or whole numbers where they are such."""

    seq: int
    timestamp: float
    type: str
    block_hashes: list[str | int] = []
    parent_block_hash: str | int | None = None
    token_ids: list[int] = []
    block_size: int = 0
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None


_decoder = msgspec.json.Decoder(_Line)


def ndjson_lines(events: Iterable[NumberedEvent]) -> bytes:
    """Return events as lines of JSON; hashes of bytes are hex digits."""
    return b"".join(msgspec.json.encode(_line(event)) + b"\n" for event in events)


def read_ndjson_line(line: bytes) -> NumberedEvent:
    """Read one line that ``ndjson_lines`` wrote.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        found = _decoder.decode(line)
        return NumberedEvent(found.seq, found.timestamp, _event(found))
    except (msgspec.MsgspecError, ValueError) as error:
        raise RemoteProtocolError(f"this is no event of a KV cache: {error}") from None


def _line(numbered: NumberedEvent) -> _Line:
    event = numbered.event
    line = _Line(numbered.seq, numbered.timestamp, type(event).__name__)
    if isinstance(event, AllBlocksCleared):
        return line
    line.block_hashes = [_written(name) for name in event.block_hashes]
    line.medium = event.medium
    if isinstance(event, BlockStored):
        parent = event.parent_block_hash
        line.parent_block_hash = None if parent is None else _written(parent)
        line.token_ids, line.block_size = list(event.token_ids), event.block_size
        line.lora_id, line.lora_name = event.lora_id, event.lora_name
    return line


def _event(line: _Line) -> BlockStored | BlockRemoved | AllBlocksCleared:
    if line.type == "AllBlocksCleared":
        return AllBlocksCleared()
    hashes = tuple(map(_read, line.block_hashes))
    if line.type == "BlockRemoved":
        return BlockRemoved(hashes, line.medium)
    if line.type != "BlockStored":
        raise ValueError(f"its type is {line.type!r}")
    parent = None if line.parent_block_hash is None else _read(line.parent_block_hash)
    tokens = tuple(line.token_ids)
    return BlockStored(hashes, parent, tokens, line.block_size, line.lora_id, line.medium, line.lora_name)


def _written(name: BlockHash) -> str | int:
    return name.hex() if isinstance(name, bytes) else name


def _read(name: str | int) -> BlockHash:
    return bytes.fromhex(name) if isinstance(name, str) else name
