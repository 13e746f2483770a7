"""JSON values: what an item may be, and the bytes it becomes.

msgspec writes NaN as null and bytes as text without a word; an item that holds either is refused here
(WIRE.md section 2, ``invalid_output``) instead of reaching a caller as something its author never said.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from penstock.errors import CallError, ErrorCode

MAX_DEPTH = 64  # deeper than any honest item, shallow enough to find a cycle at once

_PLAIN = frozenset((str, int, bool, type(None)))
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_AS_TEXT = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID)


class Json(bytes):
    """JSON text that another process has checked and written: it goes on as it is."""

    __slots__ = ()


def encode_value(value: object) -> bytes:
    """Return ``value`` as JSON.

    Accepts what JSON has, ``Json``, and dataclasses, enums, dates, UUIDs, pydantic models and msgspec
    structs; the last two write their fields their own way (msgspec: bytes as base64, sets as arrays).

    Raises:
        CallError: ``invalid_output``, naming the place, for NaN, bytes, cycles and anything else.
    """
    try:
        if type(value) is dict:
            # What nearly every item is: a flat object, which msgspec writes right as it is.  Looked at here
            # and by a loop, as it runs once per token: a call of it, or all(), takes twice as long.
            for key, item in value.items():
                if type(key) is not str or type(item) not in _PLAIN:
                    break
            else:
                return _encode(value)
        if type(value) is Json:
            return value
        if isinstance(value, msgspec.Struct):
            # A null may be a NaN that msgspec wrote so; only then is the slow look worth it.
            written = _encode(value)
            return written if b"null" not in written else _encode(to_plain(value))
        return _encode(to_plain(value))
    except UnicodeEncodeError as error:
        place = next(_surrogates(to_plain(value)), "")
        raise _refused(place, "text with a lone surrogate, which UTF-8 cannot carry") from error
    except RecursionError as error:
        raise _refused("", f"nested deeper than {MAX_DEPTH} (a cycle?)") from error


def to_plain(value: object, path: str = "", depth: int = 0) -> Any:
    """Return ``value`` rebuilt of dict, list, str, int, float, bool and None only.

    Raises:
        CallError: ``invalid_output``, naming the place.
    """
    if depth > MAX_DEPTH:
        raise _refused(path, f"nested deeper than {MAX_DEPTH} (a cycle?)")
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return _finite(value, path)
    if isinstance(value, Mapping):
        return {_key(key, path): to_plain(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    return to_plain(_unwrap(value, path), path, depth + 1)


def _finite(value: Any, path: str) -> float:
    if math.isfinite(value):
        return float(value)
    raise _refused(path, f"{value}, and JSON has no such number")


def _key(key: object, path: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return str(key)
    if key is None or isinstance(key, (bool, int)) or (isinstance(key, float) and math.isfinite(key)):
        return json.dumps(key)  # becomes text, as in the standard library
    raise _refused(path, f"a key of type {type(key).__name__}; JSON keys are text")


def _unwrap(value: Any, path: str) -> object:
    """Return one step of ``value`` towards plain data."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (*_AS_TEXT, msgspec.Struct)):
        return msgspec.to_builtins(value, enc_hook=to_plain)
    if isinstance(value, (str, int, float)):
        return _base_scalar(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return _dumped(value, path)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()  # a numpy or torch scalar
    raise _refused(path, f"of type {type(value).__name__}, which is not JSON")


def _dumped(model: Any, path: str) -> object:
    try:
        return model.model_dump(mode="json")
    except ValueError as error:  # pydantic's serialisation errors, and bytes that are not UTF-8
        raise _refused(path, f"a {type(model).__name__} that cannot be written: {error}") from error


def _base_scalar(value: str | int | float) -> str | int | float:
    """Strip a subclass (such as numpy.float64) down to the built-in it stands for."""
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    raise AssertionError(value)


def _surrogates(plain: Any, path: str = "") -> Iterator[str]:
    """Yield the places of text that UTF-8 cannot carry, in what ``to_plain`` returned."""
    if isinstance(plain, str) and _LONE_SURROGATE.search(plain):
        yield path
    elif isinstance(plain, dict):
        for key, item in plain.items():
            yield from _surrogates(key, f"{path}.{key}")
            yield from _surrogates(item, f"{path}.{key}")
    elif isinstance(plain, list):
        for index, item in enumerate(plain):
            yield from _surrogates(item, f"{path}[{index}]")


def _refused(path: str, what: str) -> CallError:
    where = f"the item's {path.lstrip('.')}" if path else "the item"
    return CallError(f"{where} is {what}", ErrorCode.INVALID_OUTPUT)


_encode = msgspec.json.Encoder(enc_hook=to_plain).encode  # the hook serves what a struct holds
