"""Annotations drawn into pictures: where they are, in their colours, at their times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from annotate import films
from annotate.logs import HEIGHT, WIDTH, shapes
from penstock.annotate.errors import MediaError
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.looks.drawing import colour_of, draw
from penstock.annotate.looks.film import write_overlays
from penstock.annotate.looks.sheet import write_sheet
from penstock.annotate.media.messages import Limits
from penstock.annotate.media.sources import Media, find
from penstock.annotate.records import Frame, Region

pytestmark = pytest.mark.anyio

FRAMES, STEP = 12, 4


def square(number: int, media: Media, **facts: str) -> Frame:
    """What is found in a frame of a film: its square."""
    region = Region(
        id=f"{number:x}", label="square", score=0.5, box=tuple(map(float, films.box(number))), src="model"
    )
    return Frame(
        src=media.digest,
        name=media.name,
        frame=number,
        pts=number,
        tb="1/30",
        t=facts.get("t", str(Fraction(number, 30))),
        w=films.WIDTH,
        h=films.HEIGHT,
        regions=(region,),
    )


@pytest.fixture
def film(tmp_path: Path) -> Media:
    films.write(tmp_path / "square.mp4", FRAMES, gaps=films.UNEVEN)
    (media,) = find([str(tmp_path / "square.mp4")], tmp_path, Limits())
    return media


def squares(media: Media) -> Dataset:
    return Dataset(lambda: [square(number, media) for number in range(0, FRAMES, STEP)])


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        found = [Fraction(frame.pts) * frame.time_base for frame in container.decode(video=0)]
    return [time - found[0] for time in found]


async def test_a_film_keeps_its_times_and_shows_the_last_frame_looked_at(film: Media, tmp_path: Path) -> None:
    (path,) = await write_overlays(squares(film), [film], tmp_path / "out")
    assert times(path) == times(film.path)
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    for number, picture in enumerate(shown):
        left, _, right, bottom = films.box(number // STEP * STEP)
        # In the middle of the lower edge, away from the caption; half of the line is on either side of it.
        line = picture[bottom - 1 : bottom + 1, (left + right) // 2]
        assert np.abs(line - colour_of("square")).max(axis=1).min() < 100, number  # colours are halved there


async def test_a_film_of_odd_sides_is_padded(tmp_path: Path) -> None:
    pictures = (np.full((45, 63, 3), 20 * n, dtype=np.uint8) for n in range(4))
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 63, 45, "bgr0"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    (media,) = find([str(tmp_path / "odd.mkv")], tmp_path, Limits())
    frame = Frame(src=media.digest, name="odd.mkv", frame=0, pts=0, tb="1/1000", t="0", w=63, h=45)
    (path,) = await write_overlays(Dataset(lambda: [frame]), [media], tmp_path / "out")
    with av.open(str(path)) as container:
        assert [(one.width, one.height) for one in container.decode(video=0)] == [(64, 46)] * 4


async def test_a_sheet_has_frames_of_all_files(film: Media, tmp_path: Path) -> None:
    Image.new("RGB", (films.WIDTH, films.HEIGHT), (90, 90, 90)).save(tmp_path / "still.png")
    media = find([str(film.path), str(tmp_path / "still.png")], tmp_path, Limits())
    still = square(0, media[1], t="0")
    moments = [square(number, film) for number in range(0, FRAMES, STEP)]
    data = Dataset(lambda: [*moments, still])
    for most, columns, rows in ((24, 3, 2), (2, 2, 1)):
        path = tmp_path / f"out/{most}.png"
        await write_sheet(data, media, path, columns=3, width=100, most=most)
        with Image.open(path) as sheet:
            assert sheet.size == (columns * 104 + 4, rows * (75 + 4) + 4)


async def test_another_file_of_the_same_name_is_refused(film: Media, tmp_path: Path) -> None:
    data = squares(film)
    films.write(film.path, FRAMES, pictures=(films.pixels(n, seed=1) for n in range(FRAMES)))
    (other,) = find([str(film.path)], tmp_path, Limits())
    with pytest.raises(MediaError, match="not the file that was annotated"):
        await write_sheet(data, [other], tmp_path / "sheet.png")


def test_every_kind_of_shape_is_drawn_in_the_colour_of_its_label() -> None:
    for region in shapes():
        frame = Frame(
            src="s", name="a", frame=0, pts=0, tb="1/1", t="0", w=WIDTH, h=HEIGHT, regions=(region,)
        )
        drawn = np.asarray(draw(Image.new("RGB", (4 * WIDTH, 4 * HEIGHT)), frame))
        ys, xs = np.nonzero((drawn == colour_of(region.label)).all(axis=2))
        left, _, right, bottom = (4 * value for value in region.box)
        assert (ys.max(), min(xs)) == pytest.approx((bottom, left), abs=3)
        assert right - 3 <= max(xs)


def test_a_hole_is_not_filled() -> None:
    ring = shapes()[2]
    frame = Frame(src="s", name="a", frame=0, pts=0, tb="1/1", t="0", w=WIDTH, h=HEIGHT, regions=(ring,))
    drawn = np.asarray(draw(Image.new("RGB", (8 * WIDTH, 8 * HEIGHT)), frame))
    assert drawn[8 * 20, 8 * 33].sum() == 0
    assert drawn[8 * 30, 8 * 30].sum() > 0
