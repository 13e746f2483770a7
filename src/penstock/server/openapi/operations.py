"""What each route takes and answers, for machines; docs/protocol.md section 5 says the same for people."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from penstock.errors import FAULTS, ErrorCode

_EVERYWHERE = (
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.REQUEST_TIMEOUT,
    ErrorCode.TOO_LARGE,
    ErrorCode.URI_TOO_LONG,
    ErrorCode.HEADERS_TOO_LARGE,
    ErrorCode.INTERNAL,
    ErrorCode.NOT_IMPLEMENTED,
    ErrorCode.UNAVAILABLE,
)


_OF_RUNS = ("timeout", "idempotency_key")  # parameters


class Operation(NamedTuple):
    """One method of one route.

    Attributes:
        name: Its operationId.
        answer: The component that is answered; None for a stream and nothing else.
        body: The component it takes.
        frames: The component of what it streams, as NDJSON or SSE.
        parameters: The parameters it takes, besides those of every route.
        codes: What it can be refused with, or an answer end with, besides what every request can.
        probes: 503 has the body of 200, and nobody needs a key.
        texts: The media types of text that it answers with.
        about: More than the summary.
        tag: What it is shown among.
        openai: It answers OpenAI's clients, in their shapes; a stream is events, and ends with ``[DONE]``.
    """

    name: str
    summary: str
    answer: str | None
    body: str | None = None
    frames: str | None = None
    parameters: tuple[str, ...] = ()
    codes: tuple[ErrorCode, ...] = ()
    probes: bool = False
    texts: tuple[str, ...] = ()
    openai: bool = False
    about: str = ""
    tag: str = ""

    def at(self, parameter: str) -> Operation:
        """Return this operation with one parameter more."""
        return self._replace(parameters=(*self.parameters, parameter))

    def all_codes(self) -> dict[int, list[ErrorCode]]:
        """Return the codes by HTTP status, in the order of statuses."""
        codes = [code for code in FAULTS if code in _EVERYWHERE or code in self.codes]
        found: dict[int, list[ErrorCode]] = {}
        for code in sorted(codes, key=lambda code: FAULTS[code].http):
            found.setdefault(FAULTS[code].http, []).append(code)
        return found


def _run(name: str, summary: str, body: str, answer: str, frames: str) -> Operation:
    # An author's error may have any code, and the answer has its status.
    return Operation(
        name, summary, answer, body, frames, parameters=("timeout", "idempotency_key"), codes=tuple(FAULTS)
    )


def _run_v1(name: str, summary: str) -> Operation:
    return _run(name, summary, "Default", "Defaulted", "DefaultFrame")


def _probe(name: str, summary: str, answer: str = "Probe") -> Operation:
    return Operation(name, summary, answer, probes=True)


def _task(name: str, summary: str, answer: str) -> Operation:
    return Operation(name, summary, answer, parameters=("id",), codes=(ErrorCode.NOT_FOUND,))


_READ = Operation(
    "read_task",
    "The frames of a call, again, and those that come.",
    None,
    frames="Frame",
    parameters=("id", "after", "last_event_id"),
    codes=(ErrorCode.NOT_FOUND, ErrorCode.GONE),
)

COMMAND = "/v2/commands/{id}"
WORKFLOW = "/v2/workflows/{id}"
"""Where one command, or one workflow, is run; the document has a path for each that is served."""


def of_command(name: str, about: str) -> Operation:
    """Return the operation that runs a command; ``about`` is what its author says of it."""
    part = f"command.{name}"
    told = _run(part, _summary(about, name), f"{part}.request", f"{part}.answer", f"{part}.frame")
    return told._replace(about=about, tag="commands")


def of_workflow(name: str, about: str) -> Operation:
    """Return the operation that runs a workflow; ``about`` is what its author says of it."""
    part = f"workflow.{name}"
    told = _run(part, _summary(about, name), f"{part}.request", "Completed", "Frame")
    return told._replace(about=about, tag="workflows")


def _summary(about: str, name: str) -> str:
    first, _, _ = about.strip().partition("\n")
    return first or f"Run {name}."


_NATIVE: Mapping[tuple[str, str], Operation] = MappingProxyType(
    {
        ("POST", "/v2/execute"): _run("execute", "Run a command.", "Execute", "Executed", "ExecuteFrame"),
        ("POST", "/v2/workflow"): _run(
            "run_workflow", "Run a workflow, V2.", "Workflow", "Completed", "Frame"
        ),
        ("POST", COMMAND): _run(
            "run_command", "Run the command of this name.", "Body", "Completed", "Frame"
        ).at("name"),
        ("POST", WORKFLOW): _run("run_named_workflow", "Run this workflow.", "Body", "Completed", "Frame").at(
            "name"
        ),
        ("POST", "/predict"): _run(
            "predict", "Run the default command, V1.", "Default", "Defaulted", "DefaultFrame"
        ),
        ("POST", "/task"): _run_v1("task", "The same as /predict."),
        ("GET", "/v2/commands"): Operation("list_commands", "What can be called.", "Commands"),
        ("GET", "/openapi.json"): Operation("describe", "This document.", "OpenApi"),
        ("GET", "/asyncapi.json"): Operation("describe_sockets", "The WebSocket, as AsyncAPI.", "AsyncApi"),
        ("GET", "/health"): _probe("health", "How the server is.", "Health"),
        ("GET", "/livez"): _probe("livez", "200 unless the server has failed for good."),
        ("GET", "/readyz"): _probe("readyz", "200 while calls are accepted."),
        ("GET", "/startupz"): _probe("startupz", "200 once the project has started."),
        ("GET", "/metrics"): Operation(
            "metrics", "What has been counted.", None, texts=("text/plain", "application/openmetrics-text")
        ),
        ("GET", "/v2/kv"): Operation("show_kv", "The KV caches of engines, for admins.", "KvCaches"),
        ("GET", "/v2/kv/events"): Operation(
            "follow_kv",
            "What comes into a KV cache and leaves it, for admins.",
            None,
            frames="KvEvent",
            parameters=("engine", "after", "last_event_id"),
            codes=(ErrorCode.NOT_FOUND, ErrorCode.GONE),
        ),
        ("GET", "/tasks"): Operation("list_tasks", "The calls that are known, oldest first.", "Tasks"),
        ("GET", "/tasks/{id}"): _task("show_task", "One call.", "TaskRecord"),
        ("DELETE", "/tasks/{id}"): _task("delete_task", "Cancel a call.", "Cancel"),
        ("POST", "/tasks/{id}/cancel"): _task("cancel_task", "Cancel a call.", "Cancel"),
        ("GET", "/tasks/{id}/events"): _READ,
    }
)


def _openai(name: str, summary: str, shape: str, chunk: str | None = None) -> Operation:
    body, answer = f"OpenAI{shape}Body", f"OpenAI{shape}"
    return Operation(
        name,
        summary,
        answer,
        body,
        chunk,
        parameters=("timeout", "idempotency_key"),
        codes=tuple(FAULTS),
        openai=True,
    )


_OPENAI: Mapping[tuple[str, str], Operation] = MappingProxyType(
    {
        ("GET", "/v1/models"): Operation("list_models", "The models.", "OpenAIModels", openai=True),
        ("GET", "/v1/models/{id}"): Operation(
            "show_model",
            "One model.",
            "OpenAIModel",
            parameters=("name",),
            codes=(ErrorCode.NOT_FOUND,),
            openai=True,
        ),
        ("POST", "/v1/chat/completions"): _openai(
            "create_chat_completion", "Continue a conversation.", "Chat", "OpenAIChatChunk"
        ),
        ("POST", "/v1/completions"): _openai("create_completion", "Continue a text.", "Text", "OpenAIText"),
        ("POST", "/v1/embeddings"): _openai("create_embeddings", "Turn texts into vectors.", "Vectors"),
        ("POST", "/v1/responses"): _openai(
            "create_response", "Answer once, in OpenAI's newer way.", "Response", "OpenAIEvent"
        ),
    }
)

OPERATIONS: Mapping[tuple[str, str], Operation] = MappingProxyType({**_NATIVE, **_OPENAI})
"""By method and path; a route of the server that is not here fails a test."""


def _runner(name: str, summary: str, body: str | None = None) -> Operation:
    return Operation(name, summary, "Runner", body, parameters=("id",), codes=(ErrorCode.NOT_FOUND,))


GATEWAY_OPERATIONS: Mapping[tuple[str, str], Operation] = MappingProxyType(
    {
        ("GET", "/v2/runners"): Operation("list_runners", "The runners, for admins.", "Runners"),
        ("GET", "/v2/runners/{id}"): _runner("show_runner", "One runner."),
        ("DELETE", "/v2/runners/{id}"): _runner("remove_runner", "Send a runner away."),
        ("POST", "/v2/runners/{id}/drain"): _runner("drain_runner", "Give a runner no more calls."),
        ("DELETE", "/v2/runners/{id}/drain"): _runner("undrain_runner", "Give it calls again."),
        ("POST", "/v2/runners/{id}/weight"): _runner(
            "weigh_runner", "Give a runner another share of the calls.", "RunnerWeight"
        ),
    }
)
"""What a gateway answers besides; where its body is JSON, another type is unsupported_media_type."""
