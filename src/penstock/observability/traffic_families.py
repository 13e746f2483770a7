"""What `/metrics` shows of requests and WebSockets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from penstock.calls.traffic import Traffic
from penstock.observability.text import Family, labels

_REQUESTS = Family("penstock_requests", "counter", "Requests and WebSocket handshakes that were answered.")
_ANSWERING = Family("penstock_requests_in_flight", "gauge", "Requests that are being answered.")
_SOCKETS = Family("penstock_websockets", "gauge", "WebSockets that are open.")
_MESSAGES = Family("penstock_websocket_refusals", "counter", "Messages on WebSockets that were refused.")


def traffic_families(traffic: Traffic) -> Iterator[tuple[Family, Iterable[str]]]:
    """Return the metrics of a server, each with its samples."""
    yield (
        _REQUESTS,
        [
            _REQUESTS.sample(labels(route=route, status=str(status), code=code), count)
            for (route, status, code), count in traffic.requests.items()
        ],
    )
    yield _ANSWERING, _by_route(_ANSWERING, traffic.answering)
    yield _SOCKETS, _by_route(_SOCKETS, traffic.sockets)
    refusals = [_MESSAGES.sample(labels(code=code), count) for code, count in traffic.messages.items()]
    yield _MESSAGES, refusals


def _by_route(family: Family, counts: Mapping[str, int]) -> Iterable[str]:
    return [family.sample(labels(route=route), count) for route, count in counts.items()]
