"""Who is let in: every route and every WebSocket is shut, but for those that are listed here.

What is looked at, in this order: `Host`, `Origin`, the key, what the key may do.  Whether there is anything
at the path is found out only by those who come through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Caller
from penstock.protocol.keys import Scope
from penstock.server.auth import Keys
from penstock.server.exchange import Exchange, Header
from penstock.server.sites import Sites

OPEN = frozenset(("/livez", "/readyz", "/startupz", "/health"))
"""What is answered without a key, to GET and HEAD; more than yes or no only with one."""

Opens: TypeAlias = Callable[[str, Mapping[bytes, bytes]], bool]

_CALLERS = frozenset((Scope.CALLER, Scope.ADMIN))
_SCOPES: Mapping[str, frozenset[Scope]] = {"/metrics": frozenset((Scope.METRICS, Scope.ADMIN))}
"""What a key must be for, where that is not to call; one of these is enough."""

SUBPROTOCOL = "penstock"
SUBPROTOCOL_KEY = "bearer."
"""Browsers let a page say nothing with a WebSocket but its subprotocols, so a key may be one of those; the
other is the one that is chosen, as a browser wants one of its own to be."""

_SINGLE = frozenset((b"authorization", b"x-api-key", b"origin", b"host"))


@dataclass(frozen=True)
class Guest:
    """A host that may offer commands.

    Attributes:
        key: The id of its key; empty where there are no keys.
        commands: Those; None is any.
        still_welcome: Whether it would be let in now.
    """

    key: str
    commands: frozenset[str] | None
    still_welcome: Callable[[], bool]


def _nothing_more(_path: str, _headers: Mapping[bytes, bytes]) -> bool:
    return False


class Door:
    """Lets requests in, or refuses them.

    Args:
        sites: Checks where they come from; None takes all.
        keys: Those that may come in; None lets everybody in, as admin.
        opens: Whether a path is open beside those in ``OPEN``, to a GET or HEAD with such headers.
    """

    def __init__(self, sites: Sites | None, keys: Keys | None = None, opens: Opens = _nothing_more) -> None:
        self.sites = sites
        self.keys = keys
        self._opens = opens

    def enter(self, exchange: Exchange) -> bool:
        """Say who asks, and whether the request goes on; a browser that only asks if it may ask does not.

        Raises:
            CallError: ``permission_denied``, ``unauthenticated`` or ``invalid_argument``.
        """
        headers, scope = exchange.headers, exchange.scope
        if len(headers) != len(scope["headers"]):
            _refuse_repeated(scope["headers"])
        if self.sites is not None and (origin := self.sites.check(headers)) is not None:
            exchange.also = _for_pages(origin)
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                return False  # it comes without a key, and tells nothing (Fetch standard, CORS-preflight)
        if self.keys is None:
            exchange.caller = _everybody(exchange.caller)
        else:
            path = scope["path"]
            is_open = scope["method"] in ("GET", "HEAD") and (path in OPEN or self._opens(path, headers))
            exchange.caller = _known(self.keys, _key_in(headers), path, exchange.caller, is_open)
        return True

    def enter_socket(self, scope: MutableMapping[str, Any], asked: Caller) -> Caller:
        """Return who opens a WebSocket.

        Raises:
            CallError: As for ``enter``.
        """
        token = self._socket_token(scope)
        if self.keys is None:
            return _everybody(asked)
        return _known(self.keys, token, scope["path"], asked)

    def enter_host(self, scope: MutableMapping[str, Any]) -> Guest:
        """Return the host that opens a WebSocket to offer commands.

        Raises:
            CallError: As for ``enter``.
        """
        return self.enter_host_with(self._socket_token(scope))

    def enter_with(self, token: str | None, asked: Caller) -> Caller:
        """Return who calls with a key that came neither over HTTP nor over a WebSocket.

        Args:
            token: The key.
            asked: What else is known of the request.

        Raises:
            CallError: ``unauthenticated`` or ``permission_denied``.
        """
        return _everybody(asked) if self.keys is None else _known(self.keys, token, "", asked)

    def enter_host_with(self, token: str | None) -> Guest:
        """Return the host that offers commands with a key.

        Raises:
            CallError: ``unauthenticated`` or ``permission_denied``.
        """
        keys = self.keys
        if keys is None:
            return Guest("", None, lambda: True)
        key = None if token is None else keys.find(token)
        if key is None:
            raise _unknown(token)
        if Scope.RUNNER not in key.scopes:
            raise CallError("this key is not of the scope runner", ErrorCode.PERMISSION_DENIED)
        return Guest(key.id, key.commands, partial(keys.knows, key.id))

    def _socket_token(self, scope: MutableMapping[str, Any]) -> str | None:
        """Check where a WebSocket comes from; return the key that came with it."""
        headers = dict(reversed(scope["headers"]))
        if len(headers) != len(scope["headers"]):
            _refuse_repeated(scope["headers"])
        if self.sites is not None:
            self.sites.check(headers)
        if self.keys is None:
            return None
        offered = [
            name.removeprefix(SUBPROTOCOL_KEY)
            for name in scope.get("subprotocols") or ()
            if name.startswith(SUBPROTOCOL_KEY)
        ]
        return _one_of((_key_in(headers), *offered))

    def still(self, caller: Caller) -> bool:
        """Whether somebody who was let in to call still would be, as who they were."""
        if self.keys is None:
            return True
        key = self.keys.get(caller.key)
        if key is None or _CALLERS.isdisjoint(key.scopes):
            return False
        return caller.admin == (Scope.ADMIN in key.scopes)


def _everybody(asked: Caller) -> Caller:
    return Caller(admin=True, correlation_id=asked.correlation_id, trace_parent=asked.trace_parent)


def _known(keys: Keys, token: str | None, path: str, asked: Caller, is_open: bool = False) -> Caller:
    """Return who has this key, if it is one that may be used there."""
    key = None if token is None else keys.find(token)
    if key is None:
        if is_open:
            return asked
        raise _unknown(token)
    needed = _SCOPES.get(path, _CALLERS)
    if not is_open and needed.isdisjoint(key.scopes):
        names = " or ".join(sorted(scope.value for scope in needed))
        raise CallError(f"this key is not of the scope {names}", ErrorCode.PERMISSION_DENIED)
    return Caller(
        key=key.id,
        admin=Scope.ADMIN in key.scopes,
        correlation_id=asked.correlation_id,
        trace_parent=asked.trace_parent,
    )


PREFLIGHT: tuple[Header, ...] = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
    (
        b"access-control-allow-headers",
        b"accept, authorization, content-type, idempotency-key, last-event-id, traceparent, x-api-key, "
        b"x-request-id, x-request-timeout",
    ),
    (b"access-control-max-age", b"600"),
)
"""What a page of a welcome origin may send."""


def chosen_subprotocol(scope: MutableMapping[str, Any]) -> str | None:
    """Return the subprotocol that a WebSocket is accepted with: never the one that is a key."""
    return SUBPROTOCOL if SUBPROTOCOL in (scope.get("subprotocols") or ()) else None


def _for_pages(origin: bytes) -> tuple[Header, ...]:
    """Return the headers that let the page read the answer."""
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"retry-after, x-request-id"),
        (b"vary", b"origin"),
    )


def _key_in(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the key that came with a request."""
    bearer, plain = headers.get(b"authorization"), headers.get(b"x-api-key")
    if bearer is None:
        return None if plain is None else plain.decode("latin-1").strip()
    scheme, _, token = bearer.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        raise CallError("Authorization is not of the form `Bearer KEY`", ErrorCode.UNAUTHENTICATED)
    return _one_of((token.strip(), None if plain is None else plain.decode("latin-1").strip()))


def _one_of(tokens: Iterable[str | None]) -> str | None:
    given = {token for token in tokens if token is not None}
    if len(given) > 1:
        raise CallError("the request has two different keys; send one", ErrorCode.UNAUTHENTICATED)
    return given.pop() if given else None


def _refuse_repeated(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse what a proxy and we might each take another one of."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen:
            raise CallError(f"{name.decode()} stands twice in the request", ErrorCode.INVALID_ARGUMENT)
        if name in _SINGLE:
            seen.add(name)


def _unknown(token: str | None) -> CallError:
    if token is None:
        return CallError(
            "a key is needed; send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`",
            ErrorCode.UNAUTHENTICATED,
        )
    return CallError("no such key is known here, or no longer", ErrorCode.UNAUTHENTICATED)
