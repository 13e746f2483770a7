"""When something is tried again, and after what pause."""

from __future__ import annotations

import random
from dataclasses import dataclass

from penstock.errors import CallError, ConnectionFailed, ErrorCode

# A server that is busy, starts or stops refuses before anything runs (docs/protocol.md, 3.3).
_REFUSED = frozenset((ErrorCode.RESOURCE_EXHAUSTED, ErrorCode.UNAVAILABLE))


@dataclass(frozen=True)
class Retry:
    """Bounds of trying again.

    Attributes:
        attempts: How often in a row, without success, something is tried again; 0: never.
        base_s: Seconds before the second attempt; they double from then on.
        cap_s: Most seconds between two attempts.  A server that asks for more is not waited for.

    Raises:
        ValueError: One of them is negative.
    """

    attempts: int = 6
    base_s: float = 0.1
    cap_s: float = 5.0

    def __post_init__(self) -> None:
        if min(self.attempts, self.base_s, self.cap_s) < 0:
            raise ValueError(f"{self} has a bound that is negative")


ONCE = Retry(attempts=0)  # for those who tell at once what happens, or try again themselves


class Backoff:
    """Counts attempts in a row; each waits longer, and by a random part, so that clients do not come back all
    at once."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._failed = 0

    def reset(self) -> None:
        """Something went well."""
        self._failed = 0

    def pause(self, error: BaseException) -> float | None:
        """Return the seconds to wait before the next attempt; None if there is none.

        Args:
            error: What the last one ended with; a server may have said in it when to come back.
        """
        asked_s = (error.retry_after_s or 0.0) if isinstance(error, CallError) else 0.0
        retry = self._retry
        if self._failed >= retry.attempts or asked_s > retry.cap_s:
            return None
        bound_s = min(retry.cap_s, retry.base_s * 2.0**self._failed)
        self._failed += 1
        return max(bound_s * random.uniform(0.5, 1.0), asked_s)


def safe_to_repeat(error: CallError, *, idempotent: bool) -> bool:
    """Return whether a request that failed so can be sent again without being run twice.

    Args:
        error: What it failed with.
        idempotent: The same request again changes nothing.
    """
    if isinstance(error, ConnectionFailed):
        return idempotent or not error.sent
    return error.retryable and (idempotent or error.code in _REFUSED)


def worth_resuming(error: Exception) -> bool:
    """Return whether a call that its server knows can be asked for again."""
    return error.retryable if isinstance(error, CallError) else True
