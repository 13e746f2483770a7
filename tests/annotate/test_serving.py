"""``annotate`` as a command of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from annotate import films, streams
from annotate.detectors import rt
from penstock import App, AsyncClient, Runtime
from penstock.annotate import Model, Sampling, Settings, annotate, annotate_command
from penstock.errors import CallError

pytestmark = pytest.mark.anyio
pytest.importorskip("av")

CALL = {"source": "a.mkv", "command": "red", "sampling": {"every": 2}}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    films.write(folder / "a.mkv", 20, options={"preset": "ultrafast"})
    (tmp_path / "secret.mkv").write_bytes((folder / "a.mkv").read_bytes())
    (folder / "link.mkv").symlink_to(tmp_path / "secret.mkv")
    return folder


@pytest.fixture
async def detectors() -> AsyncIterator[App]:
    async with App(rt) as app:
        yield app


@pytest.fixture
async def client(media: Path, detectors: App) -> AsyncIterator[AsyncClient]:
    served = Runtime()
    served.streaming_command("annotate")(annotate_command(detectors, root=media, out=media.parent / "out"))
    async with App(served) as app, AsyncClient(app) as client:
        with anyio.fail_after(60):
            yield client


async def items(client: AsyncClient, **changed: Any) -> list[Any]:
    async with client.stream("annotate", {**CALL, **changed}) as stream:
        return [item async for item in stream]


async def test_a_live_source_is_known_by_its_name(media: Path, detectors: App) -> None:
    data = streams.film(media / "live.ts", 40).read_bytes()

    def serve(listener: Any) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(data)

    with streams.listening() as (listener, port), streams.beside(lambda: serve(listener)):
        served, live = Runtime(), {"gate": f"tcp://127.0.0.1:{port}"}
        command = annotate_command(detectors, root=media, out=media.parent / "out", live=live)
        served.streaming_command("annotate")(command)
        async with App(served) as app, AsyncClient(app) as client:
            with anyio.fail_after(60):
                found = await items(client, source="gate")
            with pytest.raises(CallError, match="no file"):
                await items(client, source=live["gate"])
    assert found[-2]["record"]["frame"] % 2 == 0
    seen, lost = len(found) - 1, found[-2]["progress"]["lost"]
    assert seen + lost == 20
    assert found[-1]["manifest"]["counts"].get("lost", 0) == lost


async def test_records_come_as_items(client: AsyncClient, media: Path, detectors: App) -> None:
    found = await items(client)
    settings = Settings(models=(Model(command="red"),), sampling=Sampling(every=2))
    async with annotate(media / "a.mkv", detectors, settings, out=media.parent / "other") as frames:
        expected = [frame.frame async for frame in frames]
        manifest = frames.manifest
    assert [item["record"]["frame"] for item in found[:-1]] == expected
    assert found[-1]["manifest"]["digest"] == manifest.digest


async def test_a_call_that_is_left_goes_on(client: AsyncClient) -> None:
    async with client.stream("annotate", CALL, on_disconnect="cancel") as stream:
        first = [(await anext(stream))["record"]["frame"] for _ in range(3)]
        await stream.cancel()
    rest: list[Any] = []
    while not rest:
        try:
            rest = await items(client)
        except CallError as error:  # the cancelled one has not let go of its log yet
            if "another process" not in error.message:
                raise
            await anyio.sleep(0.01)
    numbers = [item["record"]["frame"] for item in rest[:-1]]
    # What was in the log and was not read any more is not told again.
    assert numbers == list(range(20 - 2 * len(numbers), 20, 2))
    assert first == [0, 2, 4]
    assert rest[-1]["manifest"]["counts"]["frames"] == 10


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"source": "../secret.mkv"}, "not_found"),
        ({"source": "link.mkv"}, "not_found"),
        ({"source": "."}, "permission_denied"),
        ({"source": "/etc/passwd"}, "not_found"),
        ({"source": "http://127.0.0.1/a.mkv"}, "not_found"),
        ({"source": "none.mkv"}, "not_found"),
        ({"sampling": {"every": 0}}, "invalid_argument"),
        ({"refining": {"nothing": 1}}, "invalid_argument"),
        ({"command": "reed"}, "failed_precondition"),
    ],
)
async def test_what_cannot_be_done_is_said(client: AsyncClient, changed: dict[str, Any], code: str) -> None:
    with pytest.raises(CallError) as refused:
        await items(client, **changed)
    assert refused.value.code.value == code
