"""Publishes the events of engines' KV caches over ZeroMQ, in vLLM's form; needs the extra ``kv-events``."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress

from penstock.calls.caches import Caches
from penstock.calls.engine_cache import EngineCache
from penstock.calls.tasks import TaskOwner
from penstock.errors import PenstockError

_log = logging.getLogger("penstock.kv")

_PORT = re.compile(r"(tcp://.+:)(\d+)\Z")


class KvPublishing:
    """A service beside a server: each cache has an address of its own, the first one that which is given, and
    the others the ports that follow.  The name of its engine is its topic.

    Args:
        caches: Whose events are published; those too that come later.
        endpoint: Where, such as ``tcp://127.0.0.1:5557``; with the port ``*`` free ones are taken.
        replay_endpoint: Where lost events can be asked for; empty for nowhere.
    """

    def __init__(self, caches: Caches, endpoint: str, replay_endpoint: str = "") -> None:
        self._caches = caches
        self._endpoints = (endpoint, replay_endpoint)
        self._tasks = TaskOwner()
        self._published: dict[EngineCache, asyncio.Task[None]] = {}
        self._numbers: dict[EngineCache, int] = {}
        self._end: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Publish what there is, and what comes.

        Raises:
            PenstockError: The extra is missing.
        """
        try:
            from penstock.kv.publishing import EventPublisher
        except ImportError as error:
            raise PenstockError(
                "--kv-events needs the package pyzmq; install it with: pip install 'penstock[kv-events]'"
            ) from error
        del EventPublisher
        loop = asyncio.get_running_loop()

        def changed() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._look)

        self._end = self._caches.listen(changed)
        self._look()

    def drain(self) -> None:
        """Go on: what calls do until they end is told too."""

    async def aclose(self) -> None:
        """Stop."""
        self._end()
        await self._tasks.aclose()

    def _look(self) -> None:
        known = tuple(self._caches)
        for cache in tuple(self._published):
            if cache not in known:
                self._published.pop(cache).cancel()
                del self._numbers[cache]
        for cache in known:
            if cache not in self._published:
                number = next(free for free in range(len(known)) if free not in self._numbers.values())
                self._numbers[cache] = number
                work = self._publish(cache, *(_moved(endpoint, number) for endpoint in self._endpoints))
                self._published[cache] = self._tasks.start(work, name=f"KV events of {cache.name}")

    async def _publish(self, cache: EngineCache, endpoint: str, replay_endpoint: str) -> None:
        import zmq

        from penstock.kv.publishing import EventPublisher

        try:
            with EventPublisher(cache.events, endpoint, replay_endpoint, topic=cache.name) as publisher:
                replays = f", replays at {publisher.replay_endpoint}" if replay_endpoint else ""
                _log.info(
                    "the KV events of %s are published at %s%s", cache.name, publisher.endpoint, replays
                )
                await asyncio.gather(publisher.publish(), publisher.serve_replays())
        except zmq.ZMQError as error:
            _log.error("the KV events of %s cannot be published at %s: %s", cache.name, endpoint, error)


def _moved(endpoint: str, number: int) -> str:
    """Return an address ``number`` ports further; one without a port, or with a free one, stays as it is."""
    found = _PORT.match(endpoint)
    return endpoint if found is None else f"{found[1]}{int(found[2]) + number}"
