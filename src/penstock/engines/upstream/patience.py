"""How long an engine behind HTTP is waited for, and whose time it was that ran out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Annotated

import msgspec

from penstock.calls import ambient
from penstock.errors import CallError, ErrorCode

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Patience(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on one generation; the call's own remaining time bounds all of it.

    Args:
        connect_s: Seconds until a connection stands, TLS included.
        first_token_s: Seconds from the first attempt until something was generated, retries included.
        gap_s: Seconds from one event of the stream to the next; signs of life between them do not count.
        close_s: Seconds that closing a connection, or telling the server to stop, may take.
        retries: How often a request is sent again, before the first token only.
        first_pause_s: Seconds before the first retry, more or less; each further pause is twice as long.
        longest_wait_s: The longest pause before a retry, in seconds; a ``Retry-After`` above it ends the
            trying.
    """

    connect_s: Seconds = 10.0
    first_token_s: Seconds = 300.0
    gap_s: Seconds = 60.0
    close_s: Seconds = 5.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    first_pause_s: Seconds = 0.25
    longest_wait_s: Seconds = 10.0

    @classmethod
    def of(cls, adapter: str, options: Mapping[str, object]) -> Patience:
        """Check options by name; numbers may be texts.

        Raises:
            CallError: ``invalid_argument``, naming the option.
        """
        try:
            return msgspec.convert(dict(options), cls, strict=False)
        except msgspec.ValidationError as error:
            known = ", ".join(cls.__struct_fields__)
            raise CallError(f"{adapter}: {error}; bounds are {known}", ErrorCode.INVALID_ARGUMENT) from error


class Deadlines:
    """The moments at which one generation is given up, by the event loop's clock.

    Made where the generation starts: it reads the remaining time of the call around it.

    Args:
        patience: The engine's bounds.
        engine: Its name, for what a caller reads.
    """

    __slots__ = ("_engine", "_first_due", "_now", "_patience", "_total_due", "_total_s", "flowing")

    def __init__(self, patience: Patience, engine: str) -> None:
        self.flowing = False
        """Whether something was generated: from then on the gaps count."""
        self._patience = patience
        self._engine = engine
        self._now = asyncio.get_running_loop().time
        call = ambient.current.get()
        left = None if call is None else call.remaining()
        self._total_s = math.inf if left is None else max(0.0, left)
        self._total_due = self._now() + self._total_s
        self._first_due = math.inf

    @property
    def total_due(self) -> float:
        """When the call's own time is over."""
        return self._total_due

    def remaining(self) -> float | None:
        """Seconds left to the call; None when it has no bound."""
        return None if math.isinf(self._total_due) else max(0.0, self._total_due - self._now())

    def begin(self) -> None:
        """The first attempt starts now: from here the time to the first token counts."""
        self._first_due = self._now() + self._patience.first_token_s

    def due(self, now: float) -> float:
        """When what is awaited from ``now`` on must be there."""
        due = now + self._patience.gap_s if self.flowing else self._first_due
        return due if due < self._total_due else self._total_due

    def allows(self, pause_s: float) -> bool:
        """Whether there is time for a pause, and for something after it."""
        now = self._now()
        return now + pause_s < self.due(now)

    def overdue(self) -> CallError:
        """What is raised when the time is over: it names the budget."""
        if self._now() + _EARLY_S >= self._total_due:
            return spent(self._engine, "total", self._total_s)
        if self.flowing:
            return spent(self._engine, "gap", self._patience.gap_s)
        return spent(self._engine, "first_token", self._patience.first_token_s)


# Event loops may fire a timer this much too soon.
_EARLY_S = 0.002

_SAID: Mapping[str, str] = {
    "connect": "could not be connected to within {limit:g} s",
    "first_token": "did not begin its answer within {limit:g} s",
    "gap": "fell silent for {limit:g} s in its answer",
    "total": "did not finish in the {limit:.3g} s the call had left",
}


def spent(engine: str, budget: str, limit_s: float) -> CallError:
    """The error of a budget that is used up: ``connect``, ``first_token``, ``gap`` or ``total``."""
    return CallError(
        f"{engine} {_SAID[budget].format(limit=limit_s)} ({budget.replace('_', ' ')} budget)",
        ErrorCode.DEADLINE_EXCEEDED,
        details=[{"budget": budget, "limit_s": limit_s}],
    )
