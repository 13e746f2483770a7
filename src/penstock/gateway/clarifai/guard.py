"""Who is let in over gRPC: the keys are those of every other door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from penstock.errors import CallError, ErrorCode
from penstock.gateway.door import Visitor
from penstock.protocol.dispatch import Caller

SCHEMES = frozenset(("key", "bearer"))
SESSION_TOKEN = "x-clarifai-session-token"


class Guard(Protocol):
    """Lets callers and runners in, or refuses them."""

    def enter(self, token: str | None, asked: Caller) -> Caller:
        """Return who calls.

        Args:
            token: The key it shows.
            asked: What else is known of the request.

        Raises:
            CallError: ``unauthenticated`` or ``permission_denied``.
        """
        ...

    def enter_host(self, token: str | None) -> Visitor:
        """Return who offers commands.

        Raises:
            CallError: ``unauthenticated`` or ``permission_denied``.
        """
        ...

    def still(self, caller: Caller) -> bool:
        """Whether somebody who was let in to call still would be, as who they were."""
        ...


def metadata_of(pairs: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """Return a call's metadata; of a name that stands twice the last counts, and binary ones are left out.

    Raises:
        CallError: ``unauthenticated``; two different keys are in it.
    """
    found: dict[str, str] = {}
    for name, value in pairs or ():
        if isinstance(value, bytes):
            continue
        if name in ("authorization", SESSION_TOKEN) and found.get(name, value) != value:
            raise CallError(f"{name} stands twice in the metadata; send one key", ErrorCode.UNAUTHENTICATED)
        found[name] = value
    return found


def token_in(metadata: Mapping[str, str]) -> str | None:
    """Return the key that came with a call: ``authorization: Key …`` (or ``Bearer …``), or a session token.

    Raises:
        CallError: ``unauthenticated``; it is of another form.
    """
    said = metadata.get("authorization")
    if said is None:
        token = metadata.get(SESSION_TOKEN)
        return None if token is None else token.strip()
    scheme, _, token = said.partition(" ")
    if scheme.lower() not in SCHEMES or not token.strip():
        text = "authorization is not of the form `Key KEY` or `Bearer KEY`"
        raise CallError(text, ErrorCode.UNAUTHENTICATED)
    return token.strip()


def check_known(guard: Guard, pairs: Iterable[tuple[str, str | bytes]] | None) -> None:
    """See that a call comes with a key that is good for anything here.

    Raises:
        CallError: ``unauthenticated`` or ``permission_denied``.
    """
    token = token_in(metadata_of(pairs))
    try:
        guard.enter(token, Caller())
    except CallError as error:
        if error.code is not ErrorCode.PERMISSION_DENIED:
            raise
        guard.enter_host(token)
