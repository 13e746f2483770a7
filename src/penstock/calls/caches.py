"""The KV caches of the engines that are open in this process."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator

from penstock.calls.engine_cache import EngineCache
from penstock.errors import CallError, ErrorCode


class Caches:
    """A set of caches, each under a name of its own; from any thread.  It keeps none of them alive."""

    def __init__(self) -> None:
        self._caches: weakref.WeakValueDictionary[str, EngineCache] = weakref.WeakValueDictionary()
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[EngineCache]:
        return iter(tuple(self._caches.values()))

    def add(self, cache: EngineCache) -> None:
        """Take in a cache; where its name is taken it gets another: ``name#2``."""
        with self._lock:
            wanted, number = cache.name, 1
            while cache.name in self._caches:
                number += 1
                cache.name = f"{wanted}#{number}"
            self._caches[cache.name] = cache
        self._tell()

    def remove(self, cache: EngineCache) -> None:
        """Let a cache go; further calls do nothing."""
        with self._lock:
            found = self._caches.get(cache.name) is cache
            if found:
                del self._caches[cache.name]
        if found:
            self._tell()

    def find(self, name: str | None) -> EngineCache:
        """Return a cache by its name; the only one, where none is said.

        Raises:
            CallError: ``not_found``: there is none of that name; ``invalid_argument``: there are several.
        """
        known = tuple(self)
        if name is None and len(known) == 1:
            return known[0]
        names = ", ".join(cache.name for cache in known)
        if name is None and known:
            raise CallError(f"say which `engine`: {names}", ErrorCode.INVALID_ARGUMENT)
        for cache in known:
            if cache.name == name:
                return cache
        said = f"no engine {name!r} has" if name else "no engine here has"
        raise CallError(f"{said} a KV cache; there are {names or 'none'}", ErrorCode.NOT_FOUND)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when a cache came or went, in whichever thread; it must not raise or wait.

        Returns:
            A function that ends this.
        """
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return end

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()


CACHES = Caches()
"""Those of this process."""
