"""`GET /openapi.json`: the routes and the commands as one OpenAPI 3.1 document.

OpenAPI 3.1 has no word for streams: what their lines and events hold stands under `x-itemSchema`, in the form
that OpenAPI 3.2 gives to `itemSchema`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penstock.errors import FAULTS, ErrorCode
from penstock.protocol.codec import JSON_TYPE, NDJSON_TYPE, SSE_TYPE
from penstock.protocol.dispatch import Description
from penstock.protocol.messages import MAX_TIMEOUT_S
from penstock.server.once import MAX_KEY
from penstock.server.openapi.kv_schemas import kv_schemas
from penstock.server.openapi.openai_schemas import openai_envelope, openai_schemas
from penstock.server.openapi.operations import (
    COMMAND,
    GATEWAY_OPERATIONS,
    OPERATIONS,
    WORKFLOW,
    Operation,
    of_command,
    of_workflow,
)
from penstock.server.openapi.schemas import (
    RUNNER_SCHEMAS,
    TASK_NAME,
    Schema,
    either,
    envelope,
    record,
    ref,
    static_schemas,
)
from penstock.server.openapi.served import served_schemas

_ABOUT = (
    "Commands and workflows of this project, over HTTP. Every route that takes GET takes HEAD; any other "
    "path is not_found, any other method method_not_allowed. What OpenAPI cannot say, such as the order of "
    "frames and the WebSocket at /ws, stands in the protocol page of penstock."
)


def document(
    description: Description, routes: Iterable[tuple[str, str]], *, needs_key: bool = False
) -> dict[str, Any]:
    """Return the document of what is served.

    Args:
        description: Commands and workflows; none while the project loads.
        routes: Method and path of each route.
        needs_key: Whether who asks needs a key.

    Raises:
        KeyError: A route of which neither ``OPERATIONS`` nor ``GATEWAY_OPERATIONS`` knows.
    """
    secured: dict[str, Any] = {"security": [{name: []} for name in _KEYS]} if needs_key else {}
    paths: dict[str, dict[str, Any]] = {}
    for method, path in routes:
        for place, operation in _operations(method, path, description):
            paths.setdefault(place, {})[method.lower()] = _operation(place, operation, needs_key)
    used = {tag for item in paths.values() for told in item.values() for tag in told["tags"]}
    return {
        "openapi": "3.1.1",
        "info": {"title": description.name, "version": description.version, "description": _ABOUT},
        **secured,
        "tags": [{"name": tag, "description": about} for tag, about in _TAGS.items() if tag in used],
        "paths": paths,
        "components": {
            "schemas": {
                **static_schemas(),
                **kv_schemas(),
                **openai_schemas(description),
                **(RUNNER_SCHEMAS if "/v2/runners" in paths else {}),
                **served_schemas(description),
            },
            "parameters": _parameters(),
            "headers": _HEADERS,
            **({"securitySchemes": _KEYS} if needs_key else {}),
        },
    }


_TAGS: Mapping[str, str] = {
    "commands": "Each command, by its name.",
    "workflows": "Each workflow, by its name.",
    "running": "Any of them, named in the body.",
    "calls": "What runs, and what ran.",
    "models": "For clients of OpenAI's API.",
    "runners": "The runners of a gateway.",
    "server": "The server itself.",
}
"""What operations are shown among, in this order."""
_PARTS: Mapping[str, str] = {
    "/tasks": "calls",
    **dict.fromkeys(("/v2/commands/", "/v2/execute", "/v2/workflow", "/predict", "/task"), "running"),
    "/v1/": "models",
    "/v2/runners": "runners",
    "/": "server",
}
"""Which of these a path is shown among: that of the first beginning."""
_KNOWN = {**OPERATIONS, **GATEWAY_OPERATIONS}


def _operations(method: str, path: str, description: Description) -> Iterator[tuple[str, Operation]]:
    """Yield the paths of a route, and what each does: what is served has paths of its own."""
    if path == COMMAND and description.commands:
        for name, command in description.commands.items():
            yield path.replace("{id}", name), of_command(name, command.description)
    elif path == WORKFLOW and description.workflows:
        for name, workflow in description.workflows.items():
            yield path.replace("{id}", name), of_workflow(name, workflow.description or "")
    else:
        yield path, _KNOWN[method, path]


# -- operations ----------------------------------------------------------------------------------------

_HEADERS: Mapping[str, Schema] = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "The one sent, or one made up."},
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."},
    "WWW-Authenticate": {"schema": {"const": "Bearer"}, "description": "What key to send."},
}
_KEYS: Mapping[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def _parameters() -> dict[str, Schema]:
    # The header is read as digits and a point; smaller numbers are often written with an exponent.
    seconds = {"type": "number", "minimum": 0.001, "maximum": MAX_TIMEOUT_S}
    cursor = {"type": "integer", "minimum": -1, "maximum": 10**15 - 1}
    correlation = {"type": "string", "maxLength": 128}
    key = {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!-~]+$"}
    return {
        "request_id": {"name": "X-Request-Id", "in": "header", "schema": correlation},
        "idempotency_key": {"name": "Idempotency-Key", "in": "header", "schema": key},
        "timeout": {"name": "X-Request-Timeout", "in": "header", "schema": seconds},
        "id": {"name": "id", "in": "path", "required": True, "schema": TASK_NAME},
        "name": {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
        "engine": {"name": "engine", "in": "query", "schema": {"type": "string"}},
        "after": {"name": "after", "in": "query", "schema": cursor},
        "last_event_id": {"name": "Last-Event-ID", "in": "header", "schema": cursor},
    }


def _tag_of(path: str) -> str:
    return next(tag for start, tag in _PARTS.items() if path.startswith(start))


def _operation(path: str, operation: Operation, needs_key: bool) -> dict[str, Any]:
    answers: dict[str, Schema] = {"200": _response("It went well.", _contents(operation))}
    for status, codes in operation.all_codes().items():
        answers[str(status)] = _refusal(operation, status, codes)
    names = ("request_id", *operation.parameters)
    told: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    if operation.about not in ("", operation.summary):
        told["description"] = operation.about
    told["tags"] = [operation.tag or _tag_of(path)]
    told["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": ref(operation.body)}}}
    if needs_key and operation.probes:
        told["security"] = []
    return {**told, "responses": answers}


def _contents(operation: Operation) -> dict[str, Schema]:
    contents: dict[str, Schema] = {}
    if operation.answer is not None:
        contents[JSON_TYPE] = {"schema": ref(operation.answer)}
    for kind in operation.texts:
        contents[kind] = {"schema": {"type": "string"}}
    if operation.frames is not None:
        frame = ref(operation.frames)
        data = {"type": "string", "contentMediaType": JSON_TYPE, "contentSchema": frame}
        if operation.openai:
            contents[SSE_TYPE] = {"x-itemSchema": record({"data": data})}
            return contents
        contents[NDJSON_TYPE] = {"x-itemSchema": either((frame, ref("Keepalive")))}
        contents[SSE_TYPE] = {"x-itemSchema": record({"data": data, "id": {"type": "string"}}, "data")}
    return contents


def _refusal(operation: Operation, status: int, codes: list[ErrorCode]) -> Schema:
    said = ", ".join(code.value for code in codes)
    shown: list[Schema] = [openai_envelope(codes) if operation.openai else envelope(codes)]
    if operation.probes and status == 503:
        shown.append(ref(operation.answer or ""))
    if ErrorCode.CANCELLED in codes and not operation.openai:
        shown.append(ref("Cancelled"))
    headers = ("Retry-After",) if any(FAULTS[code].retryable for code in codes) else ()
    if ErrorCode.UNAUTHENTICATED in codes:
        headers = ("WWW-Authenticate",)
    return _response(said, {JSON_TYPE: {"schema": either(shown)}}, *headers)


def _response(said: str, content: Mapping[str, Schema], *headers: str) -> dict[str, Any]:
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *headers)}
    return {"description": said, "headers": named, "content": dict(content)}
