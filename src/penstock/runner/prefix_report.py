"""What a runner's caches hold, told to one gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from penstock.errors import ReplayTruncated
from penstock.kv.held import HeldBlocks, HeldPrefixes
from penstock.protocol.session import MAX_NAMED, Cached, Message
from penstock.runtime.session_link import AHEAD, SessionLink

NAME_BYTES = 18  # of a block, on its way
ROOM = 128  # bytes of a message that are no names


class PrefixReport:
    """Tells a gateway each change as it comes, and everything anew on each connection.

    Args:
        held: What is told.
        send: Sends a message.
    """

    def __init__(self, held: HeldPrefixes, send: Callable[[Message], None]) -> None:
        self._held = held
        self._send = send
        self._link: SessionLink | None = None
        self._next_seq: int | None = None  # number of the next event to tell; None: all is to be told anew
        self._number = 0
        self._most = 0  # blocks that are told at once when all is told
        self._named = MAX_NAMED  # ... in one message
        self._end_listening: Callable[[], None] | None = None

    def begin(self, link: SessionLink, prefix_blocks: int) -> None:
        """Go on over the connection that ``link`` has now.

        Args:
            prefix_blocks: How many blocks the gateway keeps in mind.
        """
        self.stop()
        self._named = min(MAX_NAMED, (link.max_message - ROOM) // NAME_BYTES)
        if prefix_blocks and self._named > 0:
            self._link, self._next_seq, self._most = link, None, prefix_blocks
            self._listen(asyncio.get_running_loop())
            self.tell()

    def stop(self) -> None:
        """Tell nothing until the next connection."""
        self._link = None
        if self._end_listening is not None:
            self._end_listening()
            self._end_listening = None

    def tell(self) -> None:
        """Tell what has changed; nothing while the gateway is far behind: then this is to be called again."""
        if self._link is None or self._link.unacknowledged > AHEAD:
            return
        changes = self._changes()
        if changes is None:
            changes = self._held.snapshot()
            self._say([], [], anew=True)
            changes = HeldBlocks(changes.next_seq, changes.held[: self._most])
        self._next_seq = changes.next_seq
        for gone in _parts(changes.gone, self._named):
            self._say(gone, [])
        for held in _parts(changes.held, self._named):
            self._say([], held)

    def _changes(self) -> HeldBlocks | None:
        """Return what has changed; None if that is not known any more."""
        if self._next_seq is None:
            return None
        try:
            return self._held.changes(self._next_seq - 1)
        except ReplayTruncated:
            return None

    def _say(self, gone: Sequence[bytes], held: Sequence[bytes], *, anew: bool = False) -> None:
        self._number += 1
        self._send(Cached(number=self._number, anew=anew, gone=list(gone), held=list(held)))

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        def changed() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody is there to be told
                loop.call_soon_threadsafe(self.tell)

        self._end_listening = self._held.listen(changed)


def _parts(names: Sequence[bytes], size: int) -> Iterable[Sequence[bytes]]:
    return (names[start : start + size] for start in range(0, len(names), size))
