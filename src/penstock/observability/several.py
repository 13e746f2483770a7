"""Several observers in the place of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.calls.observer import Observer


class Several(Observer):
    """Tells all of them what it is told.

    Args:
        observers: In the order in which they are told.
    """

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers


def _teller(name: str) -> Callable[..., None]:
    def tell(self: Several, *told: Any, **named: Any) -> None:
        for observer in self.observers:
            getattr(observer, name)(*told, **named)

    return tell


for _name in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Several, _name, _teller(_name))
