"""Where an ``sglang`` engine is: the forms of its specs, and its options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from penstock.engines.upstream.patience import Patience
from penstock.errors import CallError, ErrorCode

_CAPACITY = 256
_MOST = 100_000


class Server(NamedTuple):
    """A server, and how it is used; ``model`` None is the one it has."""

    url: str
    model: str | None
    key: str | None
    capacity: int
    patience: Patience


def server_of(rest: str, options: Mapping[str, Any]) -> Server:
    """Read a spec and its options.

    Args:
        rest: ``http://HOST:PORT[?OPTION=VALUE&...]``, or ``HOST:PORT``.
        options: By keyword; they go before those of the URL.

    Raises:
        CallError: ``invalid_argument``: an unknown option or a wrong value, or no host; or
            ``failed_precondition``: a key is missing.
    """
    address, _, query = rest.partition("?")
    named = dict(parse_qsl(query, keep_blank_values=True))
    if "api_key" in named:
        raise _wrong("a key does not belong into a URL; name its variable: ?key_env=NAME")
    given = {**named, **options}
    url = _url(address)
    key = _key(given)
    capacity = _capacity(given.pop("capacity", _CAPACITY))
    model = given.pop("model", None)
    return Server(url, model, key, capacity, Patience.of("sglang", given))


def _url(address: str) -> str:
    url = address if "://" in address else f"http://{address.removeprefix('//')}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise _wrong("the address is HOST:PORT, such as in sglang://127.0.0.1:30000")
    if parts.username is not None or parts.fragment:
        raise _wrong("the address holds a user or a fragment; only host, port and path belong there")
    return url.rstrip("/")


def _key(given: dict[str, Any]) -> str | None:
    key, variable = given.pop("api_key", None), given.pop("key_env", None)
    if key or not variable:
        return key or None
    key = os.environ.get(variable)
    if not key:
        raise CallError(
            f"sglang: the key is missing; set {variable}, or give api_key=", ErrorCode.FAILED_PRECONDITION
        )
    return key


def _capacity(value: object) -> int:
    try:
        capacity = int(str(value))
    except ValueError:
        capacity = 0
    if not 1 <= capacity <= _MOST:
        raise _wrong(f"capacity is a whole number from 1 to {_MOST}, not {value!r}")
    return capacity


def _wrong(what: str) -> CallError:
    return CallError(f"sglang: {what}", ErrorCode.INVALID_ARGUMENT)
