"""How much a call and all calls together may hold (WIRE.md section 3, Limits)."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True)
class CallLimits:
    """Bounds on calls; sizes in bytes, times in seconds.

    Raises:
        ValueError: A bound is not positive.
    """

    in_flight: int = 1024  # calls accepted and not yet ended
    window: int = 256 * KIB  # how far a producer may run ahead of its fastest reader
    kept_per_call: int = 8 * MIB
    kept_in_all: int = 256 * MIB
    kept_for_s: float = 300.0
    known_calls: int = 10_000  # ended calls still known by id, with or without their frames
    cancel_grace_s: float = 5.0  # then a cancelled call that still runs is reported as stuck
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} is {value}; it must be more than 0")
