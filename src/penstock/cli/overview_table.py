"""What a server tells of its calls, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.cli.overview import Look
from penstock.client.transport import Task

_CALLS = ("call", "command", "state", "items", "items/s", "age")
_NUMBERS = frozenset(("items", "items/s", "age", "running", "queued"))


class Rates:
    """How fast calls go: since the last look, or since they started where there was none."""

    def __init__(self) -> None:
        self._at = 0.0
        self._items: Mapping[str, int] = {}

    def update(self, look: Look) -> Mapping[str, float | None]:
        """Return items per second by request id; None of calls that have not started."""
        rates = {call.request_id: self._rate(call, look.at) for call in look.calls}
        self._at, self._items = look.at, {call.request_id: items_of(call) for call in look.calls}
        return rates

    def _rate(self, call: Task, at: float) -> float | None:
        if call.started_at is None:
            return None
        before = self._items.get(call.request_id)
        passed = at - (call.started_at if before is None else self._at)
        return (items_of(call) - (before or 0)) / passed if passed > 0 else None


def items_of(call: Task) -> int:
    """Return the items of a call under way: its frames so far but the first."""
    return max(0, call.next_seq - 1)


def render(look: Look, rates: Mapping[str, float | None]) -> RenderableType:
    """Return the calls, and how full their commands are where that is known."""
    calls = _table(*_CALLS)
    for call in look.calls:
        rate = rates[call.request_id]
        calls.add_row(
            Text(call.task_id),
            Text(call.command or f"workflow {call.workflow_id}"),
            _state(call),
            str(items_of(call)),
            "" if rate is None else f"{rate:.1f}",
            _span(look.at - call.accepted_at),
        )
    parts: list[RenderableType] = [calls if look.calls else Text("no call runs")]
    if look.loads:
        loads = _table("command", "running", "queued")
        for command, load in sorted(look.loads.items()):
            running, queued = _part(load, "running", "permits"), _part(load, "queued", "places")
            loads.add_row(Text(command), running, queued)
        parts += [Text(), loads]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    return table


def _state(call: Task) -> str:
    if call.status == "accepted":
        return "queued" if call.started_at is None else "running"
    return call.status


def _part(load: Mapping[str, int], name: str, limit: str) -> str:
    return f"{load.get(name, 0)} of {load[limit]}" if limit in load else str(load.get(name, 0))


def _span(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{max(0.0, seconds):.1f} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{minutes}:{whole % 60:02d}" if not hours else f"{hours}:{minutes % 60:02d}:{whole % 60:02d}"
