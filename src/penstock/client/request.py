"""What a caller writes, as the request that travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.values import encode_value


def join_input(given: Mapping[str, Any] | None, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's input from a mapping and from keywords.

    Raises:
        TypeError: A name is in both.
    """
    given = given or {}
    if both := given.keys() & named.keys():
        raise TypeError(f"{', '.join(sorted(both))}: given in the input and as a keyword as well")
    return {**given, **named}


def encode_input(value: Mapping[str, Any]) -> bytes:
    """Return a call's input as JSON: plain data, ``bytes`` as base64, dataclasses, enums, dates, UUIDs,
    pydantic models and msgspec structs.

    Raises:
        CallError: ``invalid_argument``, naming the place: what JSON cannot say, such as NaN.
    """
    try:
        return encode_value(msgspec.to_builtins(value, enc_hook=_dump, str_keys=True))
    except (CallError, TypeError, ValueError, RecursionError) as error:
        raise CallError(f"the input cannot be sent: {error}", ErrorCode.INVALID_ARGUMENT) from error


def _dump(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")
