"""What a server has answered, in plain numbers: it counts them, and others show them."""

from __future__ import annotations

from collections import Counter

ELSEWHERE = ""
"""The route of what came to no route: a path that is not there, or what never became a request."""


class Traffic:
    """Counts requests and WebSockets.

    Routes are those of a server's table, as it has them (``/tasks/{id}``); nothing a caller makes up gets in.

    Attributes:
        requests: Answered ones, by route, HTTP status, and code where they were refused.
        messages: Those on WebSockets that were refused, by code.
        answering: Requests that are being answered, by route.
        sockets: WebSockets that are open, by route.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int, str]] = Counter()
        self.messages: Counter[str] = Counter()
        self.answering: Counter[str] = Counter()
        self.sockets: Counter[str] = Counter()

    def answered(self, route: str, status: int, code: str = "") -> None:
        """Count an answer that has been given.

        Args:
            route: What it came to; ``ELSEWHERE`` for nothing.
            status: HTTP status.
            code: Of a refusal; empty for anything else.
        """
        self.requests[route, status, code] += 1
