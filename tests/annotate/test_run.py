"""Runs: what they write, whatever is under way at once; how they end, and go on."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator
from math import cos, sin
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from annotate import films
from annotate.detectors import rt
from penstock import App, AsyncClient, CommandError, Runtime
from penstock.annotate import AnswerFormat, Model, Refining, Sampling, Settings, Tracking, annotate
from penstock.annotate import log as logs
from penstock.annotate.asking import CommandFailed
from penstock.annotate.errors import AnswerError, ConfigError, MediaError, ResumeError, StorageError
from penstock.annotate.records import End, Frame, Manifest, decode

pytestmark = pytest.mark.anyio
pytest.importorskip("av")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mkv"
    return films.write(path, 40, options={"preset": "ultrafast", "crf": "10"}, gaps=films.UNEVEN)


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with App(rt) as app:
        yield app


def asking(command: str, **fields: Any) -> Settings:
    params = fields.pop("params", {})
    return Settings(models=(Model(command=command, params=params),), **fields)


async def frames_of(source: Any, model: Any, settings: Settings, out: Path, **options: Any) -> list[Frame]:
    with anyio.fail_after(60):
        async with annotate(source, model, settings, out=out, **options) as frames:
            return [frame async for frame in frames]


def log(out: Path) -> bytes:
    return (out / "annotations.jsonl").read_bytes()


def written(out: Path) -> bytes:
    return (out / "manifest.json").read_bytes()


def manifest(out: Path) -> Manifest:
    return msgspec.json.decode(written(out), type=Manifest)


def copied(film: Path, to: Path, more: bytes = b"") -> Path:
    to.write_bytes(film.read_bytes() + more)
    return to


async def test_every_frame_has_its_line(film: Path, app: App, tmp_path: Path) -> None:
    found = await frames_of(film, app, asking("red", refining=Refining(min_score=0.3)), tmp_path)
    lines = [decode(line) for line in log(tmp_path).splitlines()]
    assert lines[:-1] == found
    assert [frame.frame for frame in found] == list(range(40))
    for frame in found:
        square = next(region for region in frame.regions if region.label == "square")
        assert all(abs(a - b) <= 2 for a, b in zip(square.box, films.box(frame.frame), strict=True))
    end = lines[-1]
    assert isinstance(end, End)
    assert (end.frames, end.regions) == (40, sum(len(frame.regions) for frame in found))
    made = manifest(tmp_path)
    assert (made.state, made.digest, made.drops) == ("done", end.digest, {"score": 40})
    assert made.sources[0].frames == 40


async def test_what_is_under_way_at_once_changes_nothing(film: Path, app: App, tmp_path: Path) -> None:
    settings = asking("red", tracking=Tracking())
    outs = [tmp_path / name for name in "abcd"]
    for out, (window, threads) in zip(outs, ((1, 1), (4, 1), (16, 1), (4, 2)), strict=True):
        await frames_of(film, app, settings, out, window=window, threads=threads)
    assert len({log(out) for out in outs}) == 1
    assert len({written(out) for out in outs}) == 1


async def test_tracks_are_given_from_the_first_frame_on(film: Path, app: App, tmp_path: Path) -> None:
    found = await frames_of(film, app, asking("red", tracking=Tracking()), tmp_path)
    squares = [region.track for frame in found for region in frame.regions if region.label == "square"]
    assert set(squares) == {squares[0]} != {None}
    assert len(squares) == 40


async def test_a_finished_run_is_left_as_it_is(film: Path, app: App, tmp_path: Path) -> None:
    settings = asking("ten", sampling=Sampling(limit=5))
    assert len(await frames_of(film, app, settings, tmp_path)) == 5
    before = log(tmp_path)
    assert await frames_of(film, app, settings, tmp_path) == []
    assert log(tmp_path) == before
    assert len(await frames_of(film, app, settings, tmp_path, restart=True)) == 5


async def test_a_run_that_is_left_goes_on(film: Path, app: App, tmp_path: Path) -> None:
    settings = asking("red", tracking=Tracking())
    await frames_of(film, app, settings, tmp_path / "whole")
    for _ in range(50):
        async with annotate(film, app, settings, out=tmp_path / "parts") as frames:
            async for _ in frames:
                if frames.progress.frames % 7 == 6:
                    break
            else:
                break
    assert log(tmp_path / "parts") == log(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sampling": Sampling(every=2)}, "the setting sampling"),
        ({"models": (Model(command="red"),)}, "the command"),
        ({"refining": Refining(min_score=0.1)}, "the setting refining"),
    ],
)
async def test_other_settings_are_refused(
    film: Path, app: App, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    settings = asking("ten", sampling=Sampling(limit=3))
    await frames_of(film, app, settings, tmp_path)
    with pytest.raises(ResumeError, match=said):
        await frames_of(film, app, msgspec.structs.replace(settings, **changed), tmp_path)


async def test_another_file_is_refused(film: Path, app: App, tmp_path: Path) -> None:
    copy = copied(film, tmp_path / "a.mkv")
    settings = asking("ten", sampling=Sampling(limit=3))
    await frames_of(copy, app, settings, tmp_path / "out")
    copied(film, copy, b"\0")
    with pytest.raises(ResumeError, match=r"the file a\.mkv"):
        await frames_of(copy, app, settings, tmp_path / "out")


async def test_a_changed_log_is_refused(film: Path, app: App, tmp_path: Path) -> None:
    settings = asking("ten", sampling=Sampling(limit=3))
    await frames_of(film, app, settings, tmp_path)
    path = tmp_path / "annotations.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"score":0.9', b'"score":0.8', 1))
    with pytest.raises(ResumeError, match="was changed"):
        await frames_of(film, app, settings, tmp_path)


async def test_a_log_is_written_by_one_process(film: Path, app: App, tmp_path: Path) -> None:
    settings = asking("ten")
    async with annotate(film, app, settings, out=tmp_path):
        with pytest.raises(ResumeError, match="another process"):
            await frames_of(film, app, settings, tmp_path)
    # Left without a frame being asked for, it lets go of the log.
    assert len(await frames_of(film, app, settings, tmp_path)) == 40


async def test_a_full_disk_ends_a_run_that_goes_on_later(
    film: Path, app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, write, left = asking("ten"), os.write, [9000]

    def full(file: int, data: bytes) -> int:
        some = data[: left[0]]
        if not some:
            raise OSError(errno.ENOSPC, "no space left on device")
        left[0] -= len(some)
        return write(file, some)

    monkeypatch.setattr(logs.os, "write", full)
    with pytest.raises(StorageError, match="disk is full"):
        await frames_of(film, app, settings, tmp_path / "full")
    monkeypatch.undo()
    assert log(tmp_path / "full").endswith(b"}\n")
    assert manifest(tmp_path / "full").state == "failed"
    await frames_of(film, app, settings, tmp_path / "full")
    await frames_of(film, app, settings, tmp_path / "whole")
    assert log(tmp_path / "full") == log(tmp_path / "whole")
    assert written(tmp_path / "full") == written(tmp_path / "whole")


@pytest.mark.parametrize("how", ["fail", "garbage"])
async def test_a_frame_that_fails_ends_the_run_or_is_noted(
    film: Path, app: App, tmp_path: Path, how: str
) -> None:
    settings = asking("picky", params={"how": how})
    with pytest.raises((CommandFailed, AnswerError), match=r"a\.mkv, frame 3"):
        await frames_of(film, app, settings, tmp_path / "a")
    assert len(log(tmp_path / "a").splitlines()) == 3
    found = await frames_of(film, app, msgspec.structs.replace(settings, on_error="skip"), tmp_path / "b")
    assert [frame.frame for frame in found if "failed" in frame.flags] == [3]
    assert found[3].error == ("command_failed" if how == "fail" else "invalid_answer")
    assert manifest(tmp_path / "b").counts["failed"] == 1


@pytest.mark.parametrize(("tries", "failed"), [(1, {2, 5}), (2, {5}), (3, set())])
async def test_a_frame_is_tried_so_often(film: Path, tmp_path: Path, tries: int, failed: set[int]) -> None:
    moody, asked = Runtime(), dict.fromkeys(range(40), 0)

    @moody.command("moody")
    async def moody_(image: dict[str, Any]) -> dict[str, Any]:
        asked[image["frame"]] += 1
        if asked[image["frame"]] < {2: 2, 5: 3}.get(image["frame"], 1):
            raise CommandError("not now")
        return {"regions": []}

    settings = asking("moody", tries=tries, on_error="skip", sampling=Sampling(limit=8))
    async with App(moody) as app:
        found = await frames_of(film, app, settings, tmp_path)
    assert {frame.frame for frame in found if "failed" in frame.flags} == failed
    assert [asked[number] for number in (0, 2, 5)] == [1, min(tries, 2), min(tries, 3)]


def test_a_frame_is_tried_once_at_least() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        asking("red", tries=0)


async def test_what_is_not_there_is_told_at_once(film: Path, app: App, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean red"):
        await frames_of(film, app, asking("reed"), tmp_path)
    with pytest.raises(MediaError, match="is not there"):
        await frames_of(tmp_path / "none.mp4", app, asking("red"), tmp_path)
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(MediaError, match="no video that can be read"):
        await frames_of(tmp_path / "text.mp4", app, asking("red"), tmp_path / "out")


async def test_one_broken_file_of_many_is_noted(film: Path, app: App, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    copied(film, folder / "a.mkv")
    (folder / "b.mp4").write_bytes(b"hello")
    copied(film, folder / "c.mkv")
    settings = asking("red", sampling=Sampling(limit=4), on_error="skip")
    found = await frames_of(folder, app, settings, tmp_path / "out")
    assert [frame.name for frame in found] == ["a.mkv"] * 4 + ["c.mkv"] * 4
    assert "no video" in manifest(tmp_path / "out").sources[1].problem
    ids = [region.id for frame in found for region in frame.regions]
    assert len(ids) == len(set(ids))  # also of two files with the same bytes


async def test_several_commands_are_put_together(film: Path, app: App, tmp_path: Path) -> None:
    fields = AnswerFormat()
    models = (Model(command="red", answer=fields), Model(command="red"), Model(command="ten"))
    settings = Settings(models=models, sampling=Sampling(limit=2), refining=Refining(overlaps="fuse"))
    found = await frames_of(film, app, settings, tmp_path)
    squares = [region for region in found[0].regions if region.label == "square"]
    assert [region.score for region in squares] == [pytest.approx(0.9 * 2 / 3)]


async def test_commands_that_go_away_are_asked_again(film: Path, tmp_path: Path) -> None:
    flaky, failed = Runtime(), []

    @flaky.command("ten")
    async def ten(image: dict[str, Any]) -> dict[str, Any]:
        if image["frame"] == 2 and len(failed) < 2:
            failed.append(1)
            raise CommandError("going down", "unavailable")
        return {"regions": []}

    async with App(flaky) as app:
        found = await frames_of(film, app, asking("ten", sampling=Sampling(limit=5)), tmp_path)
    assert (len(found), len(failed)) == (5, 2)


async def test_leaving_cancels_what_is_under_way(film: Path, tmp_path: Path) -> None:
    slow, running = Runtime(), asyncio.Event()

    @slow.command("wait")
    async def wait(image: dict[str, Any]) -> None:
        if image["frame"] >= 3:
            running.set()
            await asyncio.Event().wait()

    settings = asking("wait", on_error="skip")
    async with App(slow) as app, AsyncClient(app) as client:
        run = annotate(film, app, settings, out=tmp_path, window=4)

        async def read() -> None:
            async with run as frames:
                async for _ in frames:
                    pass

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await running.wait()
                began = time.perf_counter()
                group.cancel_scope.cancel()
            passed = time.perf_counter() - began
            with anyio.fail_after(5):
                while {task.status for task in await client.tasks()} != {"completed", "cancelled"}:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    assert passed < 5  # by far: benchmarks/annotate.py measures it
    assert log(tmp_path).endswith(b"}\n")


async def test_no_more_than_the_window_is_under_way(film: Path, tmp_path: Path) -> None:
    busy, now, most = Runtime(), 0, 0

    @busy.command("count", concurrency=100)
    async def count(image: dict[str, Any]) -> dict[str, Any]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(20):
            await asyncio.sleep(0)
        now -= 1
        return {"regions": []}

    async with App(busy) as app:
        await frames_of(film, app, asking("count"), tmp_path, window=3)
    assert 1 <= most <= 3


def test_plain_code_reads_frames_too(film: Path, tmp_path: Path) -> None:
    def local() -> Any:
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def opened() -> AsyncIterator[AsyncClient]:
            async with App(rt) as app, AsyncClient(app) as client:
                yield client

        return opened()

    settings = asking("red", sampling=Sampling(fps="10"))
    with annotate([film], local, settings, out=tmp_path) as frames:
        times = [frame.t for frame in frames]
    assert times[:4] == ["0", "0.1", "0.29", "0.307"]
    assert frames.manifest.state == "done"


async def test_memory_does_not_grow_with_a_film(app: App, tmp_path: Path) -> None:
    import resource

    path = films.write(tmp_path / "long.mp4", 1500, options={"preset": "ultrafast"})
    early = count = 0
    async with annotate(path, app, asking("ten"), out=tmp_path / "out", window=8) as frames:
        async for _ in frames:
            count += 1
            if count == 300:
                early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early
    assert count == 1500
    assert grown < 30 * 1024  # kilobytes; the pictures of these frames have 86 MB


async def test_the_manifest_tells_what_simpler_polygons_cost(film: Path, tmp_path: Path) -> None:
    rounded = Runtime()

    @rounded.command("round")
    async def round_(image: dict[str, Any]) -> dict[str, Any]:
        points = [[60 + (20 + image["frame"]) * cos(n / 20), 60 + 25 * sin(n / 20)] for n in range(125)]
        return {"regions": [{"label": "x", "polys": [[points]]}]}

    settings = asking(
        "round", refining=Refining(tolerance=4.0, floor=0.9), sampling=Sampling(limit=6), tracking=Tracking()
    )
    async with App(rounded) as app:
        found = await frames_of(film, app, settings, tmp_path / "whole")
        for _ in range(2):
            async with annotate(film, app, settings, out=tmp_path / "parts") as frames:
                async for _ in frames:
                    break
        await frames_of(film, app, settings, tmp_path / "parts")
    least = min(frame.iou for frame in found if frame.iou is not msgspec.UNSET)
    assert 0.9 <= least < 1
    assert manifest(tmp_path / "whole").iou == least
    assert written(tmp_path / "parts") == written(tmp_path / "whole")
