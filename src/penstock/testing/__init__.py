"""What a test of code built on penstock needs; each name is loaded when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS: dict[str, str] = {
    "FakeClock": "penstock.testing.clock",
    "Journal": "penstock.testing.journal",
    "Zoo": "penstock.testing.zoo",
    "check_engine": "penstock.testing.engines",
    "check_events": "penstock.testing.engines",
    "model_zoo": "penstock.testing.zoo",
}

__all__ = ["FakeClock", "Journal", "Zoo", "check_engine", "check_events", "model_zoo"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(_EXPORTS)
