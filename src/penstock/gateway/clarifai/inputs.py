"""The RPCs of inputs: what is to be annotated, by the URL where it is; nothing is fetched here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.calls.ids import new_id
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.control_plane import MAX_POSTED, Work, missing, paged, serve
from penstock.gateway.clarifai.entering import Context, Entrance
from penstock.gateway.clarifai.records import Key, Records
from penstock.protocol.dispatch import Caller

_FINE = status_pb2.Status(code=codes.INPUT_DOWNLOAD_SUCCESS, description="Nothing is downloaded here")
SCHEMES = ("http://", "https://")

Input = resources_pb2.Input


class Inputs:
    """Serves ``PostInputs``, ``GetInput``, ``ListInputs`` and ``DeleteInputs``.

    Args:
        records: Where they are kept.
        entrance: Says who asks.
    """

    def __init__(self, records: Records, entrance: Entrance) -> None:
        self._records = records
        self._entrance = entrance
        self._rpcs: Mapping[str, Work] = {
            "PostInputs": self._post,
            "GetInput": self._get,
            "ListInputs": self._list,
            "DeleteInput": self._delete_one,
            "DeleteInputs": self._delete,
        }

    def __getattr__(self, rpc: str) -> Callable[[Any, Context], Awaitable[Any]]:
        if rpc.startswith("_") or rpc not in self._rpcs:
            raise AttributeError(rpc)
        return partial(serve, self._entrance, rpc, self._rpcs[rpc])

    def _post(self, request: Any, caller: Caller) -> dict[str, Any]:
        if not 1 <= len(request.inputs) <= MAX_POSTED:
            text = f"{len(request.inputs)} inputs; post 1 to {MAX_POSTED}"
            raise CallError(text, ErrorCode.INVALID_ARGUMENT)
        for one in request.inputs:
            url_of(one)
            one.id = one.id or new_id()
            one.status.CopyFrom(_FINE)
            self._records.put(input_key(self._records, request, caller, one.id), one, caller)
        return {"inputs": request.inputs}

    def _get(self, request: Any, caller: Caller) -> dict[str, Any]:
        found = self._records.get(input_key(self._records, request, caller, request.input_id))
        if found is None:
            raise missing(codes.INPUT_DOES_NOT_EXIST, request.input_id)
        return {"input": found}

    def _list(self, request: Any, caller: Caller) -> dict[str, Any]:
        start = input_key(self._records, request, caller)
        found = [one for one in self._records.within(start) if not request.ids or one.id in request.ids]
        return {"inputs": paged(found, request)}

    def _delete_one(self, request: Any, caller: Caller) -> dict[str, Any]:
        self._remove(request, caller, request.input_id)
        return {}

    def _delete(self, request: Any, caller: Caller) -> dict[str, Any]:
        for input_id in request.ids:
            self._remove(request, caller, input_id)
        return {}

    def _remove(self, request: Any, caller: Caller, input_id: str) -> None:
        if not self._records.remove(input_key(self._records, request, caller, input_id), caller):
            raise missing(codes.INPUT_DOES_NOT_EXIST, input_id)


def input_key(records: Records, request: Any, caller: Caller, *input_id: str) -> Key:
    """Return where an input of a request's app is kept, or all of them are."""
    user_app = request.user_app_id
    return ("input", records.user(user_app.user_id, caller), user_app.app_id, *input_id)


def url_of(one: Input) -> tuple[str, str]:
    """Return whether an input is a ``video`` or an ``image``, and where it is.

    Raises:
        CallError: ``invalid_argument``.
    """
    for kind, url in (("video", one.data.video.url), ("image", one.data.image.url)):
        if url.startswith(SCHEMES):
            return kind, url
    text = f"input {one.id[:100]!r} is no video and no image with an http or https URL"
    raise CallError(text, ErrorCode.INVALID_ARGUMENT)
