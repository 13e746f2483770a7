"""Interrupting code that blocks in a thread, where its author allows it: an exception is thrown into it.

CPython raises it between two steps of Python code, wherever the thread then is; a call into C that blocks
returns first.  It must never be raised outside of the call it is meant for, as threads are used again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any, TypeVar

T = TypeVar("T")


class CallInterrupted(asyncio.CancelledError):
    """The call was cancelled; raised in a thread that runs it, by ``raise_if_cancelled()`` or, where the
    command allows ``interrupt``, at any step.

    It derives from BaseException, so that ``except Exception`` lets it pass.  Clean up, and let it pass too.
    """


class Interrupt:
    """Throws ``CallInterrupted`` into the thread that runs a call: once, and only within its author's code.

    What settles who is first is a token.  While the thread runs the author's code the token is there:
    ``request`` throws only if it gets it, and the thread leaves that code, or enters a shield, only after
    taking it away.  It is taken in one step, so that one of the two gets it.  Where that is ``request``, the
    thread waits until the exception is thrown, and withdraws it if it has not arrived.

    The exception may arrive in this code as well, at any step of the thread's side, but once at most.  That
    is why the author's code is left twice: if the first time is cut, the second is not.
    """

    def __init__(self) -> None:
        self._token: list[int] = []  # the thread's id, while it may be interrupted
        self._requested = False
        self._raised = False
        self._inside = False  # the author's code runs
        self._shields = 0
        self._throw = _thrower()

    def request(self, _: object = None) -> None:
        """Interrupt the call, a shielded one at the end of its shield; from the event loop."""
        if self._requested:
            return
        self._requested = True
        thread = self._take()
        if thread is not None:
            try:
                self._throw(thread, id(CallInterrupted))
            finally:
                self._raised = True

    # -- in the thread -------------------------------------------------------------------------------

    def run(self, function: Callable[[], T]) -> T:
        """Run the author's ``function``; whatever it does, nothing is thrown any more when this returns.

        Raises:
            CallInterrupted: The call was cancelled, perhaps before this.
        """
        _here.interrupt = self
        try:
            try:
                self._enter()
                return function()
            finally:
                self._leave()
        finally:
            self._leave()
            _here.interrupt = None

    def items(self, make: Callable[[], Any]) -> Iterator[Any]:
        """Yield what the author's generator yields.  Between its items it cannot be interrupted: it is then
        closed at its yield.

        Raises:
            CallInterrupted: The call was cancelled.
        """
        items = make()
        try:
            while (item := self.run(partial(next, items, _END))) is not _END:
                yield item
        finally:
            items.close()

    def raises(self) -> None:
        """Say that ``CallInterrupted`` is raised here and now, by other means, and need not be thrown too."""
        if self._inside and not self._shields and self._take() is None:
            self._withdraw()
        self._raised = True

    def shield(self) -> None:
        """Hold the exception back until ``unshield``; the calls may be nested.

        Raises:
            CallInterrupted: It was on its way.
        """
        if self._inside and not self._shields and self._take() is None:
            while not self._raised:
                time.sleep(0)
            time.sleep(0)  # to take the interpreter's lock again makes the exception due, and here is better
            self._withdraw()
        self._shields += 1

    def unshield(self) -> None:
        """Let the exception come again.

        Raises:
            CallInterrupted: It was held back.
        """
        self._shields -= 1
        if not self._inside or self._shields:
            return
        self._token.append(threading.get_ident())
        if self._requested and self._take() is not None and not self._raised:
            self._raised = True
            raise CallInterrupted("the call was cancelled")

    # -- inside --------------------------------------------------------------------------------------

    def _enter(self) -> None:
        self._inside = True
        if not self._shields:
            self._token.append(threading.get_ident())
        if self._requested:
            raise CallInterrupted("the call was cancelled")

    def _leave(self) -> None:
        if self._inside:
            if not self._shields and self._take() is None:
                self._withdraw()
            self._inside = False

    def _withdraw(self) -> None:
        """Have the exception that was thrown not arrive, unless it did."""
        while not self._raised:  # `request` has the token, and is about to throw
            time.sleep(0)
        self._throw(threading.get_ident(), None)

    def _take(self) -> int | None:
        try:
            return self._token.pop()
        except IndexError:
            return None


class _Shield(AbstractContextManager[None]):
    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def __enter__(self) -> None:
        self._interrupt.shield()

    def __exit__(self, *_: object) -> None:
        self._interrupt.unshield()


def shield() -> AbstractContextManager[None]:
    """Return a context in which the call that this thread runs is not interrupted, but at its end; in other
    threads, and for commands that do not allow it, it changes nothing."""
    interrupt = _current()
    return nullcontext() if interrupt is None else _Shield(interrupt)


def raised_here() -> None:
    """Say that ``CallInterrupted`` is raised here and now, and need not be thrown into this thread."""
    interrupt = _current()
    if interrupt is not None:
        interrupt.raises()


def interruptible(
    call: Callable[[], Any], on_cut: Callable[[Callable[[object], None]], None], *, streaming: bool
) -> Callable[[], Any]:
    """Return ``call``, to be run in a thread, which is interrupted when the call is cut.

    Args:
        call: The author's function with its arguments.
        on_cut: Registers what to call at the cut.
        streaming: It makes a generator.
    """
    interrupt = Interrupt()
    on_cut(interrupt.request)
    return partial(interrupt.items if streaming else interrupt.run, call)


class _Here(threading.local):
    interrupt: Interrupt | None = None


def _current() -> Interrupt | None:
    return _here.interrupt


@cache
def _thrower() -> Callable[[int, int | None], int]:
    """Return what has an exception, told by its address, raised in a thread at its next step; with None, what
    was to be raised is not.

    Loaded where a command asks for it: some builds of Python lack ctypes, and most projects do without.
    """
    import ctypes

    # A prototype of our own: the argument types of `ctypes.pythonapi` itself are shared with everybody.
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
    return prototype(("PyThreadState_SetAsyncExc", ctypes.pythonapi))


_END = object()
_here = _Here()
