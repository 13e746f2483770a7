"""The ways in.  A behaviour test is written once against ``Way`` and ``Handle`` and runs over each of them;
another way in is another class, and a place in ``WAYS``."""

from __future__ import annotations

from behaviour.over_gateway import Gateway
from behaviour.over_http import HttpJson, HttpNdjson, HttpSse
from behaviour.over_local import Local
from behaviour.over_websocket import WebSocket
from behaviour.way import TERMINAL, Frame, Handle, Refused, Way

__all__ = [
    "TERMINAL",
    "WAYS",
    "Frame",
    "Gateway",
    "Handle",
    "HttpJson",
    "HttpNdjson",
    "HttpSse",
    "Refused",
    "Way",
]

WAYS: tuple[type[Way], ...] = (Local, HttpJson, HttpNdjson, HttpSse, WebSocket, Gateway)
