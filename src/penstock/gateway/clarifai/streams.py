"""One data stream of a replica, without any I/O: at most one item runs on it, from the message that carries
the item to the half-close of the runner.

The replica's messages go in, events of the item come out, in this order: outputs, then exactly one
``Finished`` or ``Lost``; behind that nothing, whatever the replica does.  An item that was cancelled has no
more outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from clarifai_grpc.grpc.api import service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.forms import BIDI, UNARY, Form, Request
from penstock.protocol.clarifai.statuses import error_of

Said = service_pb2.PostRunnerItemOutputsRequest
Told = service_pb2.MultiRunnerItemResponse


class Phase(Enum):
    """How far a data stream is."""

    IDLE = auto()  # it waits for an item
    BUSY = auto()  # it has one
    ENDED = auto()  # the item is over, but the replica has not closed its side yet
    OVER = auto()  # it is of no more use


@dataclass(frozen=True)
class Finished:
    """An item is over: with ``error``, or with the ``answer`` of one that does not stream.

    Attributes:
        cut: It was cancelled.
    """

    answer: bytes | None = None
    error: CallError | None = None
    cut: bool = False


@dataclass(frozen=True)
class Lost:
    """An item has no end: the replica left it."""

    why: str


Event: TypeAlias = bytes | Finished | Lost
"""An output, as JSON; or how an item ended."""


class DataStream:
    """What runs on a stream, and what the replica says about it."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.item_id = ""
        self.fault = ""
        """What the replica did that it may not; the stream is to be closed."""
        self._form: Form | None = None
        self._cancelled = False
        self._input_open = False

    @property
    def streams(self) -> bool:
        """Whether outputs of an item may still come, one after the other."""
        return self.phase is Phase.BUSY and self._form is not None and self._form.kind != UNARY

    @property
    def wanted(self) -> bool:
        """Whether it has an item that was not cancelled."""
        return self.phase is Phase.BUSY and not self._cancelled

    # -- to the replica ------------------------------------------------------------------------------

    def begin(self, item_id: str, form: Form) -> None:
        """Take an item in hand.

        Args:
            item_id: Never used before.
        """
        assert self.phase is Phase.IDLE
        self.phase, self.item_id, self._form = Phase.BUSY, item_id, form
        self._input_open = form.kind == BIDI

    def carry(self, request: Request, req_id: str) -> Told | None:
        """Return the message that carries the item's request, or one with more of its input; None if the item
        takes no more."""
        if not self.wanted:
            return None
        assert self._form is not None
        told = Told(status=status_pb2.Status(code=codes.SUCCESS, req_id=req_id))
        item = told.runner_items.add(id=self.item_id)
        item.processing_info.runner_method_type = self._form.kind
        if isinstance(request, service_pb2.AutoAnnotationRequest):
            item.auto_annotation_request.CopyFrom(request)
        else:
            item.post_model_outputs_request.CopyFrom(request)
        return told

    def end_input(self) -> Told | None:
        """Return what says that the input has ended; None if that need not be said."""
        if not self.wanted or not self._input_open:
            return None
        self._input_open = False
        return end_of_input()

    def cancel(self) -> bool:
        """The item is not wanted any more; returns whether it still runs."""
        if self.phase is not Phase.BUSY:
            return False
        self._cancelled = True
        return True

    # -- from the replica ----------------------------------------------------------------------------

    def feed(self, said: Said) -> list[Event]:
        """Take a message."""
        if self.phase is Phase.BUSY:
            return self._feed(said)
        if self.phase is not Phase.OVER:
            what = "it has no item" if self.phase is Phase.IDLE else "its item is over"
            self._break(f"it sent a message although {what}")
        return []

    def garbage(self, why: str) -> list[Event]:
        """What came is no message."""
        return [] if self.phase is Phase.OVER else self._break(f"it sent what cannot be read: {why}")

    def half_close(self) -> list[Event]:
        """The replica has closed its side: all of the item has come."""
        busy, self.phase = self.phase is Phase.BUSY, Phase.OVER
        if not busy:
            return []
        if self._cancelled:
            return [Finished(cut=True)]
        if self._form is not None and self._form.kind == UNARY:
            return [Lost("it ended the item without an output")]
        return [Finished()]

    def cut(self, why: str) -> list[Event]:
        """The stream has ended without a half-close, by whomever."""
        busy, self.phase = self.phase is Phase.BUSY, Phase.OVER
        if not busy:
            return []
        return [Finished(cut=True) if self._cancelled else Lost(why)]

    def fail(self, error: CallError) -> list[Event]:
        """The item cannot go on, for a reason of this side."""
        busy, self.phase = self.phase is Phase.BUSY, Phase.OVER
        return [Finished(error=error)] if busy else []

    # -- inside --------------------------------------------------------------------------------------

    def _feed(self, said: Said) -> list[Event]:
        if said.status.code != codes.SUCCESS:
            return self._refused(said)
        if said.runner_item_id != self.item_id:
            return self._break(f"it answered item {said.runner_item_id[:64]!r}, but has {self.item_id}")
        events: list[Event] = []
        for output in said.runner_item_outputs:
            if self.phase is not Phase.BUSY:
                return [*events, *self._break("it sent more than one output of an item that has one")]
            if not self._cancelled:
                events += self._output(output)
        return events

    def _refused(self, said: Said) -> list[Event]:
        """The replica itself says that it cannot process the item; it may leave out which."""
        if said.status.code == codes.RUNNER_STREAM_START:
            return self._break("it sent a second hello")
        if said.runner_item_id not in ("", self.item_id):
            return self._break(f"it answered item {said.runner_item_id[:64]!r}, but has {self.item_id}")
        return self._finish(Finished(error=error_of(said.status), cut=self._cancelled))

    def _output(self, output: service_pb2.RunnerItemOutput) -> list[Event]:
        assert self._form is not None
        if not output.HasField("multi_output_response"):
            return self._break("it sent an output that is none of a model")
        try:
            text = self._form.read(output.multi_output_response)
        except CallError as error:
            return self._finish(Finished(error=error))
        return self._finish(Finished(answer=text)) if self._form.kind == UNARY else [text]

    def _finish(self, how: Finished) -> list[Event]:
        self.phase = Phase.ENDED
        return [how]

    def _break(self, fault: str) -> list[Event]:
        busy, self.phase, self.fault = self.phase is Phase.BUSY, Phase.OVER, fault
        if not busy:
            return []
        if self._cancelled:
            return [Finished(cut=True)]
        text = f"the runner broke the protocol: {fault}"
        return [Finished(error=CallError(text, ErrorCode.UPSTREAM_FAILED))]


def end_of_input() -> Told:
    """Return what ends a stream of input; behind an item's half-close it says nothing new."""
    return Told(status=status_pb2.Status(code=codes.RUNNER_STREAM_END))


def cancel_of(item_id: str) -> Told:
    """Return what goes on the control stream to cancel an item; there is one in each message."""
    told = Told(status=status_pb2.Status(code=codes.SUCCESS))
    item = told.runner_items.add(id=item_id)
    item.processing_info.status.code = codes.RUNNER_ITEM_CANCELLED
    return told


def refusal(status: status_pb2.Status) -> Told:
    """Return what tells a replica that a stream of it is not taken; it tries again in a second."""
    return Told(status=status)
