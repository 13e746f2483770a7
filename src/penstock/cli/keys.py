"""`penstock keys`: make keys, and look at a file of them.  A key is shown once, and kept nowhere."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.exits import Exit, fail

if TYPE_CHECKING:
    from penstock.protocol.keys import Key

keys = typer.Typer(help="Make keys, and look at a file of them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Whose key it is.")]
Scopes = Annotated[
    list[str] | None, typer.Option("--scope", help="caller (the default), admin, runner or metrics.")
]
Commands = Annotated[
    list[str] | None, typer.Option("--command", help="What a runner with this key may offer; else anything.")
]
Expires = Annotated[str | None, typer.Option(help="When it ends, such as 2027-01-31 (UTC); else never.")]
File = Annotated[Path | None, typer.Option(help="The file to add it to; else its line is printed.")]
Existing = Annotated[Path, typer.Argument(help="A file of keys.")]


@keys.command("new")
def new_key(
    name: Name,
    scope: Scopes = None,
    command: Commands = None,
    expires: Expires = None,
    file: File = None,
) -> None:
    """Make a key.

    It is printed, and what a server keeps of it is added to the file, or printed as well.
    """
    import secrets

    from penstock.errors import PenstockError
    from penstock.protocol.keys import KEY_BYTES, Key, digest_of, make_token, parse_moment, parse_scope

    token = make_token(secrets.token_bytes(KEY_BYTES))
    try:
        key = Key(
            name=name,
            digest=digest_of(token),
            scopes=frozenset(map(parse_scope, scope or ("caller",))),
            expires_at=None if expires is None else parse_moment(expires),
            commands=frozenset(command) if command else None,
        )
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    if file is not None:
        try:
            add_key(file, key)
        except PenstockError as error:
            fail(str(error))
    print(token)
    if file is None:
        print(key.line())
        print("penstock: the key, and the line for the file of keys; neither is kept", file=sys.stderr)
    else:
        print(f"penstock: {name} is in {file}; its key is shown this once", file=sys.stderr)


@keys.command("check")
def check_keys(file: Existing) -> None:
    """Show the keys of a file, and what is wrong with it."""
    import time

    from penstock.errors import PenstockError
    from penstock.server.auth import open_to_others, read_keys

    try:
        table = read_keys(file)
        words = open_to_others(file)
    except PenstockError as error:
        fail(str(error))
    now = time.time()
    for key in table:
        scopes = ",".join(sorted(scope.value for scope in key.scopes))
        until = "" if key.expires_at is None else f"  {_until(key.expires_at, now)}"
        only = "" if key.commands is None else f"  offers {','.join(sorted(key.commands))}"
        print(f"{key.name}  {key.id}  {scopes}{until}{only}")
    if words is not None:
        print(f"penstock: {words}", file=sys.stderr)


def _until(expires_at: float, now: float) -> str:
    moment = datetime.fromtimestamp(expires_at, timezone.utc)
    return f"{'expired' if expires_at <= now else 'until'} {moment:%Y-%m-%d %H:%M} UTC"


def add_key(file: Path, key: Key) -> None:
    """Add a key to a file as a whole or not at all; others cannot read it, whatever they could before.

    Raises:
        PenstockError: The file has mistakes or a key of that name, or cannot be written.
    """
    from penstock.errors import PenstockError
    from penstock.protocol.keys import KeyTable, parse_keys

    file = file.resolve()  # what a link points to is written, and not the link
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        KeyTable((*parse_keys(text), key))
        _replace(file, text + ("" if text.endswith("\n") or not text else "\n") + key.line() + "\n")
    except FileExistsError as error:
        raise PenstockError(
            f"{error.filename} is there: somebody adds a key just now, or was interrupted; then remove it"
        ) from error
    except OSError as error:
        raise PenstockError(f"{file} cannot be written: {error.strerror}") from error
    except (ValueError, PenstockError) as error:
        raise PenstockError(f"nothing was added to {file}: {error}") from error


def _replace(file: Path, text: str) -> None:
    """Write a file anew.  The one it is made of is there once only, so that two writers do not meet."""
    import os

    made = file.with_name(f"{file.name}.new")
    handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(made, file)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
