"""`GET /asyncapi.json`: the WebSocket as an AsyncAPI 3 document, made of what the OpenAPI document is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.protocol.codec import JSON_TYPE
from penstock.protocol.dispatch import Description
from penstock.server.asyncapi.messages import Asked, asked, control_schemas, draft_7, told
from penstock.server.openapi.schemas import Schema, static_schemas
from penstock.server.openapi.served import served_schemas

_ABOUT = (
    "Commands and workflows of this project, over a WebSocket: many calls at a time, told apart by task_id. "
    "Frames of one call come in order. What this document cannot say stands in section 7 of the protocol "
    "page of penstock."
)
_KEYS: Mapping[str, Schema] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "Browsers say it as one of two subprotocols, penstock and bearer.KEY.",
    },
    "key": {"type": "httpApiKey", "in": "header", "name": "X-API-Key"},
}
_BINDINGS: Schema = {"ws": {"method": "GET", "bindingVersion": "0.1.0"}}
_CALL: Schema = {"location": "$message.payload#/task_id", "description": "The call that it is about."}


def async_document(
    description: Description,
    sockets: Iterable[str],
    *,
    host: str | None = None,
    is_secure: bool = False,
    needs_key: bool = False,
) -> dict[str, Any]:
    """Return the document of what is served.

    Args:
        description: Commands and workflows; none while the project loads.
        sockets: Their paths, which all speak the same; the last one is that of the operations.
        host: Where the server is, as the client called it.
        is_secure: Whether it was reached by TLS.
        needs_key: Whether who asks needs a key.
    """
    channels = {_channel(path): path for path in sockets}
    channel = list(channels)[-1]
    sent = list(asked(description))
    messages = {each.name: _message(each.name, each.summary, each.payload) for each in sent}
    messages |= {name: _message(name, summary, payload) for name, summary, payload in told(description)}
    listed = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
    schemas = {
        **static_schemas(),
        **served_schemas(description),
        **control_schemas(),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": description.name, "version": description.version, "description": _ABOUT},
        "defaultContentType": JSON_TYPE,
        **({} if host is None else {"servers": {"here": _server(host, is_secure, needs_key)}}),
        "channels": {
            name: {"address": path, "messages": listed, "bindings": _BINDINGS}
            for name, path in channels.items()
        },
        "operations": {each.name: _operation(each, channel) for each in sent},
        "components": {
            "messages": messages,
            "schemas": {name: draft_7(schema) for name, schema in schemas.items()},
            **({"securitySchemes": _KEYS} if needs_key else {}),
        },
    }


def _channel(path: str) -> str:
    return path.strip("/").replace("/", ".")


def _server(host: str, is_secure: bool, needs_key: bool) -> Schema:
    keys = {"security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _KEYS]}
    return {"host": host, "protocol": "wss" if is_secure else "ws", **(keys if needs_key else {})}


def _message(name: str, summary: str, payload: Schema) -> Schema:
    about = {} if name in ("ping", "pong") else {"correlationId": _CALL}
    return {"name": name, "summary": summary, "contentType": JSON_TYPE, **about, "payload": draft_7(payload)}


def _operation(each: Asked, channel: str) -> Schema:
    place = f"#/channels/{channel}"

    def named(names: Iterable[str]) -> list[Schema]:
        return [{"$ref": f"{place}/messages/{name}"} for name in names]

    return {
        "action": "receive",
        "channel": {"$ref": place},
        "summary": each.summary,
        "messages": named((each.name,)),
        "reply": {"channel": {"$ref": place}, "messages": named(each.replies)},
    }
