"""The manifest beside a log: written whole each time, and held against what is asked for now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from penstock.annotate.errors import ResumeError
from penstock.annotate.records import Manifest
from penstock.annotate.storage import kept

MANIFEST = "manifest.json"

_DECODERS = ("av", "ffmpeg", "pillow")


def save(manifest: Manifest, path: Path) -> None:
    """Write a manifest; whoever reads it meanwhile, or after a loss of power, finds the old or the new.

    Raises:
        StorageError: It cannot be written; the old one is as it was.
    """
    part = path.with_name(path.name + ".part")
    with kept(path):
        try:
            with open(part, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)  # what there is of it takes room
            raise


def load(path: Path) -> Manifest | None:
    """Read a manifest, if there is one.

    Raises:
        ResumeError: It is no manifest of this version.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ResumeError(f"{path} is no manifest ({error}); begin anew with --restart") from error


def digest_of(settings: Mapping[str, Any]) -> str:
    """Return the digest of settings, in whatever order they stand."""
    return f"sha256:{hashlib.sha256(msgspec.json.encode(settings, order='deterministic')).hexdigest()}"


def check_same(before: Manifest, now: Manifest, path: Path) -> None:
    """Refuse to go on with a log that was made of something else.

    Raises:
        ResumeError: Naming what differs.
    """
    differs = [f"the setting {name}" for name in _changed(before.settings, now.settings)]
    if before.command != now.command:
        differs.append(f"the command ({before.command}, now {now.command})")
    differs += [f"the model's {name}" for name in _changed(before.model, now.model)]
    differs += _changed_sources(before, now)
    decoders = [{name: made.versions.get(name) for name in _DECODERS} for made in (before, now)]
    differs += [f"the version of {name}" for name in _changed(*decoders)]
    if differs:
        raise ResumeError(
            f"{path.parent} was begun with something else; changed: {', '.join(differs)}. Ask for the same, "
            "write to another folder with --out, or begin anew with --restart"
        )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def _changed_sources(before: Manifest, now: Manifest) -> list[str]:
    had = {source.name: source.digest for source in before.sources}
    have = {source.name: source.digest for source in now.sources}
    if list(had) != list(have):
        return ["which files there are"]
    return [f"the file {name}" for name in _changed(had, have)]
