"""Where an ``openai`` engine is: the forms of its specs, and its options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from penstock.engines.upstream.address import Options
from penstock.engines.upstream.patience import Patience

HOSTED = "api.openai.com"
_DEFAULT_URL = f"https://{HOSTED}/v1"
_DEFAULT_CAPACITY = 64
_KEY = "OPENAI_API_KEY"


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
    address, _, query = rest.partition("?") if "://" in rest else ("", "", "")
    model = {} if address or not rest else {"model": rest}
    given = Options("openai", query, {**model, **options})
    elsewhere = given.take("base_url")
    asked = elsewhere or address or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_URL
    base = given.url(asked) + ("/v1" if urlsplit(asked).path in ("", "/") else "")
    # An own server may need no key, and one may say so of any.
    needs_key = not address and options.get("key_env", _KEY)
    key = given.key(_KEY if needs_key else None)
    named = given.take("model")
    capacity = given.capacity(_DEFAULT_CAPACITY)
    if not address and not elsewhere and not named:
        raise given.wrong("which model? such as openai:gpt-5-mini, or openai://127.0.0.1:8080 for a server")
    return Opening(Address(base, named, key), capacity, given.patience())
