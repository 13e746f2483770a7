"""The bare gRPC server: a bidirectional stream, whose messages are read, parsed and counted."""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import Any

import grpc
import uvloop
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from grpc import aio
from hosting import pin_to_core, say_ready

ITEMS = 256
Said, Told = service_pb2.PostRunnerItemOutputsRequest, service_pb2.MultiRunnerItemResponse


def work() -> Told:
    """Return an item to be streamed."""
    told = Told()
    told.status.code = codes.SUCCESS
    item = told.runner_items.add(id=uuid.uuid4().hex)
    item.processing_info.runner_method_type = resources_pb2.RunnerMethodType.UNARY_STREAMING
    given = item.post_model_outputs_request.inputs.add().data
    given.metadata.update({"_method_name": "generate"})
    given.parts.add(id="prompt").data.string_value = "hello"
    return told


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every RPC alike."""

    def service(self, _: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(
            self.serve, request_deserializer=Said.FromString, response_serializer=Told.SerializeToString
        )

    async def serve(self, _: Any, context: Any) -> None:
        """Give an item, and read what comes."""
        await context.send_initial_metadata(())
        await context.read()
        await context.write(work())
        count = 0
        while (message := await context.read()) is not aio.EOF:
            assert message.status.code == codes.SUCCESS
            count += 1
        if count != ITEMS and not context.cancelled():
            sys.stderr.write(f"{count} messages came, not {ITEMS}\n")


async def serve() -> None:
    """Serve until it is told to stop."""
    server = aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say_ready(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    pin_to_core()
    uvloop.run(serve())
