"""Commands that a runner offers: as it says them, and as the gateway's executor sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import CommandDescription, Description
from penstock.protocol.messages import OnDisconnect
from penstock.protocol.runners import Offer, OfferedTimeouts
from penstock.runtime.command import BoundCommand, Command, Kind
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_parts import CommandSettings, Timeouts
from penstock.runtime.parameters import InputSchema
from penstock.runtime.plain_input import plainly_fits
from penstock.runtime.workflow import Workflow

MAX_CHECKED = 64 * 1024  # bytes of an input that is checked here; larger ones would hold up other calls
_FAULTS = (msgspec.MsgspecError, ValueError, RecursionError)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class OfferedInput(InputSchema):
    """The input of a command that a runner checks: here it only has to be an object."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        super().__init__((), "a runner's command")
        self.json_schema = dict(schema)

    def surely_takes(self, text: bytes) -> bool:
        """Whether ``text``, JSON, is small and plainly fits; what does not may still be right."""
        if len(text) > MAX_CHECKED:
            return False
        try:
            return plainly_fits(msgspec.json.decode(text), self.json_schema)
        except _FAULTS:
            return False

    def validate(self, text: bytes) -> dict[str, Any]:
        """Return no arguments, as the text itself is handed on.

        Raises:
            CallError: ``invalid_argument``; it is no object.
        """
        try:
            _object(text)
        except _FAULTS as error:
            raise CallError(
                "input: input should be an object",
                ErrorCode.INVALID_ARGUMENT,
                details=[{"path": ["input"], "reason": "dict_type"}],
            ) from error
        return {}


def bind_offer(offer: Offer) -> BoundCommand:
    """Return an offer as a command that the executor runs, once it is told where."""
    command = Command(
        name=offer.name,
        function=_nowhere,
        kind=Kind.ASYNC_GENERATOR if offer.streaming else Kind.AWAITABLE,
        description=offer.description,
        parameters=(),
        concurrency=offer.concurrency,
        queue=offer.queue,
    )
    return BoundCommand(command, OfferedInput(offer.input_schema), (), _settings(offer))


def describe_offer(offer: Offer) -> CommandDescription:
    """Return what `GET /v2/commands` shows of an offer."""
    return CommandDescription(
        description=offer.description,
        streaming=offer.streaming,
        input_schema=offer.input_schema,
        item_schema=offer.item_schema,
        openai=offer.openai,
        model=offer.model,
    )


def describe_offers(
    manifest: Manifest, default: str, offers: Mapping[str, Offer], workflows: Mapping[str, Workflow]
) -> Description:
    """Return what serves offers, and the workflows that come with them.

    Args:
        manifest: Its name and version.
        default: The command of calls that name none.
    """
    return Description(
        name=manifest.name,
        version=manifest.version,
        default_command=default,
        commands={name: describe_offer(offer) for name, offer in offers.items()},
        workflows={name: workflow.describe() for name, workflow in workflows.items()},
    )


def make_offer(bound: BoundCommand, shown: CommandDescription) -> Offer:
    """Return what a runner offers of a command.

    Args:
        shown: Its description.
    """
    settings, timeouts = bound.settings, bound.settings.timeouts
    left = settings.on_disconnect
    grace_s = None if left is None else -1.0 if left.grace_s is None else left.grace_s
    return Offer(
        name=bound.command.name,
        description=shown.description[:4096],
        streaming=shown.streaming,
        input_schema=dict(shown.input_schema),
        item_schema=dict(shown.item_schema),
        takes_stream=bound.input.stream is not None,
        counts_input=bound.input.stream is not None,
        concurrency=bound.concurrency,
        queue=bound.queue,
        idempotent=settings.idempotent,
        timeouts=OfferedTimeouts(
            queue_s=timeouts.queue_s,
            first_item_s=timeouts.first_item_s,
            gap_s=timeouts.gap_s,
            total_s=timeouts.total_s,
        ),
        disconnect_s=grace_s,
        openai=shown.openai,
        model=shown.model,
    )


def _settings(offer: Offer) -> CommandSettings:
    timeouts = offer.timeouts
    grace_s = offer.disconnect_s
    return CommandSettings(
        concurrency=offer.concurrency,
        queue=offer.queue,
        timeouts=Timeouts(
            queue_s=timeouts.queue_s,
            first_item_s=timeouts.first_item_s,
            gap_s=timeouts.gap_s,
            total_s=timeouts.total_s,
        ),
        idempotent=offer.idempotent,
        on_disconnect=None if grace_s is None else OnDisconnect(None if grace_s < 0 else grace_s),
    )


def _nowhere() -> NoReturn:
    raise AssertionError("a runner's command runs on no gateway")
