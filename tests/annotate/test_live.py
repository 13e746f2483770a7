"""Live sources: what is looked at is the newest, what is not is told, and whoever writes never waits."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from annotate import streams
from annotate.detectors import rt
from penstock import App, Runtime
from penstock.annotate import Model, Sampling, Settings, Tracking, annotate
from penstock.annotate.errors import ConfigError, MediaError
from penstock.annotate.records import End, Frame, Lost, Manifest, decode

pytestmark = pytest.mark.anyio
pytest.importorskip("av")

TEN = Settings(models=(Model(command="ten"),))
FRAMES = 150


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = streams.film(tmp_path_factory.mktemp("film") / "a.ts", FRAMES)
    assert path.stat().st_size > 300_000  # more than any pipe or buffer on the way has room for
    return path


@pytest.fixture(scope="module")
def data(film: Path) -> bytes:
    return film.read_bytes()


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with App(rt) as app:
        yield app


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def anew(pipe: Path) -> None:
    """Make a pipe that no process which was killed, and is not gone yet, still reads."""
    pipe.unlink()
    os.mkfifo(pipe)


def lines(out: Path) -> list[Frame | Lost | End]:
    return [decode(line) for line in (out / "annotations.jsonl").read_bytes().splitlines()]


def manifest(out: Path) -> Manifest:
    return msgspec.json.decode((out / "manifest.json").read_bytes(), type=Manifest)


def written(out: Path) -> bytes:
    return b"".join(path.read_bytes() for path in out.iterdir())


def told(out: Path) -> list[int]:
    """Return every number that the log tells of, in its order."""
    numbers: list[int] = []
    for line in lines(out):
        if isinstance(line, Frame):
            numbers.append(line.frame)
        elif isinstance(line, Lost) and line.why == "slow":
            assert line.lost == line.last - line.first + 1  # as every frame was wanted
            numbers += range(line.first, line.last + 1)
    return numbers


def lost(out: Path) -> list[Lost]:
    return [line for line in lines(out) if isinstance(line, Lost)]


async def frames_of(source: Any, model: Any, settings: Settings, out: Path, **options: Any) -> list[Frame]:
    with anyio.fail_after(60):
        async with annotate(source, model, settings, out=out, **options) as frames:
            return [frame async for frame in frames]


def gated() -> tuple[Runtime, asyncio.Event, asyncio.Event]:
    """Return a command that waits at its first frame, what says that it does, and what lets it go on."""
    slow, waits, gate = Runtime(), asyncio.Event(), asyncio.Event()

    @slow.command("ten")
    async def ten(image: dict[str, Any]) -> dict[str, Any]:
        waits.set()
        await gate.wait()
        return {"regions": [{"label": "x", "score": 0.9, "box": [1, 1, 30, 30]}]}

    return slow, waits, gate


def writing(pipe: Path, data: bytes) -> Callable[[], None]:
    return lambda: streams.fill(pipe, data)


@pytest.mark.parametrize("tracking", [None, Tracking()])
async def test_who_writes_never_waits_for_a_slow_command(
    data: bytes, pipe: Path, tmp_path: Path, tracking: Tracking | None
) -> None:
    slow, waits, gate = gated()
    settings = msgspec.structs.replace(TEN, tracking=tracking)
    out = tmp_path / "out"
    with streams.beside(writing(pipe, data)) as written:
        async with App(slow) as app, anyio.create_task_group() as group:
            with anyio.fail_after(60):
                run = annotate(pipe, app, settings, out=out, live=True, window=1, backlog=4)
                async with run as frames:

                    async def open_later() -> None:
                        await waits.wait()
                        # All is written and read while the command has its first frame still.
                        assert await asyncio.to_thread(written.wait, streams.PATIENCE_S)
                        assert frames.progress.frames == 0
                        gate.set()

                    group.start_soon(open_later)
                    found = [frame.frame async for frame in frames]
                    seen = frames.progress.lost
    assert told(out) == list(range(FRAMES))
    assert found[-1] == FRAMES - 1  # the newest is always looked at
    assert 0 < seen == sum(one.lost for one in lost(out)) == manifest(out).counts["lost"]
    assert len(found) + seen == FRAMES
    first = lost(out)[0]
    assert (first.why, Fraction(first.since)) == ("slow", Fraction(first.first, 30))
    assert manifest(out).sources[0].digest.startswith("live:")
    # It is whole: asked for again, there is nothing to do.
    anew(pipe)
    before = (out / "annotations.jsonl").read_bytes()
    async with App(rt) as again:
        assert await frames_of(pipe, again, settings, out, live=True) == []
    assert (out / "annotations.jsonl").read_bytes() == before


async def test_a_command_that_keeps_up_loses_nothing(pipe: Path, app: App, tmp_path: Path) -> None:
    ahead = threading.Semaphore(0)

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            streams.write_paced(file, 120, 40, 10, lambda: ahead.acquire(timeout=streams.PATIENCE_S))

    found = []
    with streams.beside(write), anyio.fail_after(60):
        # There are at most 50 frames that were written and not looked at.
        async with annotate(pipe, app, TEN, out=tmp_path / "out", live=True, backlog=60) as frames:
            async for frame in frames:
                found.append(frame.frame)
                if len(found) % 10 == 0:
                    ahead.release()
    assert found == list(range(120))
    assert lost(tmp_path / "out") == []
    assert "lost" not in manifest(tmp_path / "out").counts


async def test_frames_that_were_dropped_last_are_counted_when_it_goes_on(
    data: bytes, pipe: Path, app: App, tmp_path: Path
) -> None:
    slow, waits, gate = gated()
    out = tmp_path / "out"
    with streams.beside(writing(pipe, data)) as written:
        async with App(slow) as slowly, anyio.create_task_group() as group:

            async def open_later() -> None:
                await waits.wait()
                assert await asyncio.to_thread(written.wait, streams.PATIENCE_S)
                gate.set()

            group.start_soon(open_later)
            await frames_of(pipe, slowly, TEN, out, live=True, window=1, backlog=4)
    # As if it had been killed before the line of the next frame.
    log = (out / "annotations.jsonl").read_bytes().splitlines(keepends=True)
    cut = next(at for at in reversed(range(len(log))) if b'"lost"' in log[at])
    (out / "annotations.jsonl").write_bytes(b"".join(log[: cut + 1]))
    before = told(out)
    anew(pipe)
    with streams.beside(writing(pipe, data)):
        await frames_of(pipe, app, TEN, out, live=True, backlog=FRAMES)
    assert told(out) == list(range(len(before) + FRAMES))
    assert [one.first for one in lost(out) if one.why == "away"] == [len(before)]


async def test_so_many_frames_as_were_asked_for_are_looked_at(
    data: bytes, pipe: Path, app: App, tmp_path: Path
) -> None:
    settings = msgspec.structs.replace(TEN, sampling=Sampling(every=3, limit=5))
    with streams.beside(writing(pipe, data * 20)):
        found = await frames_of(pipe, app, settings, tmp_path / "out", live=True)
    assert len(found) == 5
    assert all(frame.frame % 3 == 0 for frame in found)
    assert manifest(tmp_path / "out").state == "done"


async def test_a_connection_that_breaks_off_goes_on_later(data: bytes, app: App, tmp_path: Path) -> None:
    broken, out = threading.Event(), tmp_path / "out"

    def serve(listener: Any) -> None:
        connection, _ = listener.accept()
        connection.sendall(data)
        assert broken.wait(streams.PATIENCE_S)
        streams.reset(connection)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(data)

    with streams.listening() as (listener, port), streams.beside(lambda: serve(listener)):
        source = f"tcp://127.0.0.1:{port}"

        async def first() -> None:
            async with annotate(source, app, TEN, out=out, backlog=FRAMES) as frames:
                async for frame in frames:
                    if frame.frame == 100:
                        broken.set()

        with anyio.fail_after(60), pytest.raises(MediaError, match="broke off"):
            await first()
        assert manifest(out).state == "failed"
        before = [line for line in lines(out) if isinstance(line, Frame)]
        await frames_of(source, app, TEN, out, backlog=FRAMES)
    numbers = told(out)
    assert numbers == list(range(before[-1].frame + 1 + FRAMES))
    (away,) = lost(out)
    assert (away.why, away.lost, away.first) == ("away", 0, before[-1].frame + 1)
    times = [line.seconds for line in lines(out) if isinstance(line, Frame)]
    assert times == sorted(times)
    assert manifest(out).state == "done"


async def test_rtsp(data: bytes, app: App, tmp_path: Path) -> None:
    with streams.listening() as (listener, port):
        server = streams.Rtsp(listener, data, lambda _: True)
        with streams.beside(server.serve):
            source = f"rtsp://user:secret@127.0.0.1:{port}/gate/1"
            settings = msgspec.structs.replace(TEN, sampling=Sampling(limit=20))
            found = await frames_of(source, app, settings, tmp_path, backlog=FRAMES)
    assert [frame.frame for frame in found] == list(range(20))
    assert {frame.name for frame in found} == {"127.0.0.1/gate/1"}
    assert [asked.split()[0] for asked in server.asked] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert b"secret" not in written(tmp_path)


async def test_when_the_process_that_decodes_is_ended_the_stream_goes_on(
    data: bytes, pipe: Path, app: App, tmp_path: Path
) -> None:
    killed = threading.Event()

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            assert killed.wait(streams.PATIENCE_S)
            file.write(data[len(data) // 2 :])

    with streams.beside(write), anyio.fail_after(60):
        async with annotate(pipe, app, TEN, out=tmp_path / "out", live=True, backlog=FRAMES) as frames:
            async for _ in frames:
                if not killed.is_set():
                    child = frames._run._decoder._child  # type: ignore[union-attr]
                    os.kill(child._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
                    killed.set()
    (away,) = lost(tmp_path / "out")
    assert away.why == "away"
    assert told(tmp_path / "out") == list(range(len(told(tmp_path / "out"))))
    assert len(told(tmp_path / "out")) > 30
    assert manifest(tmp_path / "out").state == "done"


async def test_a_live_source_is_by_itself(film: Path, pipe: Path, app: App, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="by itself"):
        await frames_of([pipe, film], app, TEN, tmp_path / "out", live=True)
    with pytest.raises(MediaError, match="--live"):
        await frames_of(pipe, app, TEN, tmp_path / "out")
