"""Carries the current call into the threads that author code starts.

``asyncio.to_thread`` and tasks carry the context by themselves; ``threading.Thread`` (before Python's
``thread_inherit_context``) and ``ThreadPoolExecutor`` do not, and ``get_request_id()`` must be right there
too, as must be whose an abort callback is.  Only penstock's own variables are carried.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from penstock.calls import ambient
from penstock.runtime.abort import AbortCallbacks, abort_owner

T = TypeVar("T")

_MARK = "_penstock_call"


class _Place(NamedTuple):
    """The call that code runs in, and to whom the abort callbacks belong that it registers."""

    call: ambient.AmbientCall | None
    owner: AbortCallbacks | None


_NOWHERE = _Place(None, None)


def install() -> None:
    """Carry the call from now on, in this process; further calls do nothing."""
    if not getattr(threading.Thread.start, _MARK, False):
        _carry_into_threads()
        _carry_into_executors()


def _carry_into_threads() -> None:
    start = threading.Thread.start

    def start_with_call(thread: threading.Thread) -> None:
        here = _here()
        if here != _NOWHERE:
            # On the instance, so that subclasses with a `run` of their own are served too.
            thread.run = partial(_run_in, here, thread.run)  # type: ignore[method-assign]
        start(thread)

    setattr(start_with_call, _MARK, True)
    threading.Thread.start = start_with_call  # type: ignore[method-assign,assignment]


def _carry_into_executors() -> None:
    submit = ThreadPoolExecutor.submit

    def submit_with_call(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        # A pool's thread serves many calls: it is started under none, and each job brings its own.
        job = partial(_run_in, _here(), function)
        return _run_in(_NOWHERE, submit, pool, job, *args, **kwargs)

    ThreadPoolExecutor.submit = submit_with_call  # type: ignore[method-assign,assignment]


def _here() -> _Place:
    return _Place(ambient.current.get(), abort_owner.get())


def _run_in(place: _Place, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    call, owner = ambient.current.set(place.call), abort_owner.set(place.owner)
    try:
        return function(*args, **kwargs)
    finally:
        ambient.current.reset(call)
        abort_owner.reset(owner)
