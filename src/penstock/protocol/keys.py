"""Keys, as they stand in a file: hashed, one to a line, each with what it may do.

::

    # name  digest  what it may do
    alice  sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b  scopes=caller
    gpu-1  sha256:8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918  scopes=runner

The hash is a fast one on purpose.  Slow ones make it costly to guess what people have thought of; a key is 32
random bytes, which nobody guesses, and every request pays for the hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from enum import Enum

import msgspec

from penstock.errors import PenstockError

KEY_BYTES = 32
KEY_PREFIX = "penstock_"  # so that those who search texts for secrets know what they have found
ID_DIGITS = 16

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HASH = "sha256:"
_FIRST_YEAR, _LAST_YEAR = 1970, 9998  # whatever the offset, it can be said as Unix seconds and in UTC


class Scope(str, Enum):
    """What a key may be used for."""

    CALLER = "caller"  # run commands, and see and cancel the calls it opened
    ADMIN = "admin"  # all of that for everybody's calls, `initialize` and `cleanup`, metrics
    RUNNER = "runner"  # offer commands to a gateway
    METRICS = "metrics"  # read /metrics


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key that somebody has; the key itself is not in it.

    Attributes:
        name: For people.
        digest: SHA-256 of the key, in hex.
        scopes: What it may be used for.
        expires_at: Unix seconds; None: never.
        commands: Those that a runner with this key may offer; None: any.
    """

    name: str
    digest: str
    scopes: frozenset[Scope]
    expires_at: float | None = None
    commands: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name[:80]!r} is no name: up to 64 letters, digits and _ . @ -")
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"the digest is not {_HASH} and 64 hex digits")
        if not self.scopes:
            raise ValueError(f"it has no scope; say scopes= with {_words(Scope)}")
        if self.commands is not None and Scope.RUNNER not in self.scopes:
            raise ValueError("commands= is for keys of the scope runner")

    @property
    def id(self) -> str:
        """What calls and logs know it by; says nothing of the key."""
        return self.digest[:ID_DIGITS]

    def valid_at(self, now: float) -> bool:
        """Whether it has not expired at ``now`` (Unix seconds)."""
        return self.expires_at is None or now < self.expires_at

    def line(self) -> str:
        """Return it as a line of a file."""
        parts = [self.name, _HASH + self.digest, f"scopes={_words(self.scopes)}"]
        if self.expires_at is not None:
            moment = datetime.fromtimestamp(self.expires_at, timezone.utc)
            parts.append(f"expires={moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z")
        if self.commands is not None:
            parts.append(f"commands={','.join(sorted(self.commands))}")
        return "  ".join(parts)


class KeyTable:
    """Keys by what they hash to.

    Raises:
        ValueError: Two of them have one name, or are one key.
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_id: dict[str, Key] = {}
        self._names: set[str] = set()
        for key in keys:
            self._add(key)

    def _add(self, key: Key) -> None:
        if key.name in self._names:
            raise ValueError(f"there are two keys of the name {key.name}")
        if key.id in self._by_id:
            raise ValueError(f"{key.name} and {self._by_id[key.id].name} are one key")
        self._names.add(key.name)
        self._by_id[key.id] = key

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_id.values())

    def find(self, token: str, now: float) -> Key | None:
        """Return the key that ``token`` is, unless it has expired at ``now`` (Unix seconds).

        Looking up by part of a digest tells at most, by its time, how a hash begins; nobody can choose what
        a key hashes to.  What decides is the comparison in constant time.
        """
        digest = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        key = self._by_id.get(digest[:ID_DIGITS])
        if key is None or not hmac.compare_digest(key.digest, digest) or not key.valid_at(now):
            return None
        return key

    def get(self, key_id: str, now: float) -> Key | None:
        """Return the key of this id, unless it has expired at ``now``."""
        key = self._by_id.get(key_id)
        return key if key is not None and key.valid_at(now) else None


def make_token(random: bytes) -> str:
    """Return a new key, made of ``random`` bytes.

    Raises:
        ValueError: They are too few.
    """
    if len(random) < KEY_BYTES:
        raise ValueError(f"a key is made of {KEY_BYTES} bytes")
    return KEY_PREFIX + base64.urlsafe_b64encode(random).decode().rstrip("=")


def digest_of(token: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def parse_keys(text: str) -> KeyTable:
    """Read a file of keys.

    Raises:
        PenstockError: It has mistakes; all of them are told, each with its line.
    """
    table = KeyTable()
    faults: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if fields and not fields[0].startswith("#"):
            try:
                table._add(_parse(fields))
            except ValueError as error:
                faults.append(f"line {number}: {error}")
    if faults:
        raise PenstockError("\n".join(faults))
    return table


def parse_moment(text: str) -> float:
    """Return a date, or a date with a time, as Unix seconds; without an offset it is in UTC.

    Raises:
        ValueError: It is none.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            raise ValueError(moment.year)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is no time; write 2027-01-31 or 2027-01-31T12:00:00Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def parse_scope(text: str) -> Scope:
    """Return the scope of this name.

    Raises:
        ValueError: There is none.
    """
    try:
        return Scope(text)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is no scope; there are {_words(Scope)}") from error


def _parse(fields: list[str]) -> Key:
    if len(fields) < 3:
        raise ValueError("a key is NAME sha256:DIGEST scopes=SCOPE,…; `penstock keys new` writes such a line")
    name, digest, *rest = fields
    if not digest.startswith(_HASH):
        raise ValueError(f"the digest does not begin with {_HASH}; is this the key itself?")
    options: dict[str, str] = {}
    for option in rest:
        word, equals, value = option.partition("=")
        if word not in ("scopes", "expires", "commands") or not equals:
            raise ValueError(f"{word[:40]!r} is none of scopes=, expires= and commands=")
        if word in options:
            raise ValueError(f"{word}= stands twice")
        options[word] = value
    return Key(
        name=name,
        digest=digest.removeprefix(_HASH),
        scopes=frozenset(map(parse_scope, _split(options.get("scopes", "")))),
        expires_at=parse_moment(options["expires"]) if "expires" in options else None,
        commands=frozenset(_split(options["commands"])) if "commands" in options else None,
    )


def _split(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _words(scopes: Iterable[Scope]) -> str:
    return ",".join(sorted(scope.value for scope in scopes))
