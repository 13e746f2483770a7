"""What a caller writes, as the request that travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.messages import OnDisconnect, Route, Start
from penstock.protocol.values import encode_value


class CallOptions(TypedDict, total=False):
    """What may be said of a call beside its input; told at ``AsyncClient.run``."""

    task_id: str | None
    timeout_s: float | None
    on_disconnect: object
    route: Route | Mapping[str, Any] | None
    correlation_id: str | None
    idempotency_key: str | None


class CommandOptions(CallOptions, total=False):
    """... of a command."""

    output_config: Mapping[str, Any] | None


class StreamOptions(CommandOptions, total=False):
    """... whose items are read as they come."""

    notes: bool
    more_input: bool


class Defaults(NamedTuple):
    """What a client says of calls that say nothing of it."""

    timeout_s: float | None
    on_disconnect: object


def start_of(
    defaults: Defaults,
    input: Mapping[str, Any],
    *,
    timeout_s: float | None,
    on_disconnect: object,
    route: Route | Mapping[str, Any] | None,
    **fields: Any,
) -> Start:
    """Return the request for a call.

    Args:
        defaults: What holds where the call says nothing.
        input: What it is given.
        timeout_s: Total budget, in seconds.
        on_disconnect: As it stands on the wire.
        route: Which runner of a gateway it is for.
        **fields: The others of a ``Start``.

    Raises:
        CallError: ``invalid_argument``: it cannot be written.
    """
    leaving = defaults.on_disconnect if on_disconnect is None else on_disconnect
    return Start(
        input=encode_input(input),
        timeout_s=defaults.timeout_s if timeout_s is None else timeout_s,
        on_disconnect=None if leaving is None else OnDisconnect.parse(leaving),
        route=read_route(route),
        **fields,
    )


def join_input(given: Mapping[str, Any] | None, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's input from a mapping and from keywords.

    Raises:
        TypeError: A name is in both.
    """
    given = given or {}
    if both := given.keys() & named.keys():
        raise TypeError(f"{', '.join(sorted(both))}: given in the input and as a keyword as well")
    return {**given, **named}


def encode_input(value: Any) -> bytes:
    """Return a call's input, or an item of it, as JSON: plain data, ``bytes`` as base64, dataclasses, enums,
    dates, UUIDs, pydantic models and msgspec structs.

    Raises:
        CallError: ``invalid_argument``, naming the place: what JSON cannot say, such as NaN.
    """
    try:
        return encode_value(msgspec.to_builtins(value, enc_hook=_dump, str_keys=True))
    except (CallError, TypeError, ValueError, RecursionError) as error:
        raise CallError(f"the input cannot be sent: {error}", ErrorCode.INVALID_ARGUMENT) from error


def read_route(given: Route | Mapping[str, Any] | None) -> Route | None:
    """Return for which runner of a gateway a call is.

    Raises:
        CallError: ``invalid_argument``; it has other parts than ``labels`` and ``sticky``, or of other kinds.
    """
    if given is None or isinstance(given, Route):
        return given
    try:
        if unknown := sorted(map(str, given.keys() - {"labels", "sticky"})):
            raise ValueError(f"it has no {', '.join(unknown)[:80]}")
        return msgspec.convert(dict(given), Route)
    except ValueError as error:
        what = 'is {"labels": {name: value}, "sticky": key}, each optional'
        raise CallError(f"route {what}: {error}", ErrorCode.INVALID_ARGUMENT) from error


def no_key() -> CallError:
    """Return the refusal of an idempotency key by a way in that has none."""
    text = "an idempotency_key travels over HTTP only; give the client the server's http URL"
    return CallError(text, ErrorCode.NOT_IMPLEMENTED)


def fields_of(start: Start) -> dict[str, Any]:
    """Return ``start`` as the body of `POST /v2/execute` or `/v2/workflow`; what is not set is left out."""
    named = {"command": start.command} if start.workflow_id is None else {"workflow_id": start.workflow_id}
    fields: dict[str, Any] = {**named, "input": msgspec.Raw(start.input)}
    if start.output_config:
        fields["output_config"] = start.output_config
    fields["is_stream"] = start.is_stream
    if start.task_id is not None:
        fields["task_id"] = start.task_id
    if start.notes:
        fields["notes"] = True
    if start.on_disconnect is not None:
        grace_s = start.on_disconnect.grace_s
        fields["on_disconnect"] = "continue" if grace_s is None else {"grace_s": grace_s}
    if start.timeout_s is not None:
        fields["timeout"] = start.timeout_s
    if start.route is not None:
        fields["route"] = start.route
    return fields


def _dump(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")
