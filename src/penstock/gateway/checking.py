"""What runners send is put into frames as it is: it must be JSON, on one line."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from penstock.errors import RemoteProtocolError

_parse = msgspec.json.Decoder(msgspec.Raw).decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_FAULTS = (msgspec.MsgspecError, ValueError, RecursionError)


def check_items(items: Sequence[bytes]) -> None:
    """See that each is one JSON text, and none would break a line.

    Raises:
        RemoteProtocolError: One is not, or would.
    """
    try:
        deque(map(_parse, items), maxlen=0)
        text = b"".join(items)
        text.decode()  # what parses ends with a whole character, so none is joined from two items
    except _FAULTS as error:
        raise RemoteProtocolError(f"an item is not JSON: {error}") from error
    if b"\n" in text or b"\r" in text:
        raise RemoteProtocolError("an item has a line break outside its strings")


def check_object(text: bytes) -> None:
    """See that it is a JSON object.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        _object(text)
    except _FAULTS as error:
        raise RemoteProtocolError(f"progress is not a JSON object: {error}") from error
    check_items([text])
