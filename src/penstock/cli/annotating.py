"""One run of `penstock annotate`: what was typed as settings, its progress, and what Ctrl-C does to it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import typer
import yaml

from penstock.annotate.annotating import DOWNLOADS, Address, Annotating, annotate
from penstock.annotate.answers import parse_format
from penstock.annotate.errors import ConfigError
from penstock.annotate.extras import needed
from penstock.annotate.media.feeds import is_live
from penstock.annotate.media.sampling import SCENE
from penstock.annotate.media.survey import survey
from penstock.annotate.records import Manifest, encode
from penstock.annotate.settings import Settings
from penstock.calls.tasks import TaskOwner
from penstock.cli.exits import Exit
from penstock.cli.serving import run_loop

SHOWN_S = 0.2  # between two looks at the progress on a terminal
LINES_S = 10.0  # ... and anywhere else

_SAMPLING = ("every", "fps", "keyframes", "begin", "end", "limit")
_REFINING = ("min_score", "overlaps", "iou", "polygons")


class Asked(NamedTuple):
    """What was typed."""

    command: Sequence[str]
    params: Mapping[str, Any]
    answer: str
    image: str
    send: str
    plain: bool
    clarifai: bool
    batch: int | None
    every: int | None
    fps: str | None
    keyframes: bool
    scenes: bool
    scene_change: float | None
    frames: str | None
    begin: str | None
    end: str | None
    limit: int | None
    refine: Path | None
    min_score: float | None
    overlaps: str | None
    iou: float | None
    polygons: bool
    track: bool
    fill: float | None
    on_error: str
    tries: int

    def settings(self) -> Settings:
        """Return it as settings.

        Raises:
            ConfigError: It is contradictory.
        """
        form, _, quality = self.send.partition(":")
        if self.clarifai and form == "raw":
            form = "png"
        fields: dict[str, Any] = {
            "models": [self._model(command) for command in self.command],
            "sampling": self._sampling(),
            "form": form,
            "quality": quality or 90,
            "refining": {**self._refining(), **self._typed(_REFINING)},
            "tracking": {"fill_s": self.fill or 0.0} if self.track else None,
            "on_error": self.on_error,
            "tries": self.tries,
        }
        try:
            return msgspec.convert(fields, Settings, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(str(error)) from error

    def _model(self, command: str) -> dict[str, Any]:
        answer = msgspec.to_builtins(parse_format(self.answer))
        return {
            "command": command,
            "params": self.params,
            "param": self.image,
            "plain": self.plain,
            "style": "clarifai" if self.clarifai else "penstock",
            "batch": self.batch,
            "answer": answer,
        }

    def _sampling(self) -> dict[str, Any]:
        found = self._typed(_SAMPLING)
        if self.frames is not None:
            found["frames"] = self.frames.split(",")
        if self.scenes or self.scene_change is not None:
            found["scenes"] = SCENE if self.scene_change is None else self.scene_change
        return found

    def _typed(self, names: Sequence[str]) -> dict[str, Any]:
        values = ((name, getattr(self, name)) for name in names)
        return {name: value for name, value in values if value is not None and value is not False}

    def _refining(self) -> dict[str, Any]:
        if self.refine is None:
            return {}
        try:
            found = yaml.safe_load(self.refine.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{self.refine} cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise ConfigError(f"{self.refine} should have names and values")
        if isinstance(found.get("begins"), datetime):  # YAML knows times; everywhere else they are text
            found["begins"] = found["begins"].isoformat()
        return found


def run(
    sources: Sequence[str], model: str, asked: Asked, options: Mapping[str, Any], *, dry: bool, as_json: bool
) -> None:
    """Annotate, or show what would be.

    Raises:
        PenstockError: It cannot be done.
        ConfigError: What was asked is contradictory.
        typer.Exit: It was interrupted.
    """
    if not asked.command and not dry:
        raise ConfigError("name what is asked about each frame: --command NAME")
    settings = asked.settings()
    if dry and (options["live"] or any(map(is_live, sources))):
        raise ConfigError("what a live source will show is not known before; leave --dry-run out")
    if dry:
        asyncio.run(_survey(sources, settings, options["out"], options["threads"]))
        return
    stdin = sys.stdin.buffer if "-" in sources else None
    annotating = annotate(sources, _address(model), settings, stdin=stdin, **options)
    run_loop(_run(annotating, options["out"], as_json))


def _address(model: str) -> Address:
    if "://" in model:
        return model
    path = Path(model)
    if not path.exists():
        raise ConfigError(f"{model} is neither a URL nor a project here")

    from penstock.compose import local_model

    return local_model(path)


async def _run(annotating: Annotating, out: Path, as_json: bool) -> None:
    tasks = TaskOwner()
    interrupted = False
    work = tasks.start(_write(annotating, as_json), awaited=True)

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        work.cancel()

    with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt, which ends it too
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupt)
    showing = tasks.start(_show(annotating))
    try:
        await work
    except asyncio.CancelledError as error:
        if not interrupted:
            raise
        _say(f"ended after {annotating.progress.frames} frames; the same command goes on from there")
        raise typer.Exit(Exit.INTERRUPTED) from error
    finally:
        showing.cancel()
        await tasks.aclose()
    _sum_up(annotating.manifest, out)


async def _write(annotating: Annotating, as_json: bool) -> None:
    async with annotating as frames:
        async for frame in frames:
            if as_json:
                sys.stdout.buffer.write(encode(frame))
                sys.stdout.buffer.flush()


async def _show(annotating: Annotating) -> None:
    """Show how far it is: as a line that changes on a terminal, else as a line now and then."""
    terminal = sys.stderr.isatty()
    try:
        while True:
            await asyncio.sleep(SHOWN_S if terminal else LINES_S)
            line = describe(annotating)
            print(
                f"\r{line:<100}" if terminal else line,
                end="" if terminal else "\n",
                file=sys.stderr,
                flush=True,
            )
    finally:
        if terminal:
            print("\r" + " " * 100 + "\r", end="", file=sys.stderr, flush=True)


def describe(annotating: Annotating) -> str:
    """Return how far a run is, in a line."""
    progress = annotating.progress
    where = f"{progress.seconds:.1f} s"
    left = ""
    if progress.total:
        where = f"{progress.seconds:.1f} of {progress.total:.1f} s"
        passed = time.monotonic() - progress.began
        done = (progress.seconds - progress.skipped) / passed if passed > 0 else 0.0
        if done > 0:
            left = f", {max(0.0, progress.total - progress.seconds) / done:.0f} s left"
    dropped = f", {progress.dropped} dropped" if progress.dropped else ""
    lost = f", {progress.lost} lost" if progress.lost else ""
    failed = f", {progress.failed} failed" if progress.failed else ""
    return (
        f"{progress.name} ({progress.file} of {progress.files}): {where}, {progress.frames} frames, "
        f"{progress.rate:.1f} a second{left}, {progress.regions} regions{dropped}{failed}{lost}"
    )


def _sum_up(manifest: Manifest, out: Path) -> None:
    counts = manifest.counts
    _say(f"{counts['frames']} frames, {counts['regions']} regions in {out / 'annotations.jsonl'}")
    if manifest.drops:
        _say("dropped: " + ", ".join(f"{count} for {reason}" for reason, count in manifest.drops.items()))
    if counts.get("failed"):
        _say(f"{counts['failed']} frames failed; their lines have the code")
    if counts.get("lost"):
        _say(f"{counts['lost']} frames came faster than they were looked at, and were left out; see the log")
    for one in manifest.damage:
        until = "its end" if one.end is None else f"{float_of(one.end):.2f} s"
        since = "its beginning" if one.begin is None else f"{float_of(one.begin):.2f} s"
        _say(f"{one.name} is damaged ({one.why}): {since} to {until}, {one.packets} bad packets")
    for source in manifest.sources:
        if source.problem:
            _say(f"{source.name}: {source.problem}")


def float_of(text: str) -> float:
    """Return exact seconds as a number to show."""
    from fractions import Fraction

    return float(Fraction(text))


async def _survey(sources: Sequence[str], settings: Settings, out: Path, threads: int) -> None:
    from penstock.annotate.media.sources import find

    stdin = sys.stdin.buffer if "-" in sources else None
    media = find(sources, out / DOWNLOADS, settings.limits, stdin)
    if any(one.kind == "video" for one in media):
        needed("av", "video")
    async with aclosing(survey(media, settings.sampling, settings.limits, threads)) as found:
        async for one in found:
            length = "" if one.seconds is None else f", {float_of(one.seconds):.2f} s"
            frames = "" if one.frames is None else f" of {one.frames}"
            print(f"{one.name}: {one.chosen}{frames} frames{length}{one.problem and ': ' + one.problem}")


def _say(text: str) -> None:
    print(f"penstock: {text}", file=sys.stderr)
