"""What annotating costs: frames per second, the pipeline's own share, memory, and how soon a cancel is felt.

python benchmarks/annotate.py [--hour] [--cancels 100]

The film is made here.  The model answers at once with ten boxes, in this process, so that only decoding, the
way of a frame to a command, and the pipeline are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from penstock import App, Runtime
from penstock.annotate import Frame, Model, Refining, Sampling, Settings, annotate
from penstock.annotate.answers import Adapter, AnswerFormat
from penstock.annotate.ledger import Log
from penstock.annotate.media.decoding import Decoder
from penstock.annotate.media.messages import Job, Picture
from penstock.annotate.media.sampling import Sampler
from penstock.annotate.refine import Refiner, Spot

AIMS = {"frames_per_s": 400, "pipeline_ms": 0.5, "cancel_p99_ms": 100, "growth_mb": 50}
ANSWER = {
    "regions": [
        {
            "label": "thing",
            "score": 0.9 - n / 100,
            "box": [n * 40.5, n * 30.25, n * 40.5 + 60, n * 30.25 + 50],
        }
        for n in range(10)
    ]
}

rt = Runtime()


@rt.command("ten", concurrency=64)
async def ten(image: dict[str, Any]) -> dict[str, Any]:
    """Answer at once."""
    return ANSWER


@rt.command("wait", concurrency=64)
async def wait(image: dict[str, Any]) -> dict[str, Any]:
    """Answer the first frames only."""
    if image["frame"] >= 8:
        await asyncio.Event().wait()
    return ANSWER


def film(path: Path, frames: int, width: int = 480, height: int = 360, apart: int = 60) -> Path:
    """Write a film in which something moves; its keyframes are so many frames apart."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": str(apart)}
        for picture in pictures(frames, width, height):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def pictures(frames: int, width: int, height: int) -> Iterator[Any]:
    """Yield the pictures of a film."""
    noise = np.random.default_rng(0).integers(0, 200, (height // 8, width // 8, 3), dtype=np.uint8)
    ground = np.ascontiguousarray(noise.repeat(8, 0).repeat(8, 1))
    for number in range(frames):
        picture = ground.copy()
        left = number * 2 % (width - 40)
        picture[40:80, left : left + 40] = (255, 0, 0)
        yield picture


async def rate(path: Path, settings: Settings, folder: Path) -> float:
    """Return frames per second, from the first to the last."""
    async with App(rt) as app, annotate(path, app, settings, out=folder, restart=True, window=8) as frames:
        count, began = -1, 0.0
        async for _ in frames:
            began = began or time.perf_counter()
            count += 1
        return count / (time.perf_counter() - began)


def cpu_ms(path: Path, settings: Settings, folder: Path, frames: int) -> tuple[float, float]:
    """Return the CPU that a frame takes here, and in the process that decodes, in ms; with their starts."""
    whom = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before = [resource.getrusage(who) for who in whom]
    run(rate(path, settings, folder))
    spent = [
        after.ru_utime + after.ru_stime - one.ru_utime - one.ru_stime
        for one, after in zip(before, map(resource.getrusage, whom), strict=True)
    ]
    return 1000 * spent[0] / frames, 1000 * spent[1] / frames


def pipeline_ms(folder: Path, frames: int = 3000) -> float:
    """Return what sampling, reading an answer, refining it and the log cost a frame, in ms of CPU."""
    sampler, adapter = Sampler(Sampling(fps="30")), Adapter(AnswerFormat())
    refiner = Refiner(Refining(min_score=0.3, overlaps="nms"))
    log = Log(folder / "log.jsonl")
    began = time.process_time()
    for number in range(frames):
        seconds = Fraction(number, 30)
        sampler.wants(number, seconds, False, bytes)
        spot = Spot(src="sha256:00", copy=0, frame=number, seconds=seconds, w=480, h=360)
        refined = refiner.refine(adapter.read(ANSWER, 480, 360, "here"), spot)
        log.append(
            Frame(
                src="sha256:00",
                name="a.mp4",
                frame=number,
                pts=number * 512,
                tb="1/15360",
                t=str(seconds),
                w=480,
                h=360,
                regions=refined.regions,
                labels=refined.tags,
            )
        )
    passed = time.process_time() - began
    log.close()
    return 1000 * passed / frames


async def decoded_s(path: Path, sampling: Sampling) -> tuple[float, int]:
    """Return how long it takes to decode what is chosen of a film, and how many frames that is."""
    decoder, found = Decoder(), 0
    try:
        # Once before: a process is started first.
        for _ in range(2):
            began, found = time.perf_counter(), 0
            job = Job(path=str(path), kind="video", sampling=sampling)
            async with aclosing(decoder.decode(job)) as answers:
                async for said in answers:
                    found += isinstance(said.message, Picture)
        return time.perf_counter() - began, found
    finally:
        await decoder.aclose()


def keyframes_gain(folder: Path, frames: int = 15_000) -> float:
    """Return how much sooner the keyframes of a film are had when nothing else is decoded."""
    path = film(folder / "keyframes.mp4", frames, apart=250)
    alone, count = run(decoded_s(path, Sampling(keyframes=True)))
    among, same = run(decoded_s(path, Sampling(every=250)))
    assert count == same == frames // 250
    return float(among / alone)


async def cancels_ms(path: Path, folder: Path, count: int) -> list[float]:
    """Return how long it takes to leave a run whose commands are under way."""
    found = []
    async with App(rt) as app:
        for _ in range(count):
            settings = Settings(models=(Model(command="wait"),))
            async with annotate(path, app, settings, out=folder, restart=True, window=4) as frames:
                for _ in range(8):
                    await anext(frames)
                await asyncio.sleep(0.01)
                began = time.perf_counter()
            found.append(1000 * (time.perf_counter() - began))
    return found


async def growth_mb(path: Path, folder: Path) -> tuple[float, float]:
    """Annotate a long film; return by how much this process grew behind its first 1,000 frames, in MB, and
    its frames per second."""
    async with App(rt) as app:
        settings = Settings(models=(Model(command="ten"),))
        async with annotate(path, app, settings, out=folder, restart=True, window=8) as frames:
            early, count, began = 0, 0, time.perf_counter()
            async for _ in frames:
                count += 1
                if count == 1000:
                    early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early
            return grown / 1024, count / (time.perf_counter() - began)


def run(work: Any) -> Any:
    """Run on the event loop that `penstock annotate` has."""
    import uvloop

    return uvloop.run(work)


def main() -> None:
    """Measure, and say what was found beside the aims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hour", action="store_true", help="also an hour of 160 × 120 at 30 frames a second")
    parser.add_argument("--cancels", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = film(folder / "clip.mp4", 1500)
        settings = Settings(models=(Model(command="ten"),), refining=Refining(min_score=0.3, overlaps="nms"))
        rates = [run(rate(clip, settings, folder / "rate")) for _ in range(3)]
        print(f"frames per second, 480 × 360, raw: {max(rates):.0f} (aim: {AIMS['frames_per_s']})")
        here, there = cpu_ms(clip, settings, folder / "cpu", 1500)
        print(f"... CPU for a frame: {here:.2f} ms here, {there:.2f} ms where it is decoded")
        jpeg = Settings(models=(Model(command="ten"),), form="jpeg")
        print(f"... as JPEG: {run(rate(clip, jpeg, folder / 'jpeg')):.0f}")
        print(
            f"the pipeline's own, ten boxes: {pipeline_ms(folder):.3f} ms of CPU (aim: {AIMS['pipeline_ms']})"
        )
        print(f"keyframes, 250 frames apart: {keyframes_gain(folder):.0f} times as fast as among all frames")
        times = run(cancels_ms(clip, folder / "cancel", options.cancels))
        p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
        print(
            f"cancel: median {statistics.median(times):.1f} ms, p99 {p99:.1f} (aim: {AIMS['cancel_p99_ms']})"
        )
        if options.hour:
            hour = film(folder / "hour.mp4", 108_000, 160, 120)
            grown, speed = run(growth_mb(hour, folder / "hour"))
            print(
                f"an hour: grew by {grown:.1f} MB (aim: {AIMS['growth_mb']}), {speed:.0f} frames per second"
            )


if __name__ == "__main__":
    main()
