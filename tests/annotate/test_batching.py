"""Several frames in one call: what is written does not tell, however it was ended; what is wrong is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from annotate import films
from annotate.detectors import rt
from penstock import App, AsyncClient, Runtime
from penstock.annotate import AnswerFormat, Model, Refining, Sampling, Settings, Tracking, annotate
from penstock.annotate.asking import CommandFailed
from penstock.annotate.errors import AnswerError, BatchError, ConfigError
from penstock.annotate.records import Frame

pytestmark = pytest.mark.anyio
pytest.importorskip("av")

FRAMES = 23


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films; the last batch of each is not full."""
    folder = tmp_path_factory.mktemp("films")
    options = {"preset": "ultrafast", "crf": "10"}
    films.write(folder / "a.mkv", FRAMES, options=options, gaps=films.UNEVEN)
    films.write(folder / "b.mp4", FRAMES, options={**options, "g": "5"})
    return folder


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with App(rt) as app:
        yield app


def several(command: str, batch: int | None, **fields: Any) -> Settings:
    model = {name: fields.pop(name) for name in ("params", "answer") if name in fields}
    return Settings(models=(Model(command=command, param="images", batch=batch, **model),), **fields)


async def frames_of(source: Any, model: Any, settings: Settings, out: Path, **options: Any) -> list[Frame]:
    with anyio.fail_after(60):
        async with annotate(source, model, settings, out=out, **options) as frames:
            return [frame async for frame in frames]


def log(out: Path) -> bytes:
    return (out / "annotations.jsonl").read_bytes()


async def test_what_is_written_is_what_one_by_one_is(folder: Path, app: App, tmp_path: Path) -> None:
    fields = {"refining": Refining(min_score=0.3), "tracking": Tracking()}
    one = Settings(models=(Model(command="red"),), **fields)
    await frames_of(folder, app, one, tmp_path / "one")
    for batch in (1, 4, 16, 100):
        out = tmp_path / str(batch)
        await frames_of(folder, app, several("reds", batch, **fields), out, window=2)
        assert log(out) == log(tmp_path / "one"), batch


async def test_a_batch_is_of_one_file(folder: Path, app: App, tmp_path: Path) -> None:
    settings = several("crowd", 10, answer=AnswerFormat(each="answers"))
    found = await frames_of(folder, app, settings, tmp_path)
    assert [frame.regions[0].label for frame in found] == 2 * (["0-9"] * 10 + ["10-19"] * 10 + ["20-22"] * 3)


@pytest.mark.parametrize(("seek_from", "tracking"), [(0, Tracking(hits=2)), (100_000, None)])
async def test_a_run_that_is_left_goes_on_with_whole_batches(
    folder: Path, app: App, tmp_path: Path, seek_from: int, tracking: Tracking | None
) -> None:
    # What this command says of a frame depends on the batch it is in.
    settings = several("crowd", 6, answer=AnswerFormat(each="answers"), tracking=tracking)
    await frames_of(folder, app, settings, tmp_path / "whole")
    for left in range(60):
        async with annotate(folder, app, settings, out=tmp_path / "parts", seek_from=seek_from) as frames:
            async for _ in frames:
                if frames.progress.frames - frames.progress.earlier > 3 + left % 5:
                    break
            else:
                break
    assert left > 3
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    manifests = {(tmp_path / out / "manifest.json").read_bytes() for out in ("parts", "whole")}
    assert len(manifests) == 1


@pytest.mark.parametrize("limit", [5, 8])
async def test_a_limit_counts_frames(folder: Path, app: App, tmp_path: Path, limit: int) -> None:
    settings = several(
        "crowd", 4, answer=AnswerFormat(each="answers"), sampling=Sampling(every=2, limit=limit)
    )
    whole = await frames_of(folder / "a.mkv", app, settings, tmp_path / "whole")
    assert [frame.frame for frame in whole] == list(range(0, 2 * limit, 2))
    async with annotate(folder / "a.mkv", app, settings, out=tmp_path / "parts") as frames:
        async for _ in frames:
            break
    await frames_of(folder / "a.mkv", app, settings, tmp_path / "parts")
    assert log(tmp_path / "parts") == log(tmp_path / "whole")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("short", r"a\.mkv, frames 4 to 7: has 3 answers, to 4 frames"),
        ("long", r"a\.mkv, frames 4 to 7: has 5 answers, to 4 frames"),
        ("none", r"a\.mkv, frames 4 to 7: should be a list of 4 answers, and is \{'regions'"),
    ],
)
async def test_an_answer_of_another_length_is_an_error_of_its_own(
    folder: Path, app: App, tmp_path: Path, how: str, said: str
) -> None:
    with pytest.raises(BatchError, match=said):
        await frames_of(folder, app, several("some", 4, params={"how": how}), tmp_path)
    assert len(log(tmp_path).splitlines()) == 4


async def test_what_fails_on_one_of_them_is_told_of_all(folder: Path, app: App, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"a\.mkv, frames 4 to 7: not these"):
        await frames_of(folder, app, several("some", 4), tmp_path)


async def test_an_answer_that_does_not_fit_names_its_frame(folder: Path, app: App, tmp_path: Path) -> None:
    with pytest.raises(AnswerError, match=r"a\.mkv, frame 6, field 'regions'"):
        await frames_of(folder, app, several("some", 4, params={"how": "garbage"}), tmp_path)
    assert len(log(tmp_path).splitlines()) == 6


@pytest.mark.parametrize("how", ["fail", "garbage", "short"])
async def test_only_the_frame_that_fails_is_left_out(
    folder: Path, app: App, tmp_path: Path, how: str
) -> None:
    settings = several("some", 4, params={"how": how}, on_error="skip")
    found = await frames_of(folder / "a.mkv", app, settings, tmp_path)
    assert [frame.frame for frame in found] == list(range(FRAMES))
    assert [(frame.frame, frame.error) for frame in found if "failed" in frame.flags] == [
        (6, "command_failed" if how == "fail" else "invalid_answer")
    ]


async def test_commands_of_an_ensemble_take_as_many_as_they_take(
    folder: Path, app: App, tmp_path: Path
) -> None:
    answer = AnswerFormat(each="answers")
    models = (
        Model(command="ten"),
        Model(command="crowd", param="images", batch=4, answer=answer),
        Model(command="crowd", param="images", batch=8, answer=answer),
    )
    found = await frames_of(folder / "a.mkv", app, Settings(models=models), tmp_path)
    labels = [[region.label for region in frame.regions][9:] for frame in found]
    assert labels[0] == ["x", "0-3", "0-7"]
    assert labels[12] == ["x", "12-15", "8-15"]
    assert labels[22] == ["x", "20-22", "16-22"]


async def test_what_takes_one_frame_is_not_sent_a_list(folder: Path, app: App, tmp_path: Path) -> None:
    one = Settings(models=(Model(command="red", batch=4),))
    with pytest.raises(ConfigError, match="red takes one frame as 'image'"):
        await frames_of(folder, app, one, tmp_path)
    with pytest.raises(ConfigError, match="reds takes a list of frames as 'images'; say how many"):
        await frames_of(folder, app, several("reds", None), tmp_path)
    with pytest.raises(msgspec.ValidationError, match="at least 1"):
        msgspec.convert({"command": "reds", "batch": 0}, Model)


async def test_leaving_cancels_all_that_is_under_way(folder: Path, tmp_path: Path) -> None:
    slow, running, left = Runtime(), asyncio.Event(), []

    @slow.command("wait", concurrency=10)
    async def wait(images: list[dict[str, Any]]) -> list[Any]:
        try:
            if images[0]["frame"] >= 4:
                running.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.append(len(images))
            raise
        return [{"regions": []} for _ in images]

    async with App(slow) as app, AsyncClient(app) as client:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(frames_of, folder, app, several("wait", 4), tmp_path)
                await running.wait()
                group.cancel_scope.cancel()
            while {task.status for task in await client.tasks()} - {"completed", "cancelled"}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert left
    assert set(left) <= {3, 4}
    assert len(log(tmp_path).splitlines()) <= 4


async def test_what_waits_for_more_does_not_wait_for_itself(folder: Path, app: App, tmp_path: Path) -> None:
    # Far more is passed over than there is room for frames.
    settings = several("reds", 3, sampling=Sampling(frames=(0, 10, 22)))
    found = await frames_of(folder / "a.mkv", app, settings, tmp_path, window=1)
    assert [frame.frame for frame in found] == [0, 10, 22]
