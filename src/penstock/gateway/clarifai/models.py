"""The RPCs of apps, models and their versions: those that were announced, and those that runners have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.calls.ids import new_id
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.control_plane import MAX_POSTED, Work, merged, missing, paged, serve
from penstock.gateway.clarifai.entering import Context, Entrance
from penstock.gateway.clarifai.records import Key, Records
from penstock.gateway.clarifai.targets import Targets, absent, model_labels
from penstock.protocol.dispatch import Caller

App = resources_pb2.App
Model = resources_pb2.Model
Version = resources_pb2.ModelVersion

_FINE = status_pb2.Status(code=codes.MODEL_TRAINED, description="Model is trained")


class Models:
    """Serves ``Get…``, ``List…``, ``Post…``, ``Patch…`` and ``Delete…`` of apps, models and their versions,
    as far as the SDK calls them.

    Args:
        records: Where they are kept.
        targets: Finds the models of runners.
        entrance: Says who asks.
    """

    def __init__(self, records: Records, targets: Targets, entrance: Entrance) -> None:
        self._records = records
        self._targets = targets
        self._entrance = entrance
        self._rpcs: Mapping[str, Work] = {
            "GetApp": self._get_app,
            "PostApps": self._post_apps,
            "PatchApp": self._patch_app,
            "GetModel": self._get_model,
            "ListModels": self._list_models,
            "PostModels": self._post_models,
            "PatchModels": self._patch_models,
            "DeleteModel": self._delete_model,
            "DeleteModels": self._delete_models,
            "GetModelVersion": self._get_version,
            "ListModelVersions": self._list_versions,
            "PostModelVersions": self._post_versions,
            "PatchModelVersions": self._patch_versions,
            "DeleteModelVersion": self._delete_version,
        }

    def __getattr__(self, rpc: str) -> Callable[[Any, Context], Awaitable[Any]]:
        if rpc.startswith("_") or rpc not in self._rpcs:
            raise AttributeError(rpc)
        return partial(serve, self._entrance, rpc, self._rpcs[rpc])

    # -- apps ----------------------------------------------------------------------------------------

    def _get_app(self, request: Any, caller: Caller) -> dict[str, Any]:
        return {"app": self._app(request, caller)}

    def _post_apps(self, request: Any, caller: Caller) -> dict[str, Any]:
        user = self._records.user(request.user_app_id.user_id, caller)
        _check_count(len(request.apps))
        for app in request.apps:
            app.user_id = user
            self._records.put(("app", user, app.id), app, caller)
        return {"apps": request.apps}

    def _patch_app(self, request: Any, caller: Caller) -> dict[str, Any]:
        request.user_app_id.app_id = request.user_app_id.app_id or request.app.id
        former = self._app(request, caller)
        app = merged(former, request.app)
        app.id, app.user_id = former.id, former.user_id
        self._records.put(("app", app.user_id, app.id), app, caller)
        return {"app": app}

    def _app(self, request: Any, caller: Caller) -> App:
        user_app = request.user_app_id
        app = self._records.get(("app", self._records.user(user_app.user_id, caller), user_app.app_id))
        if not isinstance(app, App):
            raise missing(codes.CONN_DOES_NOT_EXIST, user_app.app_id)
        return app

    # -- models --------------------------------------------------------------------------------------

    def _get_model(self, request: Any, caller: Caller) -> dict[str, Any]:
        model = self._records.get(self._key(request, caller, request.model_id))
        if model is None:
            return {"model": self._connected(request)}
        return {"model": self._with_version(request, caller, model, request.version_id)}

    def _list_models(self, request: Any, caller: Caller) -> dict[str, Any]:
        return {"models": paged(list(self._records.within(self._key(request, caller))), request)}

    def _post_models(self, request: Any, caller: Caller) -> dict[str, Any]:
        posted = [*request.models, *([request.model] if request.HasField("model") else [])]
        _check_count(len(posted))
        for model in posted:
            key = self._key(request, caller, model.id)
            model.user_id, model.app_id = key[1], key[2]
            self._records.put(key, model, caller)
        return {"model": posted[0]}

    def _patch_models(self, request: Any, caller: Caller) -> dict[str, Any]:
        found = []
        for patch in request.models:
            key = self._key(request, caller, patch.id)
            model = merged(self._there(key, codes.MODEL_DOES_NOT_EXIST), patch)
            model.user_id, model.app_id = key[1], key[2]
            self._records.put(key, model, caller)
            found.append(model)
        return {"models": found}

    def _delete_model(self, request: Any, caller: Caller) -> dict[str, Any]:
        if not self._records.remove(self._key(request, caller, request.model_id), caller):
            raise missing(codes.MODEL_DOES_NOT_EXIST, request.model_id)
        return {}

    def _delete_models(self, request: Any, caller: Caller) -> dict[str, Any]:
        for model_id in request.ids:
            if not self._records.remove(self._key(request, caller, model_id), caller):
                raise missing(codes.MODEL_DOES_NOT_EXIST, model_id)
        return {}

    # -- versions ------------------------------------------------------------------------------------

    def _get_version(self, request: Any, caller: Caller) -> dict[str, Any]:
        model = self._records.get(self._key(request, caller, request.model_id))
        if model is not None:
            full = self._with_version(request, caller, model, request.version_id)
            if full.model_version.id:
                return {"model_version": full.model_version}
        return {"model_version": self._connected(request).model_version}

    def _list_versions(self, request: Any, caller: Caller) -> dict[str, Any]:
        return {"model_versions": paged(self._versions(request, caller)[::-1], request)}

    def _post_versions(self, request: Any, caller: Caller) -> dict[str, Any]:
        model = self._there(self._key(request, caller, request.model_id), codes.MODEL_DOES_NOT_EXIST)
        _check_count(len(request.model_versions))
        for version in request.model_versions:
            version.id = version.id or new_id()
            version.user_id, version.app_id = model.user_id, model.app_id
            version.status.CopyFrom(_FINE)
            key = (*self._key(request, caller, request.model_id), version.id)
            self._records.put(("version", *key[1:]), version, caller)
        return {"model": _joined(model, request.model_versions[-1])}

    def _patch_versions(self, request: Any, caller: Caller) -> dict[str, Any]:
        found = []
        for patch in request.model_versions:
            key = ("version", *self._key(request, caller, request.model_id)[1:], patch.id)
            version = merged(self._there(key, codes.MODEL_DOES_NOT_EXIST), patch)
            self._records.put(key, version, caller)
            found.append(version)
        return {"model_versions": found}

    def _delete_version(self, request: Any, caller: Caller) -> dict[str, Any]:
        key = ("version", *self._key(request, caller, request.model_id)[1:], request.version_id)
        if not self._records.remove(key, caller):
            raise missing(codes.MODEL_DOES_NOT_EXIST, request.version_id)
        return {}

    # -- inside --------------------------------------------------------------------------------------

    def _key(self, request: Any, caller: Caller, *model_id: str) -> Key:
        user_app = request.user_app_id
        return ("model", self._records.user(user_app.user_id, caller), user_app.app_id, *model_id)

    def _there(self, key: Key, status: int) -> Any:
        message = self._records.get(key)
        if message is None:
            raise missing(status, key[-1])
        return message

    def _versions(self, request: Any, caller: Caller) -> list[Version]:
        return list(self._records.within(("version", *self._key(request, caller, request.model_id)[1:])))

    def _with_version(self, request: Any, caller: Caller, model: Model, version_id: str) -> Model:
        versions = self._versions(request, caller)
        if version_id:
            versions = [version for version in versions if version.id == version_id]
            if not versions:
                raise missing(codes.MODEL_DOES_NOT_EXIST, version_id)
        return _joined(model, versions[-1]) if versions else model

    def _connected(self, request: Any) -> Model:
        """Return a model that nobody has announced, and that a runner has."""
        user_app = request.user_app_id
        labels = model_labels(user_app, request.model_id, request.version_id)
        target = self._targets.find(labels, {})
        if target is None:
            raise absent(labels)
        methods = [] if target.model_id else map(self._targets.signature, target.methods().values())
        # A model of Clarifai's says itself what its methods are, when it is asked.
        version = Version(id=request.version_id, status=_FINE, method_signatures=methods)
        return Model(
            id=request.model_id,
            name=request.model_id,
            user_id=user_app.user_id,
            app_id=user_app.app_id,
            model_version=version,
        )


def _joined(model: Model, version: Version) -> Model:
    found = Model()
    found.CopyFrom(model)
    found.model_version.CopyFrom(version)
    return found


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_POSTED:
        raise CallError(f"{count} records; post 1 to {MAX_POSTED}", ErrorCode.INVALID_ARGUMENT)
