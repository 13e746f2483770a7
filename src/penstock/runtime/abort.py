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

from penstock.calls import ambient
from penstock.runtime.interrupt import shield

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

    @property
    def callbacks(self) -> tuple[AbortCallback, ...]:
        """Those that are registered."""
        return tuple(self._callbacks)


class CallAborts:
    """Who is told that one call was cancelled: each callback once at most, also one that comes during or
    after the cancel.  Safe to use from any thread."""

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

    def catch_up(self, callback: AbortCallback) -> None:
        """Call ``callback``, which is registered elsewhere, if the call was cancelled before that."""
        with self._lock:
            late = self._fired and callback not in self._callbacks
            if late:
                self._callbacks.append(callback)
        if late:
            _start(callback, self._request_id)

    def fire(self, owners: Iterable[AbortCallbacks] = ()) -> None:
        """Call every callback, also those of ``owners`` and of nobody, each in its own daemon thread."""
        with self._lock:
            if self._fired:
                return
            self._fired = True
            for owner in (*owners, _unowned):
                self._callbacks += [each for each in owner.callbacks if each not in self._callbacks]
            due = tuple(self._callbacks)
        for callback in due:
            _start(callback, self._request_id)


class Abortable:
    """A call that can be cancelled, as the code in it finds it."""

    __slots__ = ("_aborts",)

    def __init__(self, aborts: CallAborts) -> None:
        self._aborts = aborts


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
        about = {"request_id": request_id}
        _log.exception("abort callback %r could not start for request %s", callback, request_id, extra=about)


def _run(callback: AbortCallback, request_id: str) -> None:
    try:
        callback(request_id)
    except BaseException:  # noqa: BLE001 - the top of a thread that runs author code
        about = {"request_id": request_id}
        _log.exception("abort callback %r failed for request %s", callback, request_id, extra=about)
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
abort_owner: ContextVar[AbortCallbacks | None] = ContextVar("penstock_abort_owner", default=None)


def register_abort_callback(callback: AbortCallback) -> None:
    """Have ``callback(request_id)`` called in a background thread when a call is cancelled.

    Meant to be called once, while the project loads or in ``initialize``; the callback then belongs to
    that project, or to the state that was made.  Registered anywhere else it serves every project of this
    process; in a call that has been cancelled already it is called at once.  For a callback about one call
    use ``current_call().on_abort``.

    Raises:
        TypeError: It cannot be called.
    """
    owner = abort_owner.get()
    call: object = ambient.current.get()
    with shield():
        (owner or _unowned).add(callback)
        if owner is None and isinstance(call, Abortable):
            call._aborts.catch_up(callback)


@contextmanager
def owned_by(owner: AbortCallbacks) -> Iterator[None]:
    """Give callbacks registered inside to ``owner``."""
    token = abort_owner.set(owner)
    try:
        yield
    finally:
        abort_owner.reset(token)
