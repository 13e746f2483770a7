"""Keys for tests, and the file of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from penstock.protocol.dispatch import Caller
from penstock.protocol.keys import Key, Scope, digest_of, make_token


class Holder(NamedTuple):
    """Somebody with a key."""

    token: str
    key: Key

    @property
    def caller(self) -> Caller:
        """Whom a dispatcher takes them for."""
        return Caller(key=self.key.id, admin=Scope.ADMIN in self.key.scopes)

    @property
    def headers(self) -> dict[str, str]:
        """What they send."""
        return {"authorization": f"Bearer {self.token}"}


def holder(name: str, *scopes: Scope, expires_at: float | None = None) -> Holder:
    """Return somebody of this name, always with the same key."""
    token = make_token(name.encode().ljust(32, b"."))
    granted = frozenset(scopes or (Scope.CALLER,))
    return Holder(token, Key(name=name, digest=digest_of(token), scopes=granted, expires_at=expires_at))


ANNA, BEN = holder("anna"), holder("ben")
ROOT = holder("root", Scope.ADMIN)
RUNNER, METRICS = holder("runner", Scope.RUNNER), holder("metrics", Scope.METRICS)
EXPIRED = holder("expired", expires_at=1.0)
STRANGER = holder("stranger")  # in no file
EVERYBODY = (ANNA, BEN, ROOT, RUNNER, METRICS, EXPIRED)


def write_keys(path: Path, *holders: Holder) -> Path:
    """Write a file of keys as it should be."""
    path.write_text("".join(f"{each.key.line()}\n" for each in holders))
    path.chmod(0o600)
    return path
