"""What a shell offers behind Tab beside verbs and flags: commands of the server, their inputs, files, models.

Whoever presses Tab waits: a server that does not answer soon is passed over, and so is every fault.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

WAIT_S = 1.0  # for a server
_SIGNS = ("=@", ":=@", "@")
_MANY = 1 << 24  # bytes of an answer that are read


def command_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the commands of the server that begin so."""
    return _beginning(_commands(context), incomplete)


def input_words(context: typer.Context, incomplete: str) -> list[str]:
    """Return the inputs of the command that begin so, for text and for a file; behind an `@` the files."""
    if "@" in incomplete:
        name, _, file = incomplete.partition("@")
        return [f"{name}@{path}" for path in _files(file)]
    if (context.params.get("inputs") or [""])[-1] in ("=", ":="):  # where bash has broken a word
        return []
    told = _commands(context).get(str(context.params.get("name")), {})
    fields = told.get("input_schema", {}).get("properties", {})
    signed = [f"{name}{'=' if _takes_text(schema) else ':='}" for name, schema in fields.items()]
    # Two for each, so that a shell puts no space behind the sign.
    return _beginning([f"{word}{more}" for word in signed for more in ("", "@")], incomplete)


def files_in_bash() -> list[str] | None:
    """Return what a bash that asks for completion, by its script's variables, puts in the place of an `@`
    and what is behind it; None if it asks for something else.

    It breaks words at `=` and `@`, of which typer knows nothing, but completes the `@` with what follows.
    """
    words = os.environ.get("COMP_WORDS", "").split("\n")
    at = int(os.environ.get("COMP_CWORD", "0"))
    if words[1:2] not in (["call"], ["bench"]) or not 2 < at < len(words):
        return None
    if words[at] in _SIGNS:
        return [f"@{path}" for path in _files("")]
    return [f"@{path}" for path in _files(words[at])] if words[at - 1] in _SIGNS else None


def known_models(incomplete: str) -> list[str]:
    """Return the models that can be pulled by name."""
    from penstock.engines.store import KNOWN

    return _beginning(KNOWN, incomplete)


def schema_names(incomplete: str) -> list[str]:
    """Return the types of the typed protocol."""
    from penstock.protocol.schema import schemas

    return _beginning(schemas(), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _takes_text(schema: Mapping[str, Any]) -> bool:
    return any(each.get("type") == "string" for each in (schema, *schema.get("anyOf", ())))


def _files(begun: str) -> Iterator[str]:
    shown, _, beginning = begun.rpartition("/")
    shown += "/" * ("/" in begun)
    try:
        found = sorted(Path(shown or ".").expanduser().iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(beginning):
            yield f"{shown}{path.name}{'/' if path.is_dir() else ''}"


def _commands(context: typer.Context) -> Mapping[str, Any]:
    """Return what the server tells of its commands; nothing where it cannot be asked."""
    from urllib.request import Request, urlopen  # they would make every start slower

    url = context.params.get("url") or os.environ.get("PENSTOCK_URL") or ""
    try:
        request = Request(f"{_http(str(url))}/v2/commands")
        if key := os.environ.get("PENSTOCK_API_KEY"):
            request.add_header("Authorization", f"Bearer {key}")
        with urlopen(request, timeout=WAIT_S) as answer:
            found: Mapping[str, Any] = json.loads(answer.read(_MANY))["commands"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def _http(url: str) -> str:
    url = url.rstrip("/") or "http://127.0.0.1:8000"
    return f"http{url[2:]}" if url.startswith("ws") else url
