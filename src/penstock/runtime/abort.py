"""Abort callbacks: how author code learns, off the event loop, that a call was cancelled.

Source: the runner protocol's request cancellation support; in addition each callback runs exactly once
per cancelled call, in a thread of its own, so that a slow one delays nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar

_log = logging.getLogger("penstock.abort")

AbortCallback = Callable[[str], None]


class AbortCallbacks:
    """Callbacks that share an owner: a project, or one call."""

    def __init__(self) -> None:
        self._callbacks: list[AbortCallback] = []

    def add(self, callback: AbortCallback) -> None:
        """Register ``callback``; one that is registered already is not called twice."""
        _check(callback)
        if callback not in self._callbacks:
            self._callbacks.append(callback)

    def fire(self, request_id: str) -> None:
        """Call every callback with ``request_id``, each in its own daemon thread; forgets nothing."""
        for callback in tuple(self._callbacks):
            _start(callback, request_id)


class CallAborts:
    """Callbacks about one call: each is called once at most, also one that comes during or after the
    cancel.  Safe to use from any thread."""

    __slots__ = ("_callbacks", "_fired", "_lock", "_request_id")

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._lock = threading.Lock()
        self._callbacks: list[AbortCallback] = []
        self._fired = False

    def add(self, callback: AbortCallback) -> None:
        """Register ``callback``; it is called at once if the call has been cancelled."""
        _check(callback)
        with self._lock:
            if callback in self._callbacks:
                return
            self._callbacks.append(callback)
            late = self._fired
        if late:
            _start(callback, self._request_id)

    def fire(self) -> None:
        """Call every callback, each in its own daemon thread."""
        with self._lock:
            due = () if self._fired else tuple(self._callbacks)
            self._fired = True
        for callback in due:
            _start(callback, self._request_id)


def _check(callback: AbortCallback) -> None:
    if not callable(callback):
        raise TypeError(f"an abort callback takes the request id; {callback!r} cannot be called")


def _start(callback: AbortCallback, request_id: str) -> None:
    name = f"penstock-abort-{request_id[:8]}"
    thread = threading.Thread(target=_run, args=(callback, request_id), name=name, daemon=True)
    _running.add(thread)
    try:
        Context().run(thread.start)
    except RuntimeError:  # no more threads: the call must be cut all the same
        _running.discard(thread)
        _log.exception("abort callback %r could not start for request %s", callback, request_id)


def _run(callback: AbortCallback, request_id: str) -> None:
    try:
        callback(request_id)
    except Exception:  # noqa: BLE001 - the top of a thread that runs author code
        _log.exception("abort callback %r failed for request %s", callback, request_id)
    finally:
        _running.discard(threading.current_thread())


_running: set[threading.Thread] = set()


def wait_for_aborts(timeout_s: float = 5.0) -> None:
    """Wait until the abort callbacks that run now have returned, at most ``timeout_s`` seconds in all."""
    deadline = time.monotonic() + timeout_s
    for thread in tuple(_running):
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


_unowned = AbortCallbacks()
_owner: ContextVar[AbortCallbacks | None] = ContextVar("penstock_abort_owner", default=None)


def register_abort_callback(callback: AbortCallback) -> None:
    """Have ``callback(request_id)`` called in a background thread when a call is cancelled.

    Meant to be called once, while the project loads or in ``initialize``; the callback then belongs to
    that project.  Registered anywhere else it serves every project of this process.  For a callback about
    one call use ``current_call().on_abort``.

    Raises:
        TypeError: It cannot be called.
    """
    (_owner.get() or _unowned).add(callback)


def fire_aborts(owners: Iterable[AbortCallbacks], request_id: str) -> None:
    """Run the callbacks of ``owners`` and those nobody owns, each once."""
    every = AbortCallbacks()
    for owner in (*owners, _unowned):
        for callback in owner._callbacks:
            every.add(callback)
    every.fire(request_id)


@contextmanager
def owned_by(owner: AbortCallbacks) -> Iterator[None]:
    """Give callbacks registered inside to ``owner``."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)
