"""What does the tasks of annotation that a runner is handed; who composes a runner brings it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from clarifai_grpc.grpc.api import resources_pb2, service_pb2

from penstock.protocol.runners import Offer
from penstock.runtime.app import App


class Looked(NamedTuple):
    """A frame was looked at.

    Attributes:
        time_ms: When it is, in milliseconds from the first.
        annotations: What is posted of it.
        failed: The code that the model failed on it with; empty if it did not.
    """

    time_ms: int
    annotations: Sequence[resources_pb2.Annotation]
    failed: str = ""


class Plan(Protocol):
    """A task, ready to be done."""

    def frames(self) -> AsyncGenerator[Looked, None]:
        """Do it; leaving it ends it, within a frame.

        Raises:
            CallError: It cannot go on.
        """
        ...


class Annotator(Protocol):
    """Does tasks."""

    def plan(self, request: service_pb2.AutoAnnotationRequest, offer: Offer, app: App) -> Plan:
        """Read a task.

        Args:
            offer: The command that is asked about each frame.
            app: Runs it.

        Raises:
            CallError: ``invalid_argument``; it makes no sense.
        """
        ...
