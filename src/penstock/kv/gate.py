"""One operation at a time, each between its hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from penstock.errors import CallError, ErrorCode
from penstock.kv.cache import vetoed
from penstock.kv.hooks import Hooks, KVHookPoint

_T = TypeVar("_T")
_POINTS = {
    name: (KVHookPoint(f"before_{name}"), KVHookPoint(f"after_{name}"))
    for name in ("allocate", "free", "migrate", "prefetch")
}


class Gate:
    """Lets operations in; ``clock`` tells seconds that only go forward."""

    def __init__(self, hooks: Hooks, clock: Callable[[], float]) -> None:
        self._hooks = hooks
        self._clock = clock
        self._inside = False

    def alone(self, work: Callable[[], _T]) -> _T:
        """Do an operation.

        Raises:
            CallError: ``failed_precondition``: another is under way, from within which this one was asked.
        """
        if self._inside:
            raise CallError(
                "the pool is at work: a hook must not call its operations, and no other thread may use it",
                ErrorCode.FAILED_PRECONDITION,
            )
        self._inside = True
        try:
            return work()
        finally:
            self._inside = False

    def run(self, name: str, about: dict[str, Any], work: Callable[[], _T]) -> _T:
        """Do an operation between its hooks, which are told what ``about`` says at that moment.

        Raises:
            CallError: As ``alone``; or ``failed_precondition``: a hook forbade it.
        """
        return self.alone(lambda: self._between(name, about, work))

    def _between(self, name: str, about: dict[str, Any], work: Callable[[], _T]) -> _T:
        before, after = _POINTS[name]
        began = self._clock()
        try:
            veto = self._hooks.fire(before, **about)
            if veto is not None:
                raise vetoed(name, veto)
            result = work()
        except CallError as error:
            elapsed = self._clock() - began
            self._hooks.fire(after, **about, elapsed_s=elapsed, success=False, error=error)
            raise
        self._hooks.fire(after, **about, elapsed_s=self._clock() - began)
        return result
