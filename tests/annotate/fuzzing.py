"""Annotates files that are broken at random: ``fuzzing.py SAMPLES OUT SEED SECONDS``.

What came of each is a line of JSON on standard output; whatever it ends with but 0 is a fault of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from annotate import streams
from annotate.detectors import rt
from penstock import App
from penstock.annotate import Limits, Model, Sampling, Settings, annotate
from penstock.annotate.errors import AnnotateError
from penstock.annotate.records import End, Manifest, decode

BATCH = 75  # files of one run
LIMITS = Limits(pixels=1_000_000, seconds=600.0, memory=1024**3, stall_s=10.0)


def broken(data: bytes, chance: random.Random) -> bytes:
    """Return data that is broken in one way or several."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        how = chance.choice(("flip", "flip", "head", "truncate", "zero", "noise", "cut", "twice"))
        at = chance.randrange(len(made)) if len(made) else 0
        size = min(chance.choice((1, 8, 100, 5000)), len(made) - at)
        if how in ("flip", "head"):
            end = min(len(made), 600) if how == "head" else len(made)
            for _ in range(chance.choice((1, 5, 50, 500)) if end else 0):
                made[chance.randrange(end)] = chance.randrange(256)
        elif how == "truncate":
            del made[at:]
        elif how == "zero":
            made[at : at + size] = bytes(size)
        elif how == "noise":
            made[at : at + size] = chance.randbytes(size)
        elif how == "cut":
            del made[at : at + size]
        else:
            made[at:at] = made[at : at + size]
    return bytes(made)


def settings(chance: random.Random) -> Settings:
    """Return settings by which frames are found in one way or another."""
    ways = (Sampling(), Sampling(keyframes=True), Sampling(fps="5"), Sampling(scenes=12.0))
    return Settings(
        models=(Model(command="ten"),),
        sampling=chance.choice(ways),
        form=chance.choice(("raw", "jpeg")),
        on_error="skip",
        limits=LIMITS,
    )


def checked(out: Path) -> None:
    """See that a log is whole and in order."""
    last: dict[str, int] = {}
    for line in (out / "annotations.jsonl").read_bytes().splitlines():
        record = decode(line)
        if not isinstance(record, End):
            number = record.frame if not hasattr(record, "lost") else record.last
            assert number > last.get(record.name, -1), line
            last[record.name] = number


def tell(manifest: Manifest, error: str = "") -> None:
    """Say what came of each file."""
    for source in manifest.sources:
        crashes = sum(one.name == source.name and one.why == "crash" for one in manifest.damage)
        outcome = {
            "name": source.name,
            "frames": source.frames,
            "hurt": source.hurt,
            "problem": source.problem or error,
            "crashes": crashes,
        }
        sys.stdout.write(json.dumps(outcome) + "\n")


def spoil(samples: list[Path], folder: Path, chance: random.Random) -> None:
    """Write broken files of every kind."""
    folder.mkdir()
    for number in range(BATCH):
        sample = samples[number % len(samples)]
        (folder / f"{number:03}-{sample.name}").write_bytes(broken(sample.read_bytes(), chance))


def spoil_stream(sample: Path, folder: Path, chance: random.Random) -> tuple[Path, bytes]:
    """Return a named pipe, and what is to be written to it."""
    folder.mkdir()
    data = broken(sample.read_bytes(), chance)
    (folder / sample.name).write_bytes(data)  # to look at, if something is found
    os.mkfifo(folder / "pipe")
    return folder / "pipe", data


async def batch(app: App, samples: list[Path], folder: Path, chance: random.Random) -> None:
    """Annotate broken files of every kind in one run."""
    spoil(samples, folder, chance)
    out = folder.with_suffix(".out")
    async with annotate(folder, app, settings(chance), out=out, seek_from=0) as frames:
        async for _ in frames:
            pass
    checked(out)
    tell(frames.manifest)


async def live(app: App, sample: Path, folder: Path, chance: random.Random) -> None:
    """Annotate a broken stream as it comes."""
    pipe, data = spoil_stream(sample, folder, chance)
    with streams.beside(lambda: streams.fill(pipe, data)):
        run = annotate(pipe, app, settings(chance), out=folder / "out", live=True)
        async with run as frames:
            try:
                async for _ in frames:
                    pass
            except AnnotateError as error:
                tell(frames.manifest, str(error))
            else:
                tell(frames.manifest)
    checked(folder / "out")


async def run(samples: list[Path], out: Path, chance: random.Random, seconds: float) -> None:
    """Go on for so many seconds, and through every kind of file at least."""
    flowing = [path for path in samples if path.suffix in (".ts", ".mkv", ".flv", ".h264", ".y4m")]
    until, number = time.monotonic() + seconds, 0
    async with App(rt) as app:
        while not number or time.monotonic() < until:
            chance.shuffle(samples)
            await batch(app, samples, out / f"{number}", chance)
            await live(app, flowing[number % len(flowing)], out / f"{number}-live", chance)
            number += 1


def main(where: str, out: str, seed: str, seconds: str) -> None:
    """Do what the arguments say."""
    asyncio.run(run(sorted(Path(where).iterdir()), Path(out), random.Random(int(seed)), float(seconds)))
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join()  # waits for the end of a process that was killed
    with suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
        sys.exit("a process that decodes was left behind")


if __name__ == "__main__":
    main(*sys.argv[1:])
