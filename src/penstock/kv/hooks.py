"""Who is told what the pool does, and may forbid some of it.

Hooks are plain functions, called in the order in which they were registered, in the middle of the pool's
work: they must be quick and must not call the pool's operations, which refuse it.  One that raises is logged,
and counts as one that returned nothing.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from penstock.errors import AuthoringError, CallError
from penstock.protocol.kv import KVEvictReason, KVHandle

SLOW_S = 0.05

_log = logging.getLogger(__name__)


class KVHookPoint(str, Enum):
    """Where a hook is called.  ``allocate`` is also the growth of a handle by further blocks."""

    BEFORE_ALLOCATE = "before_allocate"
    AFTER_ALLOCATE = "after_allocate"
    BEFORE_FREE = "before_free"
    AFTER_FREE = "after_free"
    BEFORE_EVICT = "before_evict"
    AFTER_EVICT = "after_evict"
    BEFORE_MIGRATE = "before_migrate"
    AFTER_MIGRATE = "after_migrate"
    BEFORE_PREFETCH = "before_prefetch"
    AFTER_PREFETCH = "after_prefetch"
    STORED = "stored"
    REMOVED = "removed"
    CLEARED = "cleared"
    TOUCHED = "touched"
    PINNED = "pinned"
    UNPINNED = "unpinned"


VETOABLE = frozenset({KVHookPoint.BEFORE_ALLOCATE, KVHookPoint.BEFORE_EVICT, KVHookPoint.BEFORE_MIGRATE})


class KVHookEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What a hook is told; what does not apply at its point stays at its default.

    ``seq`` counts all points that the pool passes, whether or not somebody listens there.  ``elapsed_s``,
    ``success`` and ``error`` are those of a finished operation, so of the *after* points.
    """

    point: KVHookPoint
    seq: int
    device: str = ""
    target_device: str = ""
    request_id: str = ""
    handle: KVHandle | None = None
    num_tokens: int = 0
    num_blocks: int = 0
    reused_tokens: int = 0
    pins: int = 0
    block_hashes: tuple[bytes, ...] = ()
    evict_reason: KVEvictReason | None = None
    elapsed_s: float = 0.0
    success: bool = True
    error: CallError | None = None


class KVVeto(msgspec.Struct, frozen=True):
    """Returned by a hook before allocate, evict or migrate: it must not happen, for this reason."""

    reason: str


Hook = Callable[[KVHookEvent], KVVeto | None]


class Hooks:
    """The hooks of one pool.

    Args:
        clock: Seconds that only go forward; what a slow hook is told by.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hooks: dict[KVHookPoint, tuple[Hook, ...]] = {}
        self.seq = 0

    def on(self, point: KVHookPoint | str, hook: Hook) -> Callable[[], None]:
        """Have a hook called at a point.

        Returns:
            A function that takes the hook away again.

        Raises:
            AuthoringError: There is no such point, or the hook is a coroutine function.
        """
        if point not in [known.value for known in KVHookPoint]:
            known = ", ".join(known.value for known in KVHookPoint)
            raise AuthoringError(f"there is no hook point {point!r}; there are {known}")
        if inspect.iscoroutinefunction(hook):
            raise AuthoringError(
                f"the hook {hook!r} must be a plain function: the pool does not wait for anything"
            )
        place, entry = KVHookPoint(point), _Entry(hook)
        self._hooks[place] = (*self._hooks.get(place, ()), entry)
        return lambda: self._off(place, entry)

    def _off(self, point: KVHookPoint, entry: Hook) -> None:
        self._hooks[point] = tuple(hook for hook in self._hooks.get(point, ()) if hook is not entry)

    def fire(self, point: KVHookPoint, **about: Any) -> KVVeto | None:
        """Call the hooks of a point; return the first veto, after which no further hook is asked."""
        seq, self.seq = self.seq, self.seq + 1
        hooks = self._hooks.get(point)
        if not hooks:
            return None
        event = KVHookEvent(point=point, seq=seq, **about)
        for hook in hooks:
            answer = self._call(hook, event)
            if isinstance(answer, KVVeto) and point in VETOABLE:
                return answer
        return None

    def _call(self, hook: Hook, event: KVHookEvent) -> KVVeto | None:
        began = self._clock()
        try:
            return hook(event)
        except Exception:  # noqa: BLE001 - a hook is a stranger's code: the pool's work goes on
            _log.exception("a KV hook at %s raised; it is ignored", event.point.value)
            return None
        finally:
            took = self._clock() - began
            if took > SLOW_S:
                _log.warning("a KV hook at %s held the pool up for %.0f ms", event.point.value, took * 1000)


class _Entry:
    """A registration: the same hook may be registered twice, and taken away once."""

    __slots__ = ("_hook",)

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def __call__(self, event: KVHookEvent) -> KVVeto | None:
        return self._hook(event)
