"""The process that decodes: what it costs, how it ends, and how it is replaced."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from annotate import films
from penstock.annotate.media.decoding import CHILD, Crashed, Decoder
from penstock.annotate.media.messages import Finished, Hole, Hurt, Job, Limits, Opened, Picture, Refused
from penstock.annotate.media.sampling import Sampling

pytestmark = pytest.mark.anyio
pytest.importorskip("av")

CRASHING = str(Path(__file__).with_name("crashing.py"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.avi"
    return films.write(path, 60, codec="mjpeg")  # each packet stands by itself


async def messages(
    path: Path, command: Sequence[str] = CHILD, *, decoder: Decoder | None = None, **fields: Any
) -> list[Any]:
    decoder = decoder or Decoder(command)
    job = Job(path=str(path), kind=fields.pop("kind", "video"), sampling=Sampling(), **fields)
    try:
        with anyio.fail_after(30):
            async with aclosing(decoder.decode(job)) as answers:
                return [said.message async for said in answers]
    finally:
        await decoder.aclose()


def numbers(said: list[Any]) -> list[int]:
    return [message.place.frame for message in said if isinstance(message, Picture)]


def crashing(how: str, folder: Path) -> list[str]:
    return [sys.executable, CRASHING, f"{how}:{folder}"]


async def test_a_file_is_decoded_in_another_process(film: Path) -> None:
    said = await messages(film)
    assert isinstance(said[0], Opened)
    assert numbers(said) == list(range(60))
    assert said[-1] == Finished(frames=60, seconds="2")


async def test_pictures_are_those_of_the_file(film: Path) -> None:
    import av

    with av.open(str(film)) as container:
        expected = [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]
    decoder = Decoder()
    job = Job(path=str(film), kind="video", sampling=Sampling(every=10))
    found = {}
    async with aclosing(decoder.decode(job)) as answers:
        async for said in answers:
            if isinstance(said.message, Picture):
                found[said.message.place.frame] = base64.b64decode(said.picture)
    await decoder.aclose()
    assert found == {number: expected[number] for number in range(0, 60, 10)}


async def test_one_crash_costs_nothing(film: Path, tmp_path: Path) -> None:
    said = await messages(film, crashing("once", tmp_path))
    (crash,) = [message for message in said if isinstance(message, Crashed)]
    assert (crash.packet, crash.left_out, crash.given_up) == (20, False, False)
    assert "SIGSEGV" in crash.why
    assert numbers(said) == list(range(60))


async def test_a_packet_that_ends_the_process_is_left_out(film: Path, tmp_path: Path) -> None:
    said = await messages(film, crashing("always", tmp_path))
    crashes = [message for message in said if isinstance(message, Crashed)]
    assert [crash.left_out for crash in crashes] == [False, True]
    assert len(numbers(said)) == 59
    assert [message.packets for message in said if isinstance(message, Hole)] == [1]
    assert isinstance(said[-1], Finished)


async def test_a_file_that_always_ends_the_process_is_given_up(film: Path, tmp_path: Path) -> None:
    decoder = Decoder(crashing("each", tmp_path), crashes=4)
    said = await messages(film, decoder=decoder)
    assert isinstance(said[-1], Crashed)
    assert said[-1].given_up
    assert len([message for message in said if isinstance(message, Crashed)]) == 5


async def test_a_process_that_says_nothing_is_ended(film: Path, tmp_path: Path) -> None:
    said = await messages(film, crashing("stall", tmp_path), limits=Limits(stall_s=1.0))
    assert "nothing for too long" in next(m.why for m in said if isinstance(m, Crashed))
    assert len(numbers(said)) >= 59


async def test_memory_is_limited(film: Path) -> None:
    said = await messages(film, limits=Limits(memory=60 * 1024 * 1024))
    assert isinstance(said[-1], (Refused, Crashed))


async def test_leaving_ends_the_process(film: Path) -> None:
    decoder = Decoder()
    async with aclosing(decoder.decode(Job(path=str(film), kind="video", sampling=Sampling()))) as answers:
        async for said in answers:
            if isinstance(said.message, Picture):
                break
        assert decoder._child is not None
        pid = decoder._child._process.pid
    with anyio.fail_after(10):
        await anyio.to_thread.run_sync(gone, pid)


def gone(pid: int) -> None:
    """Wait until there is no such process; it was killed."""
    with suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            time.sleep(0.001)


async def test_one_process_decodes_many_files(film: Path, tmp_path: Path) -> None:
    from PIL import Image

    pages = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in (0, 100, 200)]
    gif, png, broken = tmp_path / "a.gif", tmp_path / "b.png", tmp_path / "c.png"
    pages[0].save(gif, save_all=True, append_images=pages[1:], duration=[100, 200, 300])
    pages[0].save(png)
    Image.effect_noise((64, 64), 100).save(broken)
    broken.write_bytes(broken.read_bytes()[:2000])
    decoder = Decoder()
    found = {}
    for path, kind in ((gif, "pages"), (png, "image"), (broken, "image"), (film, "video")):
        job = Job(path=str(path), kind=kind, sampling=Sampling())  # type: ignore[arg-type]
        async with aclosing(decoder.decode(job)) as answers:
            found[path] = [said.message async for said in answers]
    await decoder.aclose()
    times = [message.place.t for message in found[gif] if isinstance(message, Picture)]
    assert times == ["0", "0.1", "0.3"]
    assert found[gif][-1] == Finished(frames=3, seconds="0.6")
    assert [message.place.pts for message in found[png] if isinstance(message, Picture)] == [None]
    assert isinstance(found[broken][-1], Refused)
    assert len(numbers(found[film])) == 60


async def test_images_are_upright(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", (8, 6))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    said = await messages(tmp_path / "a.png", kind="image")
    picture = next(message for message in said if isinstance(message, Picture))
    assert (picture.w, picture.h, picture.rot) == (6, 8, 90)


async def test_a_picture_that_is_too_large_is_not_decoded(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (5000, 5000)).save(tmp_path / "a.png")
    said = await messages(tmp_path / "a.png", kind="image", limits=Limits(pixels=1_000_000))
    assert "5000 × 5000" in said[-1].message


async def test_damage_is_announced_before_what_follows_it(tmp_path: Path) -> None:
    whole = films.write(tmp_path / "a.mp4", 90, options={"preset": "ultrafast", "g": "30"})
    said = await messages(films.damage(tmp_path / "b.mp4", whole, 0.5, 12000))
    hurt = next(at for at, message in enumerate(said) if isinstance(message, Hurt))
    hole = next(at for at, message in enumerate(said) if isinstance(message, Hole))
    assert hurt < hole
    assert numbers(said[:hurt]) == list(range(len(numbers(said[:hurt]))))
