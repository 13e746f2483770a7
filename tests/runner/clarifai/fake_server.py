"""A server of Clarifai's runners, written from the published protos: it says what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import grpc
import grpc.aio
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from google.protobuf import json_format

WAIT_S = 10
METHOD = "ProcessRunnerItems"
Said = service_pb2.PostRunnerItemOutputsRequest
Answer = service_pb2.MultiRunnerItemResponse

UNARY, GENERATE, STREAM = (
    resources_pb2.UNARY_UNARY,
    resources_pb2.UNARY_STREAMING,
    resources_pb2.STREAMING_STREAMING,
)


def success(*items: service_pb2.RunnerItem, req_id: str = "") -> Answer:
    """Return a message that hands items over."""
    answer = Answer(runner_items=list(items))
    answer.status.code = codes.SUCCESS
    answer.status.req_id = req_id
    return answer


def status(code: int, description: str = "") -> Answer:
    """Return a message that is a status only."""
    answer = Answer()
    answer.status.code = code
    answer.status.description = description
    return answer


def item(item_id: str, method: str, method_type: int = UNARY, /, **arguments: Any) -> service_pb2.RunnerItem:
    """Return an item that calls a method."""
    made = service_pb2.RunnerItem(id=item_id)
    made.processing_info.runner_method_type = method_type
    made.post_model_outputs_request.inputs.append(given(method, **arguments))
    return made


def given(method: str, /, **arguments: Any) -> resources_pb2.Input:
    """Return an input of a method."""
    made = resources_pb2.Input()
    if method:
        made.data.metadata["_method_name"] = method
    for name, value in arguments.items():
        part = made.data.parts.add(id=name)
        if isinstance(value, bool):
            part.data.bool_value = value
        elif isinstance(value, int):
            part.data.int_value = value
        elif isinstance(value, float):
            part.data.float_value = value
        else:
            part.data.string_value = value
    return made


def cancel(item_id: str) -> Answer:
    """Return the message that cancels an item."""
    made = service_pb2.RunnerItem(id=item_id)
    made.processing_info.status.code = codes.RUNNER_ITEM_CANCELLED
    return success(made)


def text_of(said: Said) -> list[str]:
    """Return the strings in an output."""
    outputs = said.runner_item_outputs[0].multi_output_response.outputs
    return [part.data.string_value for output in outputs for part in output.data.parts]


def response_of(said: Said) -> service_pb2.MultiOutputResponse:
    """Return what an output says."""
    assert len(said.runner_item_outputs) == 1
    response: service_pb2.MultiOutputResponse = said.runner_item_outputs[0].multi_output_response
    return response


class Visit:
    """One stream of a runner, behind its hello."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.metadata = dict(context.invocation_metadata())
        self.said: asyncio.Queue[Said | None] = asyncio.Queue()
        self.hello = Said()
        self.over = asyncio.Event()
        """Set by the test: the server ends the stream."""
        self.gone = asyncio.Event()
        """Set when the stream has ended."""
        self.code: grpc.StatusCode | None = None

    @property
    def control(self) -> bool:
        """Whether it is for cancels."""
        return self.hello.runner_id.startswith("control-")

    async def say(self, *answers: Answer) -> None:
        """Send messages."""
        for answer in answers:
            await self.context.write(answer)

    async def hear(self) -> Said:
        """Return the next message; it must come."""
        with anyio.fail_after(WAIT_S):
            said = await self.said.get()
        assert said is not None, "it was half-closed"
        return said

    async def hear_all(self) -> list[Said]:
        """Return what comes until the stream is half-closed."""
        heard = []
        with anyio.fail_after(WAIT_S):
            while (said := await self.said.get()) is not None:
                heard.append(said)
        return heard

    def end(self, code: grpc.StatusCode | None = None) -> None:
        """End the stream; without a code in good order."""
        self.code = code
        self.over.set()

    async def ended(self) -> None:
        """Return when the stream has ended."""
        with anyio.fail_after(WAIT_S):
            await self.gone.wait()

    async def ask(self, answer: Answer) -> list[Said]:
        """Send a message, and return what comes of it, to the end."""
        await self.say(answer)
        heard = await self.hear_all()
        self.end()
        return heard


class FakeServer:
    """Takes one stream after the other.

    Args:
        headers: Whether they are sent at once, or with the first message only.
        more: Further RPCs, by name.
    """

    def __init__(self, *, headers: bool = True, more: dict[str, grpc.RpcMethodHandler] | None = None) -> None:
        self.headers = headers
        self._more = more or {}
        self.reads = True
        self.work: asyncio.Queue[Visit] = asyncio.Queue()
        self.controls: asyncio.Queue[Visit] = asyncio.Queue()
        self.visits: list[Visit] = []
        self.refuse: grpc.StatusCode | None = None
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listen."""
        server = self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(
            self._take,
            request_deserializer=Said.FromString,
            response_serializer=Answer.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("clarifai.api.V2", {METHOD: handler, **self._more}),)
        )
        where = f"127.0.0.1:{port}"
        self.port = (
            server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
        )
        await server.start()

    async def stop(self, grace_s: float | None = None) -> None:
        """Stop listening, and end every stream."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    async def visit(self) -> Visit:
        """Return the next stream for work."""
        with anyio.fail_after(WAIT_S):
            while True:
                visit = await self.work.get()
                if not visit.gone.is_set():
                    return visit

    async def control(self) -> Visit:
        """Return the next control stream."""
        with anyio.fail_after(WAIT_S):
            return await self.controls.get()

    async def _take(self, _: Any, context: Any) -> None:
        visit = Visit(context)
        try:
            if self.refuse is not None:
                await context.abort(self.refuse, "not now")
            if self.headers:
                await context.send_initial_metadata((("x-server", "fake"),))
            await self._serve(visit, context)
        finally:
            visit.said.put_nowait(None)
            visit.gone.set()

    async def _serve(self, visit: Visit, context: Any) -> None:
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        visit.hello = first
        self.visits.append(visit)
        (self.controls if visit.control else self.work).put_nowait(visit)
        async with anyio.create_task_group() as group:
            if self.reads or visit.control:
                group.start_soon(self._read, visit, context)
            await visit.over.wait()
            group.cancel_scope.cancel()
        if visit.code is not None:
            await context.abort(visit.code, "so says the test")

    async def _read(self, visit: Visit, context: Any) -> None:
        while (said := await context.read()) is not grpc.aio.EOF:
            visit.said.put_nowait(said)
        visit.said.put_nowait(None)


@asynccontextmanager
async def fake_server(
    *, headers: bool = True, more: dict[str, grpc.RpcMethodHandler] | None = None
) -> AsyncIterator[FakeServer]:
    """A server on a real socket."""
    server = FakeServer(headers=headers, more=more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def plain(message: Any) -> dict[str, Any]:
    """Return a message as a trace has it."""
    made: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return made
