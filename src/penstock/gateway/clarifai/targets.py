"""Which runners a client's request is for.

A model is found under the label ``clarifai_model`` of runners, of Clarifai's or of penstock's own, and under
the name of the gateway, which stands for the commands of all runners of penstock's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clarifai_grpc.grpc.api import resources_pb2, service_pb2

from penstock.errors import CallError, ErrorCode
from penstock.gateway.hub import Hub
from penstock.gateway.runner import Runner
from penstock.protocol.clarifai.names import RAW, command_name
from penstock.protocol.clarifai.signatures import signature_of
from penstock.protocol.messages import Route
from penstock.protocol.runners import Offer
from penstock.runtime.state import CLEANUP, INITIALIZE

MAX_SIGNATURES = 1000  # that are kept; another one takes a moment
MODEL = "clarifai_model"
RUNNER = "clarifai_runner"
USER = "clarifai_user"
COMPUTE_CLUSTER = "clarifai_compute_cluster"
NODEPOOL_LABEL = "clarifai_nodepool"

_RAW = tuple(f".{rpc}" for rpc in RAW)

Signature = resources_pb2.MethodSignature
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Target:
    """Where a model runs.

    Attributes:
        model_id: Under which its raw commands are; empty where it has none: then its methods are commands of
            ``runners``.
        route: The runners that have it; None is any.
        runners: Penstock's own ones that have it.
    """

    model_id: str
    route: Route | None
    runners: Sequence[Runner] = ()

    def method(self, name: str) -> Offer | None:
        """Return the command that is a method of this name."""
        if _is_hidden(name):
            return None
        return next((runner.offers[name] for runner in self.runners if name in runner.offers), None)

    def methods(self) -> dict[str, Offer]:
        """Return the commands that are methods, by name."""
        return {
            name: offer
            for runner in self.runners
            for name, offer in runner.offers.items()
            if not _is_hidden(name)
        }


class Targets:
    """Finds where models run.

    Args:
        hub: Has the runners.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._signatures: dict[str, tuple[Offer, Signature]] = {}

    def find(self, model: Labels, where: Labels) -> Target | None:
        """Return where a model runs; None if no runner has it.

        Args:
            model: Its labels: ``clarifai_model``, and as far as they are known ``clarifai_user``,
                ``clarifai_app`` and ``clarifai_version``; runners without these take every one.
            where: Labels that the runner must have.
        """
        name, runners = model[MODEL], self._hub.runners
        named = [each for each in runners if each.labels.get(MODEL) == name and each.expected]
        found = [runner for runner in named if _has(runner, where) and _may_be(runner, model)]
        if found:
            return _target(found, {**model, **where})
        if name == self._hub.manifest.name:
            own = [each for each in runners if RUNNER not in each.labels and each.expected]
            own = [runner for runner in own if _has(runner, where)]
            return Target("", Route(labels=dict(where)) if where else None, own) if own else None
        return _only_one([runner for runner in runners if RUNNER in runner.labels], where, model)

    def knows(self, model: Labels) -> bool:
        """Whether a runner has a model, be it that it takes no calls at the moment."""
        name = model[MODEL]
        if name == self._hub.manifest.name:
            return True
        named = (runner for runner in self._hub.runners if runner.labels.get(MODEL) == name)
        return any(_may_be(runner, model) for runner in named) or self.find(model, {}) is not None

    def any_has(self, labels: Labels) -> bool:
        """Whether there is a runner with all of these labels."""
        return any(_has(runner, labels) for runner in self._hub.runners)

    def signature(self, offer: Offer) -> Signature:
        """Return a command as a method."""
        known = self._signatures.get(offer.name)
        if known is None or known[0] is not offer:
            if len(self._signatures) >= MAX_SIGNATURES:
                self._signatures.clear()
            known = self._signatures[offer.name] = offer, signature_of(offer.name, offer)
        return known[1]


def model_labels(user_app: resources_pb2.UserAppIDSet, model_id: str, version_id: str) -> Labels:
    """Return what a request says of its model, as labels."""
    said = {
        MODEL: model_id,
        USER: user_app.user_id,
        "clarifai_app": user_app.app_id,
        "clarifai_version": version_id,
    }
    return {name: value for name, value in said.items() if value or name == MODEL}


def selected(request: service_pb2.PostModelOutputsRequest) -> Labels:
    """Return what a request says of its runner, as labels; a deployment has none."""
    selector = request.runner_selector
    said = {
        RUNNER: selector.runner.id,
        NODEPOOL_LABEL: selector.nodepool.id,
        COMPUTE_CLUSTER: selector.nodepool.compute_cluster.id,
    }
    return {name: value for name, value in said.items() if value}


def absent(model: Labels) -> CallError:
    """Return what a request for a model that nobody runs is refused with."""
    text = f"no runner of the model {model[MODEL][:100]!r} is connected, and no such model is known here"
    return CallError(text, ErrorCode.NOT_FOUND)


def _target(found: list[Runner], asked: Labels) -> Target:
    """Return where a model runs by the runners that may have it: those that say most of it."""
    said = {name for runner in found for name in runner.labels}
    labels = {name: value for name, value in asked.items() if name in said}
    chosen = [runner for runner in found if _has(runner, labels)] or found[:1]
    raw = command_name(asked[MODEL], RAW[0])
    if any(raw in runner.offers for runner in chosen):
        return Target(asked[MODEL], Route(labels=labels))
    return Target("", Route(labels=labels), chosen)


def _only_one(runners: list[Runner], where: Labels, model: Labels) -> Target | None:
    """Return the one runner of a user that was announced for no model, as it then serves any."""
    user = model.get(USER)
    free = [
        runner
        for runner in runners
        if runner.labels.get(MODEL) == runner.labels[RUNNER]
        and user in (None, runner.labels.get(USER))
        and runner.expected
    ]
    if len({runner.labels[RUNNER] for runner in free}) != 1:
        return None
    if not any(_has(runner, where) for runner in free):
        return None
    runner_id = free[0].labels[RUNNER]
    labels = {RUNNER: runner_id, **where} | ({} if user is None else {USER: user})
    return Target(runner_id, Route(labels=labels))


def _has(runner: Runner, labels: Labels) -> bool:
    return all(runner.labels.get(name) == value for name, value in labels.items())


def _may_be(runner: Runner, labels: Labels) -> bool:
    return all(runner.labels.get(name, value) == value for name, value in labels.items())


def _is_hidden(command: str) -> bool:
    return command in (INITIALIZE, CLEANUP) or command.endswith(_RAW)
