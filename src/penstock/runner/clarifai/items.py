"""The items of a runner: those that are processed, and those that were cancelled before they came."""

from __future__ import annotations

from collections import OrderedDict

from penstock.protocol.messages import CancelReason
from penstock.runner.clarifai.item import Item

MAX_EARLY = 4096
"""Ids that are remembered because a cancel came for what is not here."""


class Items:
    """Finds items by their ids.

    An id that was cancelled stays cancelled: servers are not to use one twice, and a cancel may be faster
    than what it cancels.
    """

    def __init__(self) -> None:
        self._running: dict[str, Item] = {}
        self._early: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._running

    def add(self, item: Item) -> None:
        """Keep an item that is begun; one that was cancelled before is cancelled now."""
        self._running[item.item_id] = item
        if item.item_id in self._early:
            item.cancel(CancelReason.CALLER)

    def discard(self, item: Item) -> None:
        """Forget an item that is over."""
        if self._running.get(item.item_id) is item:
            del self._running[item.item_id]

    def cancel(self, item_id: str) -> None:
        """Cut an item short, now or when it comes."""
        self._early[item_id] = None
        self._early.move_to_end(item_id)
        while len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)
        item = self._running.get(item_id)
        if item is not None:
            item.cancel(CancelReason.CALLER)

    def cancel_all(self, reason: CancelReason) -> None:
        """Cut every item short."""
        for item in tuple(self._running.values()):
            item.cancel(reason)
