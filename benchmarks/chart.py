"""The chart of the report: bars of tokens per second, drawn by hand."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from samples import Samples, wall

CONNECTIONS = 32
LEFT, RIGHT, WIDE, BAR, STEP, TOP = 250, 90, 860, 18, 28, 60
COLOURS = {"floor": "#9aa5b1", "penstock": "#1f6feb", "peer": "#d9822b"}
SHOWN = (
    ("floor", "bare ASGI, one write per stream", ("stream-256tok", "bare")),
    ("penstock", "penstock, NDJSON", ("stream-256tok", "penstock_scripted")),
    ("penstock", "penstock, SSE", ("stream-sse", "penstock_sse")),
    ("penstock", "penstock, WebSocket", ("ws-256tok", "penstock_scripted")),
    ("penstock", "penstock, generators in threads", ("stream-threads", "penstock_threads")),
    ("penstock", "penstock, all text so far", ("stream-cumulative", "penstock")),
    ("penstock", "penstock, no network", ("in-process", "penstock_frames")),
    ("peer", "aiohttp", ("peers", "aiohttp")),
    ("peer", "Starlette on uvicorn", ("peers", "starlette")),
    ("peer", "Ray Serve (both cores)", ("peers", "ray")),
    ("peer", "BentoML (both cores)", ("peers", "bentoml")),
    ("peer", "LitServe (both cores)", ("peers", "litserve")),
)


class Bar(NamedTuple):
    """One bar."""

    colour: str
    label: str
    value: float


def bars(samples: Samples) -> list[Bar]:
    """Return the bars of what was measured."""
    found = []
    for kind, label, (workload, contender) in SHOWN:
        own = samples.of(workload, contender, CONNECTIONS)
        if own:
            found.append(Bar(COLOURS[kind], label, median(map(wall, own))))
    return found


def draw(samples: Samples) -> str:
    """Return the chart as SVG."""
    shown = bars(samples)
    most = max((bar.value for bar in shown), default=1.0)
    height = TOP + STEP * len(shown) + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {height}" width="{WIDE}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="14">',
        f'<rect width="{WIDE}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<text x="20" y="30" font-size="17" fill="#1b1f24">Tokens per second, streams of 256 tokens on '
        f"{CONNECTIONS} connections</text>",
    ]
    for place, bar in enumerate(shown):
        lines += _drawn(bar, TOP + STEP * place, (WIDE - LEFT - RIGHT) * bar.value / most)
    return "\n".join((*lines, "</svg>", ""))


def _drawn(bar: Bar, y: int, length: float) -> list[str]:
    middle = y + BAR - 4
    return [
        f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end" fill="#1b1f24">{bar.label}</text>',
        f'<rect x="{LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{BAR}" rx="2" fill="{bar.colour}"/>',
        f'<text x="{LEFT + length + 8:.1f}" y="{middle}" fill="#57606a">{bar.value / 1000:,.0f} k</text>',
    ]
