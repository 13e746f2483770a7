"""All that a gateway serves for clients of the SDK, and for its command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.calls.clock import Clock, SystemClock
from penstock.gateway.clarifai.binding import Bindings
from penstock.gateway.clarifai.calls import Calls
from penstock.gateway.clarifai.control_plane import ControlPlane
from penstock.gateway.clarifai.entering import Entrance
from penstock.gateway.clarifai.guard import Guard
from penstock.gateway.clarifai.inputs import Inputs
from penstock.gateway.clarifai.labelling import Labelling
from penstock.gateway.clarifai.models import Models
from penstock.gateway.clarifai.records import Records
from penstock.gateway.clarifai.targets import Targets
from penstock.gateway.hub import Hub


@dataclass(frozen=True)
class Clients:
    """What is served.

    Attributes:
        bindings: Which model each announced runner is for.
        services: Objects whose methods are RPCs of the API.
    """

    bindings: Bindings
    services: Sequence[object]


def serve_clients(hub: Hub, guard: Guard, clock: Clock | None = None) -> Clients:
    """Return what is served for clients.

    Args:
        hub: Runs their calls.
        guard: Lets them in.
        clock: Tells the time.
    """
    records, targets, entrance = Records(), Targets(hub), Entrance(guard)
    services = (
        Calls(hub, targets, records, entrance, clock or SystemClock()),
        Models(records, targets, entrance),
        ControlPlane(records, targets, entrance),
        Inputs(records, entrance),
        Labelling(hub, records, targets, entrance),
    )
    return Clients(records, services)
