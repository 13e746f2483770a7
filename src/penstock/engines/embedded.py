"""Models that compute in this process: their calls block, so each runs in one of the engine's own threads,
one per slot, and hands its events to the event loop of whoever asked.
"""

from __future__ import annotations

import asyncio
import atexit
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

import anyio

from penstock.calls import ambient
from penstock.calls.caches import CACHES
from penstock.calls.engine_cache import EngineCache, KVNeed
from penstock.engines.answer import Answer
from penstock.engines.base import Engine
from penstock.engines.handoff import Handoff
from penstock.engines.slots import SlotThreads
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineEvent, EngineRequest

# One step of a long prompt, and much room for a busy machine.
_STOP_S = 10.0


class Model(Protocol):
    """What is computed with."""

    def close(self) -> None:
        """Free it; nothing computes with it any more."""
        ...


class EmbeddedEngine(Engine):
    """An engine with a model of its own; an adapter makes ``Generation``s of requests.

    Args:
        adapter: The engine's own name.
        name: What the model is called in events and requests.
        slots: How many generations run at the same time.
        model: Closed with the engine.
        context_tokens: What prompt and answer of one call may take together; None if that is not known.
        kv_tokens: What those of all calls may take together; None is what the slots hold.
    """

    def __init__(
        self,
        adapter: str,
        name: str,
        slots: int,
        model: Model,
        context_tokens: int | None = None,
        kv_tokens: int | None = None,
    ) -> None:
        self.model = name
        self.engine_id = f"{adapter}:{name}"
        self.capacity = slots
        self._model = model
        self._slots = SlotThreads(slots, f"penstock-{name}")
        self._live: set[Generation] = set()
        if kv_tokens is None and context_tokens is not None:
            kv_tokens = slots * context_tokens
        if kv_tokens is not None:
            self.kv = EngineCache(self.engine_id, kv_tokens, call_tokens=context_tokens)
            CACHES.add(self.kv)
        _OPEN.add(self)
        self._release = weakref.finalize(self, _release, self._slots, model)
        # At exit the calls in flight must be cancelled first: see _close_all.
        self._release.atexit = False

    async def events_of(
        self, generation: Generation, request: EngineRequest
    ) -> AsyncGenerator[EngineEvent, None]:
        """Run a generation and yield its events; it waits for room in the KV cache, and for a slot.

        Raises:
            CallError: ``unavailable`` once closed; ``resource_exhausted``: there is no room; what the
                generation was refused with.
        """
        async with self.room(request) as generation.room:
            call = ambient.current.get()
            self._begin(generation)
            over = False
            try:
                while events := await generation.handoff.take():
                    for event in events:
                        yield event
                over = True
                if generation.failure is not None:
                    raise generation.failure
            finally:
                generation.abandon()
                # The slot is the caller's to give on only when it is free, whatever cancels us meanwhile.
                with anyio.CancelScope(shield=True):
                    await generation.handoff.finished()
                if call is not None and not over:
                    call.upstream_confirmed()

    def close(self) -> None:
        """Cancel what is in flight, wait until it has stopped, free the model.

        A call in flight ends with ``unavailable``.
        """
        _OPEN.discard(self)
        if self.kv is not None:
            CACHES.remove(self.kv)
        for generation in tuple(self._live):
            generation.stop()
        # Taken out of weakref's hands, whose own exit handler runs before ours and disarms it.
        if self._release.detach() is not None:
            _release(self._slots, self._model)
        if self.kv is not None:
            self.kv.close()

    def withdraw(self, generation: Generation) -> bool:
        """Take a generation out of the queue; ``False`` when it has begun."""
        return self._slots.withdraw(generation)

    def forget(self, generation: Generation) -> None:
        """A generation has stopped."""
        self._live.discard(generation)

    def closed_error(self) -> CallError:
        """What calls end with when the engine is closed."""
        return CallError(f"{self.engine_id} is closed", ErrorCode.UNAVAILABLE)

    def _begin(self, generation: Generation) -> None:
        self._live.add(generation)
        if not self._slots.submit(generation):
            self._live.discard(generation)
            raise self.closed_error()


class Generation(ABC):
    """One request on its way through a slot; made on the event loop, run in a slot's thread.

    Args:
        engine: Where it runs.
        library: What computes, for messages.
        reading: What is known of the answer.
    """

    def __init__(self, engine: EmbeddedEngine, library: str, reading: Answer) -> None:
        self.handoff: Handoff[EngineEvent] = Handoff(asyncio.get_running_loop())
        self.failure: CallError | None = None
        self.stopping = False
        self.cause: CallError | None = None
        """Why it stops, where that is not its reader's wish."""
        self.room: KVNeed | None = None
        """What it has of the KV cache, once it runs."""
        self._engine = engine
        self._library = library
        self._outcome = reading

    @abstractmethod
    def answer(self) -> None:
        """Compute the answer and hand its events over; blocks until it has ended, or ``stopping``."""

    def run(self) -> None:
        """Answer; every way this can end is told through the handoff."""
        try:
            if not self.stopping:
                self.answer()
            if not self._outcome.ended:
                self._fail(self.cause or self._cut_off())
        except CallError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the top of a slot's thread, which must live on
            self._fail(self._refused(error))
        finally:
            self._over()

    def put(self, events: Iterable[EngineEvent]) -> bool:
        """Hand events over as they are made; returns whether to stop computing."""
        if self.stopping:
            return True
        for event in events:
            if not self.handoff.put(event):
                return True
        return self._outcome.ended or self.stopping

    def abandon(self) -> None:
        """Nobody reads any more: stop as soon as possible."""
        self.handoff.close()
        self._halt()

    def stop(self) -> None:
        """The engine closes: stop as soon as possible and tell the reader."""
        self.handoff.unbound()
        self.cause = self._engine.closed_error()
        self._halt()

    def _halt(self) -> None:
        self.stopping = True
        if self._engine.withdraw(self):
            self.failure = self.cause
            self._over()

    def _over(self) -> None:
        self._engine.forget(self)
        self.handoff.finish()

    def _cut_off(self) -> CallError:
        return CallError(f"{self._library} stopped before the answer was finished", ErrorCode.UPSTREAM_FAILED)

    def _refused(self, error: Exception) -> CallError:
        # Before the start a library reads the request; later its exceptions are its own faults.
        code = ErrorCode.UPSTREAM_FAILED if self._outcome.begun else ErrorCode.INVALID_ARGUMENT
        return CallError(f"{self._library} ({type(error).__name__}): {error}", code)

    def _fail(self, error: CallError) -> None:
        # Before the first event a failure is raised; after it, it is the end event.
        try:
            self.handoff.put(self._outcome.failed(error))
        except CallError as refusal:
            self.failure = refusal


def peak_mem_mb() -> int:
    """The most memory this process ever held, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20) if sys.platform == "darwin" else peak // 1024


def _release(slots: SlotThreads, model: Model) -> None:
    # A model some thread still computes with cannot be freed.
    if slots.close(_STOP_S):
        model.close()


_OPEN: weakref.WeakSet[EmbeddedEngine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # An interpreter that ends while a thread computes takes the process down with an abort.
    for engine in tuple(_OPEN):
        engine.close()
