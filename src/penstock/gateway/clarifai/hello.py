"""What a replica says first on each of its streams."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from google.protobuf.message import DecodeError

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.streams import Said
from penstock.protocol.clarifai.names import CONTROL_PREFIX, RUNNING

MAX_HELLO = 64 * 1024  # bytes
MAX_ID = 256  # characters
MAX_AGENT = 200  # characters of what the replica's software calls itself
CONTROL_REQUEST = "runner-control-"
REQUEST = "runner-"

_ALIEN = re.compile(r"[^A-Za-z0-9_.-]")
_NAME, _DIGITS = 48, 8


@dataclass(frozen=True)
class ReplicaId:
    """Which process of which runner; opaque, all of it, and said by the replica itself but for the key.

    Attributes:
        key: The id of the key it came with.
    """

    key: str
    user: str
    compute_cluster: str
    nodepool: str
    runner: str
    replica: str

    @property
    def name(self) -> str:
        """A name that a runner may have, and no other replica has."""
        said = "\0".join(
            (self.key, self.user, self.compute_cluster, self.nodepool, self.runner, self.replica)
        )
        digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
        plain = _ALIEN.sub("_", self.runner)[:_NAME].lstrip("_.-") or "runner"
        return f"{plain}-{digest}"

    def labels(self) -> Mapping[str, str]:
        """Return it as labels of a runner."""
        named = {
            "clarifai_user": self.user,
            "clarifai_compute_cluster": self.compute_cluster,
            "clarifai_nodepool": self.nodepool,
            "clarifai_runner": self.runner,
            "clarifai_replica": self.replica,
        }
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Hello:
    """A stream opens.

    Attributes:
        control: It is the one on which cancels go out.
        primary: It is the one of the replica's main thread.
        tasks: The ids of items whose tasks of annotation run, as it says there.
    """

    who: ReplicaId
    control: bool
    primary: bool
    software: str
    tasks: frozenset[str] = frozenset()


def read_hello(data: bytes, metadata: Mapping[str, str], key: str) -> Hello:
    """Read the first message of a stream.

    Args:
        key: The id of the key that came with the stream.

    Raises:
        CallError: ``invalid_argument``; it is no hello.
    """
    said = _parse(data)
    request_id = metadata.get("x-request-id", "")
    control = said.runner_id.startswith(CONTROL_PREFIX) and (
        request_id.startswith(CONTROL_REQUEST) or not request_id.startswith(REQUEST)
    )
    who = ReplicaId(
        key=key,
        user=_id("user_app_id.user_id", said.user_app_id.user_id),
        compute_cluster=_id("compute_cluster_id", said.compute_cluster_id),
        nodepool=_id("nodepool_id", said.nodepool_id),
        runner=_id("runner_id", said.runner_id[len(CONTROL_PREFIX) if control else 0 :], needed=True),
        replica=_id("runner_replica_id", said.runner_replica_id, needed=True),
    )
    primary = not control and request_id.endswith("-p")
    said_of_tasks = said.status.internal_details
    named = said_of_tasks.removeprefix(RUNNING).split(",") if said_of_tasks.startswith(RUNNING) else ()
    tasks = frozenset(name.strip() for name in named)
    return Hello(who, control, primary, metadata.get("user-agent", "")[:MAX_AGENT], tasks)


def _parse(data: bytes) -> Said:
    if len(data) > MAX_HELLO:
        raise _fault(f"the hello has {len(data)} bytes; at most {MAX_HELLO} are allowed")
    try:
        said: Said = Said.FromString(data)
    except DecodeError as error:
        raise _fault(f"the hello cannot be read: {error}") from error
    if said.status.code != codes.RUNNER_STREAM_START:
        raise _fault(f"a stream begins with RUNNER_STREAM_START, not with status {said.status.code}")
    return said


def _id(name: str, value: str, *, needed: bool = False) -> str:
    if len(value) > MAX_ID or (needed and not value):
        raise _fault(f"{name} is {'empty' if not value else 'too long'} in the hello")
    return value


def _fault(text: str) -> CallError:
    return CallError(text, ErrorCode.INVALID_ARGUMENT)
