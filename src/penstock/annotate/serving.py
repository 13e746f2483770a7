"""``annotate`` as a streaming command, for callers who know a server only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from penstock.annotate.annotating import Address, annotate
from penstock.annotate.errors import AnnotateError
from penstock.annotate.media.messages import Limits
from penstock.annotate.run import Progress
from penstock.annotate.settings import Settings
from penstock.errors import CommandError

Item = dict[str, Any]

_NONE: Mapping[str, str] = MappingProxyType({})


def annotate_command(
    model: Address,
    *,
    root: Path,
    out: Path,
    limits: Limits | None = None,
    window: int = 4,
    live: Mapping[str, str] = _NONE,
) -> Callable[..., AsyncIterator[Item]]:
    """Return a function to make a streaming command of.

    Its items are ``{"record": ..., "progress": ...}`` for each frame that is written now, and at the end
    ``{"manifest": ...}``.  The same call, made again, goes on where the last one ended.

    Args:
        model: Reaches the commands that are asked, which are not those of the same server's own process.
        root: The folder below which callers may name files.
        out: The folder of the logs, each in a folder of its own.
        limits: What a file may cost.
        window: How many frames are under way at once.
        live: Live sources that callers may name, and what each is; see ``annotate``.  Records have its host
            and path as their name.
    """
    allowed = limits or Limits()

    async def annotate_files(
        source: str,
        command: str,
        image: str = "image",
        batch: int | None = None,
        params: dict[str, Any] = {},  # noqa: B006 - never written to
        answer: dict[str, Any] = {},  # noqa: B006
        sampling: dict[str, Any] = {},  # noqa: B006
        refining: dict[str, Any] = {},  # noqa: B006
        tracking: dict[str, Any] | None = None,
        on_error: str = "fail",
    ) -> AsyncIterator[Item]:
        """Annotate a file, or the files of a folder, with what a command detects."""
        spec = live.get(source) or str(await asyncio.to_thread(_below, root, source))
        asked = {"command": command, "param": image, "batch": batch, "params": params, "answer": answer}
        fields = {"models": [asked], "sampling": sampling, "refining": refining, "tracking": tracking}
        settings = _settings({**fields, "on_error": on_error}, allowed)
        folder = out / _name(source, settings)
        try:
            run = annotate(spec, model, settings, out=folder, window=window, live=source in live)
            async with run as frames:
                async for frame in frames:
                    yield {"record": msgspec.to_builtins(frame), "progress": _told(frames.progress)}
                yield {"manifest": msgspec.to_builtins(frames.manifest)}
        except AnnotateError as error:
            raise CommandError(str(error), "failed_precondition") from error

    return annotate_files


def _told(progress: Progress) -> dict[str, Any]:
    return {"seconds": progress.seconds, "total": progress.total, "lost": progress.lost}


def _below(root: Path, source: str) -> Path:
    """Return the path of a file below a folder, however it is written.

    Raises:
        CommandError: It is not there, or elsewhere.
    """
    base = root.resolve()
    path = (base / source).resolve()
    if not path.is_relative_to(base) or not path.exists():
        raise CommandError(f"there is no file {source!r}", "not_found")
    if path.is_dir() and not all(one.resolve().is_relative_to(base) for one in path.rglob("*")):
        raise CommandError(f"{source!r} holds links that lead elsewhere", "permission_denied")
    return path


def _settings(fields: Mapping[str, Any], limits: Limits) -> Settings:
    try:
        return msgspec.structs.replace(msgspec.convert(fields, Settings, strict=False), limits=limits)
    except msgspec.ValidationError as error:
        raise CommandError(f"the input makes no sense: {error}", "invalid_argument") from error


def _name(source: str, settings: Settings) -> str:
    """Return what a call's folder is called: the same for the same call."""
    text = msgspec.json.encode((source, settings.as_json()), order="deterministic")
    return sha256(text).hexdigest()[:24]
