"""Who a runner is, and what it says first on each of its streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.calls.ids import new_id
from penstock.protocol.clarifai.names import CONTROL_PREFIX, RUNNING
from penstock.protocol.clarifai.statuses import success

MAX_ID = 256  # characters

Said = service_pb2.PostRunnerItemOutputsRequest
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Identity:
    """A runner, as the server knows it: the values are the server's own, and mean nothing here.

    Attributes:
        replica_id: Of this process: its streams are known by it to belong together.

    Raises:
        ValueError: One is missing, or no id.
    """

    user_id: str
    compute_cluster_id: str
    nodepool_id: str
    runner_id: str
    replica_id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < len(value) <= MAX_ID or not value.isprintable():
                spelled = name.replace("_", "-")
                raise ValueError(f"--{spelled} is needed, 1 to {MAX_ID} printable characters (not {value!r})")

    def hello(self, tasks: Sequence[str] = ()) -> Said:
        """Return what opens a stream for work.

        Args:
            tasks: The items whose tasks of annotation run; told on the first stream only.
        """
        said = self._opening(self.runner_id, "Success")
        if tasks:
            said.status.internal_details = RUNNING + ", ".join(tasks)
        return said

    def control_hello(self) -> Said:
        """Return what opens the stream on which cancels come."""
        return self._opening(CONTROL_PREFIX + self.runner_id, "Control connection")

    def output(
        self,
        item_id: str,
        response: service_pb2.MultiOutputResponse,
        status: status_pb2.Status | None = None,
    ) -> Said:
        """Return what tells an output of an item.

        Args:
            status: Of the runner itself; without it all is well.
        """
        said = Said()
        said.CopyFrom(self._fine)
        if status is not None:
            said.status.CopyFrom(status)
        said.runner_item_id = item_id
        said.runner_item_outputs.add().multi_output_response.CopyFrom(response)
        return said

    @cached_property
    def _fine(self) -> Said:
        """What is the same in every output of an item that goes well."""
        return self._said(self.runner_id, success())

    def _opening(self, runner_id: str, description: str) -> Said:
        said = self._said(
            runner_id, status_pb2.Status(code=codes.RUNNER_STREAM_START, description=description)
        )
        said.runner_replica_id = self.replica_id
        return said

    def _said(self, runner_id: str, status: status_pb2.Status) -> Said:
        return Said(
            user_app_id=resources_pb2.UserAppIDSet(user_id=self.user_id),
            compute_cluster_id=self.compute_cluster_id,
            nodepool_id=self.nodepool_id,
            runner_id=runner_id,
            status=status,
        )


@dataclass(frozen=True, repr=False)
class Credentials:
    """What a runner shows: a personal access token, or the token of a session; neither where none is needed.

    It is sent on the link, and nowhere else: no URL that a request names is ever asked.

    Raises:
        ValueError: It cannot be sent.
    """

    token: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        for value in (self.token, self.session):
            if value is not None and not (value.isascii() and value.isprintable() and value.strip()):
                raise ValueError("a token has printable ASCII characters only")

    def metadata(self, *, control: bool = False, primary: bool = False) -> Metadata:
        """Return what goes with a stream's opening; servers hand tasks of annotation to the primary one."""
        kind, end = "runner-control" if control else "runner", "-p" if primary else ""
        named = ("x-request-id", f"{kind}-{new_id()}{end}")
        if self.token is not None:
            return named, ("authorization", f"Key {self.token}")
        if self.session is not None:
            return named, ("x-clarifai-session-token", self.session)
        return (named,)
