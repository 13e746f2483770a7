"""What the specs and options of all engines behind HTTP have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from penstock.engines.upstream.patience import Patience
from penstock.errors import CallError, ErrorCode

_MOST = 100_000


class Server(NamedTuple):
    """A server, and how it is used; ``model`` None is the one it has."""

    url: str
    model: str | None
    key: str | None
    capacity: int
    patience: Patience


class Options:
    """The options of a spec, from its query and by keyword, taken one after the other.

    Args:
        adapter: Its name, which messages begin with.
        query: What stands behind the question mark; no key.
        named: By keyword; they go before those of the query.

    Raises:
        CallError: ``invalid_argument``: the query holds a key.
    """

    def __init__(self, adapter: str, query: str, named: Mapping[str, Any]) -> None:
        asked = dict(parse_qsl(query, keep_blank_values=True))
        self._adapter = adapter
        if "api_key" in asked:
            raise self.wrong("a key does not belong into a URL; name its variable: ?key_env=NAME")
        self._given = {**asked, **named}

    def take(self, name: str) -> str | None:
        """Take an option that is a text, if it is given."""
        value = self._given.pop(name, None)
        return str(value) if value else None

    def key(self, variable: str | None = None) -> str | None:
        """Take the key: ``api_key``, or what the variable ``key_env`` holds.

        Args:
            variable: That variable, where the options name none.

        Raises:
            CallError: ``failed_precondition``: there is none where one is due.
        """
        variable = self.take("key_env") or variable
        key = self.take("api_key") or (os.environ.get(variable) if variable else None)
        if key or not variable:
            return key
        raise CallError(
            f"{self._adapter}: the key is missing; set {variable}, or give api_key=",
            ErrorCode.FAILED_PRECONDITION,
        )

    def capacity(self, default: int) -> int:
        """Take the number of generations at the same time.

        Raises:
            CallError: ``invalid_argument``.
        """
        value = self._given.pop("capacity", default)
        try:
            capacity = int(str(value))
        except ValueError:
            capacity = 0
        if not 1 <= capacity <= _MOST:
            raise self.wrong(f"capacity is a whole number from 1 to {_MOST}, not {value!r}")
        return capacity

    def patience(self) -> Patience:
        """Take what is left: the bounds on waiting.

        Raises:
            CallError: ``invalid_argument``: an unknown option or a wrong value.
        """
        return Patience.of(self._adapter, self._given)

    def url(self, address: str) -> str:
        """Check the address of a server.

        Raises:
            CallError: ``invalid_argument``: it is none.
        """
        try:
            parts = urlsplit(address)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise self.wrong("the address is not HOST or HOST:PORT")
        if parts.username is not None or parts.query or parts.fragment:
            raise self.wrong(
                "the address holds a user, a query or a fragment; only host, port and path belong there"
            )
        return address.rstrip("/")

    def wrong(self, what: str) -> CallError:
        """The error of an option."""
        return CallError(f"{self._adapter}: {what}", ErrorCode.INVALID_ARGUMENT)
