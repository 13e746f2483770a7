"""What users of the SDK's command line have announced: models, runners, deployments and what they stand in.

It is kept in memory only: the command line announces again what is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from clarifai_grpc.grpc.api import resources_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.binding import ServedModel
from penstock.protocol.clarifai.statuses import StatusError
from penstock.protocol.dispatch import Caller

ME = frozenset(("", "me"))
"""Users that stand for whoever asks."""

MAX_ID = 256  # characters
MAX_RECORDS = 10_000
MAX_BYTES = 128 * 1024 * 1024
MAX_RECORDS_OF_KEY = 1_000
MAX_BYTES_OF_KEY = 16 * 1024 * 1024

Key: TypeAlias = tuple[str, ...]
"""The kind of a record, its user, what it stands in, and its id."""


@dataclass
class _Record:
    owner: str
    message: Any
    size: int


class Records:
    """Keeps records; whoever made one may change it, and everybody may look at it."""

    def __init__(self) -> None:
        self._records: dict[Key, _Record] = {}
        self._counts: Counter[str] = Counter()  # by owner
        self._sizes: Counter[str] = Counter()
        self._size = 0
        self._users: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._records)

    # -- records -------------------------------------------------------------------------------------

    def get(self, key: Key) -> Any:
        """Return a record; None if there is none."""
        record = self._records.get(key)
        return None if record is None else record.message

    def within(self, start: Key) -> Iterator[Any]:
        """Yield the records whose keys begin so, the oldest first."""
        for key, record in tuple(self._records.items()):
            if key[: len(start)] == start:
                yield record.message

    def put(self, key: Key, message: Any, caller: Caller) -> None:
        """Keep a record, instead of the one there may be.

        Raises:
            CallError: ``invalid_argument``; ``permission_denied``, somebody else's is there; or
                ``resource_exhausted``.
        """
        if not all(part and len(part) <= MAX_ID and part.isprintable() for part in key):
            raise CallError(
                f"an id is 1 to {MAX_ID} characters that can be shown", ErrorCode.INVALID_ARGUMENT
            )
        former = self._records.get(key)
        owner = caller.key if former is None else self._own(former, caller).owner
        size = message.ByteSize()
        self._check_room(owner, former is None, size - (0 if former is None else former.size))
        self._forget(key)
        kept = type(message)()
        kept.CopyFrom(message)  # a part of a message keeps all of it
        self._records[key] = _Record(owner, kept, size)
        self._counts[owner] += 1
        self._sizes[owner] += size
        self._size += size
        self._users.setdefault(caller.key, key[1])

    def remove(self, start: Key, caller: Caller) -> bool:
        """Forget a record and what stands in it; returns whether there was one.

        Raises:
            CallError: ``permission_denied``; some are somebody else's.
        """
        keys = [key for key in self._records if key[1 : len(start)] == start[1:] and _is_part(key, start)]
        for key in keys:
            self._own(self._records[key], caller)
        for key in keys:
            self._forget(key)
        return bool(keys)

    def user(self, user_id: str, caller: Caller) -> str:
        """Return whom a user id means."""
        return self._users.get(caller.key, "me") if user_id in ME else user_id

    # -- what they say of runners --------------------------------------------------------------------

    def model_of(self, user_id: str, runner_id: str) -> ServedModel | None:
        """See ``Bindings.model_of``."""
        for key, record in self._records.items():
            if key[0] == "runner" and key[1] == user_id and key[-1] == runner_id:
                model = record.message.worker.model
                if not model.id:
                    return None
                return ServedModel(
                    model.id,
                    model.user_id,
                    model.app_id,
                    model.model_version.id,
                    self._deployed(user_id, model),
                )
        return None

    def has_model(self, user_app: resources_pb2.UserAppIDSet, model_id: str) -> bool:
        """Whether a model was announced."""
        return ("model", user_app.user_id, user_app.app_id, model_id) in self._records

    def labels_of(self, asked: resources_pb2.Deployment) -> Mapping[str, str]:
        """Return the labels of the runners that a deployment is for.

        Raises:
            CallError: ``not_found``.
        """
        if not asked.id:
            return {}
        deployment = self._deployment(asked)
        if len(deployment.nodepools) != 1:
            return {}
        nodepool = deployment.nodepools[0]
        labels = {
            "clarifai_nodepool": nodepool.id,
            "clarifai_compute_cluster": nodepool.compute_cluster.id,
        }
        return {name: value for name, value in labels.items() if value}

    # -- inside --------------------------------------------------------------------------------------

    def _deployment(self, asked: resources_pb2.Deployment) -> resources_pb2.Deployment:
        found = [self.get(("deployment", asked.user_id, asked.id))]
        if asked.user_id in ME:
            keys = [key for key in self._records if key[0] == "deployment" and key[-1] == asked.id]
            found = [self._records[key].message for key in keys]
        if len(found) != 1 or not isinstance(found[0], resources_pb2.Deployment):
            text = f"no deployment {asked.id[:100]!r} is known here"
            raise StatusError(text, ErrorCode.NOT_FOUND, codes.DEPLOYMENT_DOES_NOT_EXIST)
        return found[0]

    def _deployed(self, user_id: str, model: resources_pb2.Model) -> str:
        """Return the deployment of a model; empty if there is none, or several."""
        found = [
            record.message.id
            for key, record in self._records.items()
            if key[:2] == ("deployment", user_id) and record.message.worker.model.id == model.id
        ]
        return found[0] if len(found) == 1 else ""

    def _own(self, record: _Record, caller: Caller) -> _Record:
        if record.owner != caller.key and not caller.admin:
            text = "it was made with another key; only that key, or an admin's, may change it"
            raise CallError(text, ErrorCode.PERMISSION_DENIED)
        return record

    def _check_room(self, owner: str, is_new: bool, size: int) -> None:
        count = int(is_new)
        if self._counts[owner] + count > MAX_RECORDS_OF_KEY or self._sizes[owner] + size > MAX_BYTES_OF_KEY:
            raise _full(f"this key has {self._counts[owner]} records here; delete some")
        if len(self._records) + count > MAX_RECORDS or self._size + size > MAX_BYTES:
            raise _full(f"{len(self._records)} records are kept here; some must be deleted first")

    def _forget(self, key: Key) -> None:
        record = self._records.pop(key, None)
        if record is not None:
            self._counts[record.owner] -= 1
            self._sizes[record.owner] -= record.size
            self._size -= record.size


_INSIDE: Mapping[str, frozenset[str]] = {
    "app": frozenset(("app", "model", "version")),
    "model": frozenset(("model", "version")),
    "cluster": frozenset(("cluster", "nodepool", "runner")),
    "nodepool": frozenset(("nodepool", "runner")),
}


def _is_part(key: Key, start: Key) -> bool:
    """Whether a record is the one that ``start`` names, or stands in it."""
    return key == start or (key[0] in _INSIDE.get(start[0], frozenset()) and len(key) >= len(start))


def _full(text: str) -> StatusError:
    return StatusError(text, ErrorCode.RESOURCE_EXHAUSTED, codes.CONN_EXCEEDS_LIMITS)
