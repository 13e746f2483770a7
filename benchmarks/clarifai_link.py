"""The load of Clarifai's link: a runner on threads, as Clarifai's own is, that streams what it is asked for.

Each thread keeps one data stream open, yields its messages when an item comes, and closes its side; that
stream has to end with OK.  Who serves it gets the same bytes, whether that is a gateway or the bare server.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from load import CpuMeter, Tally, WrongAnswer, arguments, now, summary, tell

from penstock.protocol.clarifai.signatures import write_signatures

PATH = "/clarifai.api.V2/ProcessRunnerItems"
NO_ID = "0" * 32
PATIENCE_S = 30.0
Said, Told = service_pb2.PostRunnerItemOutputsRequest, service_pb2.MultiRunnerItemResponse


def said(item_id: str = "") -> Any:
    """Return what goes with every message of a runner."""
    found = Said(runner_id="bench", compute_cluster_id="cc", nodepool_id="np", runner_item_id=item_id)
    found.user_app_id.user_id = "u"
    return found


def hello() -> bytes:
    """Return what opens a stream."""
    found = said()
    found.runner_replica_id = "bench"
    found.status.code = codes.RUNNER_STREAM_START
    return bytes(found.SerializeToString())


def output(text: str, item_id: str, *, of_model: bool = True) -> bytes:
    """Return an output of an item, as a part or, of the runner's own, as raw text."""
    found = said(item_id)
    found.status.code = codes.SUCCESS
    found.status.description = "Success"
    response = found.runner_item_outputs.add().multi_output_response
    response.status.code = codes.SUCCESS
    one = response.outputs.add()
    one.status.code = codes.SUCCESS
    if of_model:
        one.data.parts.add(id="return").data.string_value = text
    else:
        one.data.text.raw = text
    return bytes(found.SerializeToString())


def signatures() -> str:
    """Return what the model says of its one method."""
    method = resources_pb2.MethodSignature(
        name="generate", method_type=resources_pb2.RunnerMethodType.UNARY_STREAMING
    )
    text = resources_pb2.ModelTypeField.DataType.STR
    method.input_fields.add(name="prompt", type=text, required=True)
    method.output_fields.add(name="return", type=text, iterator=True)
    return write_signatures([method])


class Thread(threading.Thread):
    """One thread of the runner.

    Args:
        channel: To the server.
        items: Messages of an item.
        tally: What was sent is counted there.
    """

    def __init__(self, channel: Any, items: int, tally: Tally) -> None:
        super().__init__(daemon=True)
        self._open = channel.stream_stream(PATH)
        self._items = items
        self._tally = tally
        self._output = output("token ", NO_ID)
        self._idle: Any = None  # the stream that waits for an item
        self.stopping = False
        self.fault: str | None = None

    def stop(self) -> None:
        """Finish the item that is under way, and begin no other."""
        self.stopping = True
        if self._idle is not None:
            self._idle.cancel()

    def run(self) -> None:
        try:
            while not self.stopping:
                self._serve()
        except (grpc.RpcError, WrongAnswer) as error:
            if not self.stopping:
                self.fault = repr(error)

    def _serve(self) -> None:
        given: SimpleQueue[Any] = SimpleQueue()
        began = now()
        call = self._idle = self._open(self._say(given))
        for data in call:
            told = Told.FromString(data)
            if told.runner_items:
                self._idle = None
                self._tally.first_item_s.append(now() - began)
                given.put(told.runner_items[0])
        if call.code() is not grpc.StatusCode.OK:
            raise WrongAnswer(f"a stream ended with {call.code()}")
        self._tally.requests += 1
        self._tally.total_s.append(now() - began)

    def _say(self, given: SimpleQueue[Any]) -> Iterator[bytes]:
        yield hello()
        item = given.get()
        request = item.post_model_outputs_request
        if request.inputs[0].data.metadata["_method_name"] == "_GET_SIGNATURES":
            yield output(signatures(), item.id, of_model=False)
            return
        message = self._output.replace(NO_ID.encode(), item.id.encode())
        for _ in range(self._items):
            self._tally.items += 1
            yield message


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the load."""
    tally, cpu = Tally(), CpuMeter(args.server_pid)
    with grpc.insecure_channel(f"127.0.0.1:{args.port}") as channel:
        threads = [Thread(channel, args.items, tally) for _ in range(args.connections)]
        for thread in threads:
            thread.start()
        await asyncio.sleep(args.warm_up + 1)  # it says first what its methods are
        tally.reset()
        cpu.reset()
        began = now()
        await asyncio.sleep(args.seconds)
        result = {"command": args.command, "items": args.items, **summary(tally, 0, cpu, now() - began)}
        for thread in threads:
            thread.stop()
        for thread in threads:  # they finish their items
            thread.join(PATIENCE_S)
        faults = [thread.fault for thread in threads if thread.fault]
    if faults:
        raise WrongAnswer(faults[0])
    return result


if __name__ == "__main__":
    tell(measure, arguments(__doc__).parse_args())
