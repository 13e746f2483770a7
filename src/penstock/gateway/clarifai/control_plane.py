"""A small control plane: what the SDK's command line asks for before it serves a model here.

Of each RPC, only what that needs; nothing is deployed, and nothing outlives the gateway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock.calls.ids import new_id
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.entering import Context, Entrance, answer_of, answered
from penstock.gateway.clarifai.records import ME, Key, Records
from penstock.gateway.clarifai.targets import COMPUTE_CLUSTER, NODEPOOL_LABEL, USER, Targets
from penstock.protocol.clarifai.statuses import StatusError, success
from penstock.protocol.dispatch import Caller

MAX_PAGE = 1000  # records that are listed at once
MAX_POSTED = 100  # ... and made

Work = Callable[[Any, Caller], dict[str, Any]]
"""Returns the fields of an answer besides its status."""


@dataclass(frozen=True)
class Kind:
    """A kind of record.

    Attributes:
        name: In the keys of records.
        one: The field of a record in requests and answers.
        many: ... of several.
        missing: The status of one that is not there.
        parents: Fields of requests that say what it stands in.
    """

    name: str
    one: str
    many: str
    missing: int
    parents: tuple[str, ...] = ()


CLUSTER = Kind("cluster", "compute_cluster", "compute_clusters", codes.COMPUTE_CLUSTER_DOES_NOT_EXIST)
NODEPOOL = Kind("nodepool", "nodepool", "nodepools", codes.NODEPOOL_DOES_NOT_EXIST, ("compute_cluster_id",))
RUNNER = Kind(
    "runner", "runner", "runners", codes.RUNNER_DOES_NOT_EXIST, ("compute_cluster_id", "nodepool_id")
)
DEPLOYMENT = Kind("deployment", "deployment", "deployments", codes.DEPLOYMENT_DOES_NOT_EXIST)
KINDS = (CLUSTER, NODEPOOL, RUNNER, DEPLOYMENT)

_LABELS: Mapping[Kind, tuple[str, ...]] = {
    CLUSTER: (COMPUTE_CLUSTER,),
    NODEPOOL: (COMPUTE_CLUSTER, NODEPOOL_LABEL),
}


class ControlPlane:
    """Serves ``Get…``, ``List…``, ``Post…``, ``Patch…`` and ``Delete…`` of compute clusters, nodepools,
    runners and deployments, and ``GetUser``.

    Args:
        records: Where they are kept.
        targets: Finds the runners that are there.
        entrance: Says who asks.
    """

    def __init__(self, records: Records, targets: Targets, entrance: Entrance) -> None:
        self._records = records
        self._targets = targets
        self._entrance = entrance
        self._rpcs: dict[str, Work] = {"GetUser": self._get_user}
        for kind in KINDS:
            one, many = _titled(kind.one), _titled(kind.many)
            self._rpcs[f"Get{one}"] = partial(self._get, kind)
            self._rpcs[f"List{many}"] = partial(self._list, kind)
            self._rpcs[f"Post{many}"] = partial(self._post, kind)
            self._rpcs[f"Patch{many}"] = partial(self._patch, kind)
            self._rpcs[f"Delete{many}"] = partial(self._delete, kind)

    def __getattr__(self, rpc: str) -> Callable[[Any, Context], Awaitable[Any]]:
        if rpc.startswith("_") or rpc not in self._rpcs:
            raise AttributeError(rpc)
        return partial(serve, self._entrance, rpc, self._rpcs[rpc])

    # -- what they do --------------------------------------------------------------------------------

    def _get_user(self, request: Any, caller: Caller) -> dict[str, Any]:
        user = self._records.user(request.user_app_id.user_id, caller)
        return {"user": resources_pb2.User(id=user)}

    def _get(self, kind: Kind, request: Any, caller: Caller) -> dict[str, Any]:
        key = self._key(kind, request, caller, getattr(request, f"{kind.one}_id"))
        if self._records.get(key) is None and kind in _LABELS and self._is_connected(kind, key):
            message = getattr(answer_of(f"Get{_titled(kind.one)}")(), kind.one)
            message.id = key[-1]
            self._complete(kind, message, key)
            return {kind.one: message}
        return {kind.one: self._there(kind, key)}

    def _list(self, kind: Kind, request: Any, caller: Caller) -> dict[str, Any]:
        start: Key = (kind.name, self._records.user(request.user_app_id.user_id, caller))
        for parent in kind.parents:
            if not getattr(request, parent):
                break
            start = (*start, getattr(request, parent))
        return {kind.many: paged(list(self._records.within(start)), request)}

    def _post(self, kind: Kind, request: Any, caller: Caller) -> dict[str, Any]:
        posted = getattr(request, kind.many)
        if not 1 <= len(posted) <= MAX_POSTED:
            raise CallError(f"{len(posted)} {kind.many}; post 1 to {MAX_POSTED}", ErrorCode.INVALID_ARGUMENT)
        for message in posted:
            message.id = message.id or new_id()
            key = self._key(kind, request, caller, message.id)
            self._complete(kind, message, key)
            self._records.put(key, message, caller)
        return {kind.many: posted}

    def _patch(self, kind: Kind, request: Any, caller: Caller) -> dict[str, Any]:
        found = []
        for patch in getattr(request, kind.many):
            key = self._key(kind, request, caller, patch.id)
            message = merged(self._there(kind, key), patch)
            self._complete(kind, message, key)
            self._records.put(key, message, caller)
            found.append(message)
        return {kind.many: found}

    def _delete(self, kind: Kind, request: Any, caller: Caller) -> dict[str, Any]:
        for record_id in request.ids:
            key = self._key(kind, request, caller, record_id)
            if not self._records.remove(key, caller):
                raise missing(kind.missing, record_id)
        return {}

    # -- inside --------------------------------------------------------------------------------------

    def _key(self, kind: Kind, request: Any, caller: Caller, record_id: str) -> Key:
        user = self._records.user(request.user_app_id.user_id, caller)
        return (kind.name, user, *(getattr(request, parent) for parent in kind.parents), record_id)

    def _is_connected(self, kind: Kind, key: Key) -> bool:
        """Whether a runner says that it is of a cluster or nodepool, though nobody has announced that."""
        said = dict(zip(_LABELS[kind], key[2:], strict=True))
        labels = {name: value for name, value in said.items() if value}
        return self._targets.any_has({**labels, USER: key[1]} if key[1] not in ME else labels)

    def _there(self, kind: Kind, key: Key) -> Any:
        message = self._records.get(key)
        if message is None:
            raise missing(kind.missing, key[-1])
        return message

    def _complete(self, kind: Kind, message: Any, key: Key) -> None:
        """Say in a record what its place says, as those who ask for it want to read it there."""
        user = key[1]
        if kind is CLUSTER:
            message.user_id = user
            message.ClearField("key")  # whoever made it has that, and nobody else is to have it
        elif kind is NODEPOOL:
            message.compute_cluster.id, message.compute_cluster.user_id = key[2], user
        elif kind is RUNNER:
            cluster = message.nodepool.compute_cluster
            message.nodepool.id, cluster.id, cluster.user_id = key[3], key[2], user
        elif kind is DEPLOYMENT:
            message.user_id = user
            if message.HasField("desired_worker"):
                message.worker.CopyFrom(message.desired_worker)
            else:
                message.desired_worker.CopyFrom(message.worker)


async def serve(entrance: Entrance, rpc: str, work: Work, request: Any, context: Context) -> Any:
    """Answer an RPC of the control plane."""
    answer = answer_of(rpc)

    async def done() -> Any:
        return answer(status=success(), **work(request, entrance.member(context)))

    return await answered(done(), lambda status: answer(status=status))


def missing(status: int, record_id: str) -> StatusError:
    """Return what a request for something is refused with that is not there."""
    return StatusError(f"there is no {record_id[:100]!r} here", ErrorCode.NOT_FOUND, status)


def merged(message: Any, patch: Any) -> Any:
    """Return a record with the fields of a patch instead of its own."""
    found = type(message)()
    found.CopyFrom(message)
    for field, value in patch.ListFields():
        found.ClearField(field.name)
        found.MergeFrom(type(message)(**{field.name: value}))
    return found


def paged(found: list[Any], request: Any) -> list[Any]:
    """Return the page that is asked for; pages are counted from 1."""
    size = min(request.per_page or MAX_PAGE, MAX_PAGE)
    start = (max(request.page, 1) - 1) * size
    return found[start : start + size]


def _titled(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))
