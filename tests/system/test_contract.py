"""What a served project answers is what its OpenAPI document says, for requests that fit it and others.

Requests are made from the document by schemathesis, and sent to `penstock run`.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cli.processes import Server, started
from penstock.errors import FAULTS, ErrorCode
from penstock.protocol.call import Call
from penstock.protocol.codec import NDJSON_TYPE, SSE_TYPE, NdjsonDecoder, SseDecoder
from penstock.protocol.messages import decode_frame
from penstock.server.openapi.operations import COMMAND, OPERATIONS, WORKFLOW, Operation

EXAMPLES = 20
OF_EACH_COMMAND = 8  # as many more for the route that runs any of them
LOOKED_AT = 5  # frames at both ends of a stream
WAIT_S = 20.0
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
schemathesis.openapi.format("base64url", st.binary(max_size=40).map(urlsafe_b64encode).map(bytes.decode))
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
HAS_NOTHING_TO_GET_WRONG = {
    key for key, operation in OPERATIONS.items() if operation.body is None and not operation.parameters
}

MANIFEST = """
name: zoo
version: 1.0.0
default_command: ticker
commands:
  silent: {timeouts: {total_s: 0.05}}
  late_yield_after_cancel: {timeouts: {total_s: 0.1}}
  ticker: {timeouts: {total_s: 0.05}}
  raise_at: {timeouts: {total_s: 0.05}}
workflows:
  open: {steps: [{id: a, command: echo, input: {value: "${input}"}}]}
  typed:
    input_schema: {type: object, required: [n], properties: {n: {type: integer, minimum: 0, maximum: 5}}}
    steps: [{id: a, command: ticker, input: {n: "${input.n}"}}, {id: b, command: raise_at, input: {k: 1}}]
"""
PROJECT = """
import datetime
import enum
from typing import Annotated, Literal, Optional, Union

from pydantic import BaseModel, Field

from penstock import CommandError, Runtime
from penstock.testing import model_zoo

rt = Runtime("manifest.yml")
model_zoo(rt).release()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: Annotated[float, Field(gt=0, le=1e9)]


class Group(BaseModel):
    kind: Literal["group"]
    shapes: Annotated[list["Shape"], Field(max_length=3)]


Shape = Annotated[Union[Circle, Group], Field(discriminator="kind")]


@rt.command("draw")
def draw(shape: Group, colour: Colour = Colour.RED, name: Optional[str] = None) -> Group:
    return shape


@rt.streaming_command("dates")
def dates(first: datetime.date, days: Annotated[int, Field(ge=0, le=3)] = 1, tags: dict[str, int] = {}):
    for _ in range(days):
        yield {"date": first, "tags": tags}


@rt.command("length")
async def length(data: bytes, pair: tuple[int, str] = (0, "")) -> int:
    return len(data)


@rt.command("refuse")
async def refuse(code: str) -> None:
    raise CommandError("as asked", code if code in ("gone", "not_found", "cancelled") else None)


@rt.streaming_command("talk", openai="chat", model="talker")
async def talk(
    messages: list[dict],
    max_tokens: Optional[int] = None,
    tools: Optional[list[dict]] = None,
    tool_choice: Union[str, dict, None] = None,
    response_format: Optional[dict] = None,
    stop: Union[str, list[str], None] = None,
):
    for message in messages[:3]:
        yield str(message.get("content"))


@rt.command("go_on", openai="completion")
async def go_on(prompt: str, stop: Union[str, list[str], None] = None) -> str:
    return prompt[::-1]


@rt.command("embed", openai="embeddings")
async def embed(input: list[str], dimensions: Optional[int] = None) -> list[list[float]]:
    return [[float(len(text)), 0.5] for text in input]


@rt.command("nan")
async def nan() -> float:
    return float("nan")
"""


@dataclass(frozen=True)
class Contract:
    """A server, and what it says of itself."""

    url: str
    spec: dict[str, Any]
    schema: Any
    session: requests.Session = field(default_factory=requests.Session)

    def operation(self, method: str, path: str) -> Any:
        return self.schema[path][method]

    def examples(self, path: str) -> int:
        """Return how many requests to try."""
        commands = [name for name in self.spec["components"]["schemas"] if name.endswith(".body")]
        return EXAMPLES + (OF_EACH_COMMAND * len(commands) if path == "/v2/execute" else 0)

    def item(self, method: str, path: str, kind: str) -> Draft202012Validator:
        """Return what checks the frames of a stream."""
        content = self.spec["paths"][path][method.lower()]["responses"]["200"]["content"]
        item = content[kind]["x-itemSchema"]
        frame = item["properties"]["data"]["contentSchema"] if kind == SSE_TYPE else item
        return Draft202012Validator({**frame, "components": self.spec["components"]})


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    folder: Path = tmp_path_factory.mktemp("zoo")
    (folder / "manifest.yml").write_text(MANIFEST + "entrypoint: run.py\n")
    (folder / "run.py").write_text(PROJECT)
    with started("run", folder, "--port", 0) as process:
        url = Server(process).url
        spec = httpx.get(f"{url}/openapi.json").json()
        for task_id, command in (("done", "ticker"), ("failed", "raise_at"), ("cut", "silent")):
            httpx.post(f"{url}/v2/execute", json={"command": command, "task_id": task_id, "input": {}})
        contract = Contract(url, spec, schemathesis.openapi.from_dict(spec))
        with contract.session:
            yield contract
        assert process.poll() is None, "the server did not survive"


def examples(count: int) -> Any:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example]
    phases = (Phase.generate, Phase.shrink)
    return settings(
        max_examples=count, deadline=None, suppress_health_check=checks, database=None, phases=phases
    )


def ask(contract: Contract, case: Any, accept: str | None) -> requests.Response:
    """Send a request; check what holds for every answer."""
    assume(
        not (isinstance(case.body, dict) and case.body.get("command") == "flood")
    )  # of any size, it may be
    headers = {} if accept is None else {"Accept": accept}
    # Not by its own call(), which reads no more than the first events of a stream.
    request = case.as_transport_kwargs(base_url=contract.url, headers=headers)
    response = contract.session.request(**request, timeout=WAIT_S)
    case.validate_response(response, checks=CHECKS)
    status, kind = response.status_code, response.headers["content-type"]
    if kind in (NDJSON_TYPE, SSE_TYPE):
        check_stream(contract, case, kind, response.content)
    elif status >= 400 and not (status == 503 and "/" + case.path.strip("/") in PROBES):
        fault = msgspec.json.decode(response.content)
        if operation_at(case.method, case.operation.path).openai:
            fault = {"error": fault["error"]["message"], "code": fault["error"]["code"]}
        assert FAULTS[ErrorCode(fault.get("code", "cancelled"))].http == status
        assert "Traceback" not in fault.get("error", "")
    return response


def operation_at(method: str, path: str) -> Operation:
    """Return what is known of a path; those of commands and workflows are known together."""
    for place in (COMMAND, WORKFLOW):
        if path.startswith(place.removesuffix("{id}")):
            return OPERATIONS[method, place]
    return OPERATIONS[method, path]


PROBES = {path for (_, path), operation in OPERATIONS.items() if operation.probes}


def check_stream(contract: Contract, case: Any, kind: str, content: bytes) -> None:
    frames = (
        NdjsonDecoder().feed(content) if kind == NDJSON_TYPE else [e.data for e in SseDecoder().feed(content)]
    )
    item = contract.item(case.method, case.path, kind)
    if operation_at(case.method, case.path).openai:
        check_openai_stream(item, frames)
        return
    for frame in (*frames[:LOOKED_AT], *frames[LOOKED_AT:][-LOOKED_AT:]):
        item.validate(msgspec.json.decode(frame))
    if frames and decode_frame(frames[0]).seq == 0:
        call = Call()
        for frame in frames:
            call.observe(decode_frame(frame))
        assert call.state.terminal


def check_openai_stream(item: Draft202012Validator, events: list[bytes]) -> None:
    """A stream of OpenAI's ends with its own word, or says what went wrong."""
    *chunks, last = events
    for chunk in (*chunks[:LOOKED_AT], *chunks[LOOKED_AT:][-LOOKED_AT:]):
        item.validate(msgspec.json.decode(chunk))
    ended = ("response.completed", "response.incomplete", "response.failed")
    assert last == b"[DONE]" or "error" in (told := msgspec.json.decode(last)) or told["type"] in ended


OWN = [COMMAND.replace("{id}", name) for name in ("draw", "dates", "length", "refuse", "ticker", "nan")]
OWN += [WORKFLOW.replace("{id}", name) for name in ("open", "typed")]
PLACES = sorted({*OPERATIONS, *(("POST", path) for path in OWN)} - {("POST", COMMAND), ("POST", WORKFLOW)})
KEYS = [pytest.param(*key, id=" ".join(key)) for key in PLACES]


@pytest.mark.parametrize(("method", "path"), KEYS)
def test_requests_that_fit_are_taken(contract: Contract, method: str, path: str) -> None:
    cases = contract.operation(method, path).as_strategy(POSITIVE)

    @examples(contract.examples(path))
    @given(
        cases,
        st.sampled_from([None, NDJSON_TYPE, SSE_TYPE]),
        st.sampled_from(["done", "failed", "cut", None]),
    )
    def try_one(case: Any, accept: str | None, task_id: str | None) -> None:
        if "id" in case.path_parameters and task_id is not None:
            case.path_parameters["id"] = task_id
        response = ask(contract, case, accept)
        if operation_at(method, path).body is not None:
            assert response.status_code not in (400, 404, 413, 415), response.text

    try_one()


@pytest.mark.parametrize(("method", "path"), [key for key in PLACES if key not in HAS_NOTHING_TO_GET_WRONG])
def test_requests_that_do_not_fit_are_answered_in_form(contract: Contract, method: str, path: str) -> None:
    @examples(contract.examples(path))
    @given(
        contract.operation(method, path).as_strategy(NEGATIVE), st.sampled_from([None, NDJSON_TYPE, SSE_TYPE])
    )
    def try_one(case: Any, accept: str | None) -> None:
        ask(contract, case, accept)

    try_one()
