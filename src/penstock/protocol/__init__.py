"""What is said on the wire.  Pure: no I/O, no clock, no event loop.

The types of the typed protocol v0.1 can be imported from here; they are loaded when first asked for, so
that the core does not pay for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.protocol.inference import *
    from penstock.protocol.kv import *
    from penstock.protocol.openai import *
    from penstock.protocol.schema import *

_MODULES = ("inference", "kv", "openai", "schema")


def __getattr__(name: str) -> object:
    if not name.startswith("_"):
        for module in (import_module(f"{__name__}.{module}") for module in _MODULES):
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    modules = (import_module(f"{__name__}.{module}") for module in _MODULES)
    return sorted({*globals(), *(name for module in modules for name in module.__all__)})
