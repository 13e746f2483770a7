"""Where an ``openai`` engine is: the forms of its specs, and its options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from penstock.engines.upstream.patience import Patience
from penstock.errors import CallError, ErrorCode

HOSTED = "api.openai.com"
_DEFAULT_URL = f"https://{HOSTED}/v1"
_DEFAULT_CAPACITY = 64
_MOST = 100_000


class Address(NamedTuple):
    """A server and what it is asked for; ``model`` None is the one it has."""

    url: str
    model: str | None = None
    key: str | None = None


class Opening(NamedTuple):
    """What an engine is opened with."""

    address: Address
    capacity: int
    patience: Patience


def address_of(rest: str, options: Mapping[str, Any]) -> Opening:
    """Read a spec and its options.

    Args:
        rest: ``http://HOST:PORT[/BASE][?OPTION=VALUE&...]``, or the name of a hosted model.
        options: By keyword; they go before those of the URL.

    Raises:
        CallError: ``invalid_argument``: an unknown option or a wrong value, or no host; or
            ``failed_precondition``: a key is missing.
    """
    url, named = _split(rest) if "://" in rest else (None, {"model": rest} if rest else {})
    given = {**named, **options}
    hosted = url is None and not given.get("base_url")
    base = _base(given.pop("base_url", None) or url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_URL)
    key = _key(given, of_openai=url is None)
    model = given.pop("model", None)
    capacity = _capacity(given.pop("capacity", _DEFAULT_CAPACITY))
    if hosted and not model:
        raise _wrong("which model? such as openai:gpt-5-mini, or openai://127.0.0.1:8080 for a server")
    return Opening(Address(base, model, key), capacity, Patience.of("openai", given))


def _split(url: str) -> tuple[str, dict[str, str]]:
    address, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if "api_key" in options:
        raise _wrong("a key does not belong into a URL; name its variable: ?key_env=NAME")
    return address, options


def _base(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise _wrong("the address is not HOST or HOST:PORT")
    if parts.username is not None or parts.query or parts.fragment:
        raise _wrong("the address holds a user, a query or a fragment; only host, port and path belong there")
    return url.rstrip("/") + ("/v1" if parts.path in ("", "/") else "")


def _key(given: dict[str, Any], *, of_openai: bool) -> str | None:
    variable = given.pop("key_env", "OPENAI_API_KEY" if of_openai else None)
    key = given.pop("api_key", None)
    if key or not variable:
        return key or None
    key = os.environ.get(variable)
    if not key:
        raise CallError(
            f"openai: the key is missing; set {variable}, or give api_key=", ErrorCode.FAILED_PRECONDITION
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
    return CallError(f"openai: {what}", ErrorCode.INVALID_ARGUMENT)
