"""Replicas that say what a test has them say, on streams that are none."""

from __future__ import annotations

import json
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from gateway.fakes import turns
from penstock.gateway.clarifai.binding import NoBindings
from penstock.gateway.clarifai.hello import Hello, ReplicaId
from penstock.gateway.clarifai.lanes import Lane
from penstock.gateway.clarifai.replica import SETTLE_S, Replica
from penstock.gateway.clarifai.replicas import Replicas
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.gateway.clarifai.streams import Said, Told
from penstock.gateway.hub import Hub
from penstock.protocol.clarifai.signatures import write_signatures
from penstock.testing import FakeClock

Kind = resources_pb2.RunnerMethodType
TYPE = resources_pb2.ModelTypeField.DataType


def signature(name: str, kind: int, *, stream: bool = False) -> resources_pb2.MethodSignature:
    """A method that takes a text and gives texts."""
    found = resources_pb2.MethodSignature(name=name, method_type=kind)  # type: ignore[arg-type]
    found.input_fields.add(name="text", type=TYPE.STR, required=True, iterator=stream)
    found.output_fields.add(name="return", type=TYPE.STR, iterator=kind != Kind.UNARY_UNARY)
    return found


METHODS = (
    signature("predict", Kind.UNARY_UNARY),
    signature("generate", Kind.UNARY_STREAMING),
    signature("stream", Kind.STREAMING_STREAMING, stream=True),
)


class Visitor:
    """Somebody who has a key, or needs none."""

    def __init__(self, key: str = "", commands: frozenset[str] | None = None) -> None:
        self.key = key
        self.commands = commands
        self.welcome = True

    def still_welcome(self) -> bool:
        return self.welcome


class FakeLine:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.unsent = 0
        self.ended = False
        self.refused: status_pb2.Status | None = None
        self.stuck = False
        """Whether nothing is written any more."""
        self.resumed = 0

    def send(self, told: Told) -> None:
        if self.stuck:
            self.unsent += told.ByteSize()
        elif not self.ended:
            self.told.append(told)

    def recall(self) -> bool:
        return self.stuck and not self.told

    def resume(self) -> None:
        self.resumed += 1

    def end(self) -> None:
        self.ended = True

    def refuse(self, status: status_pb2.Status) -> None:
        self.refused, self.ended = status, True


class Stream:
    """A data stream of a replica."""

    def __init__(self, line: FakeLine, lane: Lane) -> None:
        self.line = line
        self.lane = lane

    @property
    def item(self) -> service_pb2.RunnerItem:
        """What it was given."""
        return self.line.told[0].runner_items[0]

    @property
    def has_item(self) -> bool:
        return bool(self.line.told)

    @property
    def method(self) -> str:
        return str(self.item.post_model_outputs_request.inputs[0].data.metadata["_method_name"])

    def say(self, *texts: str, item_id: str | None = None, **status: Any) -> None:
        """Send an output with these texts."""
        self.hear(said(self.item.id if item_id is None else item_id, *texts, **status))

    def hear(self, message: Said) -> None:
        self.lane.heard(message.SerializeToString())

    def half_close(self) -> None:
        self.lane.half_closed()

    def answer(self, text: str) -> None:
        self.say(text)
        self.half_close()

    def reset(self) -> None:
        self.lane.broke("it was reset")


def said(item_id: str, *texts: str, code: int = codes.SUCCESS, top: int = codes.SUCCESS) -> Said:
    """Return an output."""
    message = Said(runner_item_id=item_id, status=status_pb2.Status(code=top))  # type: ignore[arg-type]
    response = message.runner_item_outputs.add().multi_output_response
    response.status.code = code  # type: ignore[assignment]
    for text in texts:
        part = response.outputs.add(status=status_pb2.Status(code=codes.SUCCESS)).data.parts.add(id="return")
        part.data.string_value = text
    return message


class FakeReplica:
    """One process of a runner; it has its say by the streams it opens."""

    def __init__(
        self,
        replicas: Replicas,
        clock: FakeClock,
        name: str = "toy",
        replica: str = "r1",
        visitor: Visitor | None = None,
        *,
        annotates: bool = False,
    ) -> None:
        self._annotates = annotates
        self.visitor = visitor or Visitor()
        self.who = ReplicaId(self.visitor.key, "u1", "cc1", "np1", name, replica)
        self._replicas = replicas
        self._clock = clock
        self.control: FakeLine | None = None
        self.streams: list[Stream] = []

    @property
    def replica(self) -> Replica:
        return self._replicas.of(self._hello(control=False), self.visitor)

    def open(self, *, primary: bool = False, tasks: frozenset[str] = frozenset()) -> Stream:
        """Open a data stream; that of the main thread names the tasks that it does."""
        hello, line = Hello(self.who, False, primary, "fake", tasks), FakeLine()
        replica = self._replicas.of(hello, self.visitor)
        stream = Stream(line, self._replicas.open_lane(replica, line, hello, self.visitor))
        self.streams.append(stream)
        return stream

    def open_control(self) -> FakeLine:
        """Open a control stream."""
        self.control = FakeLine()
        self._replicas.of(self._hello(control=True), self.visitor).open_control(self.control)
        return self.control

    async def introduce(self, *methods: resources_pb2.MethodSignature) -> None:
        """Say what its methods are, on a first stream."""
        first = self.open(primary=self._annotates)
        await turns()
        assert first.method == "_GET_SIGNATURES"
        message = said(first.item.id, "")
        output = message.runner_item_outputs[0].multi_output_response.outputs[0]
        output.data.text.raw = write_signatures(methods or METHODS)
        first.hear(message)
        first.half_close()
        self.streams.clear()
        await self.settle()

    async def settle(self) -> None:
        """Let the gateway see that no more streams come."""
        await turns()
        self._clock.advance(SETTLE_S)
        await turns()

    async def come(self, streams: int = 2) -> list[Stream]:
        """Be there, with a control stream and so many others."""
        self.open_control()
        await self.introduce()
        return [self.open() for _ in range(streams)]

    def given(self) -> list[Stream]:
        """Return the streams that have an item."""
        return [stream for stream in self.streams if stream.has_item]

    def cancelled(self) -> list[str]:
        """Return the items that it was told to cancel."""
        assert self.control is not None
        for told in self.control.told:
            assert told.status.code == codes.SUCCESS
            assert len(told.runner_items) == 1
            assert told.runner_items[0].processing_info.status.code == codes.RUNNER_ITEM_CANCELLED
        return [told.runner_items[0].id for told in self.control.told]

    def _hello(self, *, control: bool) -> Hello:
        return Hello(self.who, control, False, "fake")


def replicas_of(hub: Hub, clock: FakeClock, **link: Any) -> Replicas:
    """Return the replicas of a hub."""
    return Replicas(hub, LinkSettings(**link), NoBindings(), clock)


def text_of(value: str) -> bytes:
    """Return the input of a call."""
    return json.dumps({"text": value}).encode()
