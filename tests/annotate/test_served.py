"""Commands on a server, in a process of its own: over HTTP and WebSocket, gone in the middle, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from annotate import films
from cli.processes import Server, started
from penstock import AsyncClient
from penstock.annotate import Model, Refining, Settings, annotate

pytestmark = pytest.mark.anyio
pytest.importorskip("av")

PROJECT = """
import asyncio
import sys

sys.path.insert(0, {tests!r})

from annotate.detectors import rt


@rt.command("hold")
async def hold(image: dict):
    if image["frame"] >= 3:
        await asyncio.Event().wait()
    return {{"regions": []}}
"""
RED = Settings(models=(Model(command="red"),), refining=Refining(min_score=0.3))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("project") / "project.py"
    path.write_text(PROJECT.format(tests=str(Path(__file__).parents[1])))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    return films.write(path, 60, options={"preset": "ultrafast"})


async def under_way(client: AsyncClient) -> int:
    return sum(task.status not in ("completed", "cancelled", "error") for task in await client.tasks())


@pytest.fixture
def server(project: Path) -> Iterator[Server]:
    with started("run", project, "--port", "0") as process:
        yield Server(process)


async def test_every_way_to_a_command_gives_the_same(film: Path, server: Server, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("http", "ws")]
    for out, url in zip(outs, (server.url, server.url.replace("http", "ws", 1)), strict=True):
        with anyio.fail_after(60):
            async with annotate(film, url, RED, out=out) as frames:
                assert len([frame async for frame in frames]) == 60
    assert len({(out / "annotations.jsonl").read_bytes() for out in outs}) == 1


async def test_a_server_that_comes_back_is_asked_again(film: Path, project: Path, tmp_path: Path) -> None:
    with started("run", project, "--port", "0") as process:
        first = Server(process)
        port = str(urlsplit(first.url).port)
        async with annotate(film, first.url, RED, out=tmp_path / "out", retries=30) as frames:
            numbers = [(await anext(frames)).frame for _ in range(5)]
            process.kill()
            with started("run", project, "--port", port) as again:
                ready = asyncio.ensure_future(asyncio.to_thread(Server, again))  # noqa: TID251 - awaited below
                with anyio.fail_after(90):
                    numbers += [frame.frame async for frame in frames]
                await ready
    assert numbers == list(range(60))


async def test_leaving_cancels_on_the_server(film: Path, server: Server, tmp_path: Path) -> None:
    settings = Settings(models=(Model(command="hold"),))
    async with AsyncClient(server.url) as client:
        with anyio.fail_after(60):
            async with annotate(film, client, settings, out=tmp_path, window=4) as frames:
                for _ in range(3):
                    await anext(frames)
                while not await under_way(client):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            while await under_way(client):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            statuses = {task.status for task in await client.tasks()}
    assert statuses == {"completed", "cancelled"}
    assert (tmp_path / "annotations.jsonl").read_bytes().count(b"\n") == 3
