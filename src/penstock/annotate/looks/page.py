"""One page that shows files with their annotations, in any browser, from a disk, asking nothing of anybody.

What is in it is written piece by piece: videos, made smaller, as base64, so that it may be long.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.resources import files as resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TextIO

from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.geometry import is_line, is_plain, polys_of
from penstock.annotate.formats.writing import number, numbers, opened
from penstock.annotate.looks.drawing import colour_of
from penstock.annotate.looks.film import Film, copy_film
from penstock.annotate.looks.pictures import by_number, pictures
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.media.sources import Media
from penstock.annotate.records import Frame, Region, Tag
from penstock.annotate.shapes.kinds import rectangle

if TYPE_CHECKING:
    from PIL.Image import Image

_MARK = "<!--data-->"
_SIDE = 960  # pixels of the longer side of what is shown
_QUALITY = 26  # of x264
_JPEG = 85
_CHUNK = 3 * 256 * 1024  # bytes; of a multiple of three, base64 needs no filling


async def write_page(data: Dataset, media: Iterable[Media], path: Path, *, side: int = _SIDE) -> Path:
    """Write a page that plays files with what was found in them.

    Args:
        data: The annotations.
        media: The files they are of.
        path: Where to.
        side: The longer side of what is shown, in pixels; larger pictures are made smaller.

    Raises:
        MediaError: A file cannot be read, or is not the one that was annotated.
        ConfigError: What reads it is not installed.
    """
    known = [one for one in media if any(frame.name == one.name for frame in _frames(data))]
    before, _, after = (
        resources(__package__).joinpath("page.html").read_text(encoding="utf-8").partition(_MARK)
    )
    with opened(path) as file:
        file.write(before)
        files = [{"name": one.name, "video": one.kind == "video"} for one in known]
        colours = {label: "#{:02x}{:02x}{:02x}".format(*colour_of(label)) for label in data.survey.labels}
        _script(file, "annotations", {"files": files, "labels": colours})
        for place, one in enumerate(known):
            await _write_file(file, place, one, data, side)
        file.write(after)
    return path


def _frames(data: Dataset) -> Iterator[Frame]:
    return (shot.frame for shot in data.shots())


async def _write_file(file: TextIO, place: int, media: Media, data: Dataset, side: int) -> None:
    frames = by_number(data, media)
    ordered = sorted(frames.values(), key=lambda frame: (frame.seconds, frame.frame))
    file.write(f'<script type="application/json" id="frames-{place}">[')
    for count, frame in enumerate(ordered):
        file.write((",\n" if count else "\n") + _json(_frame(frame)))
    file.write("]</script>\n")
    if media.kind == "video":
        await _write_film(file, place, media, side)
        return
    places = {frame.frame: count for count, frame in enumerate(ordered)}
    async for seen, image in pictures(media, Sampling(frames=tuple(frames))):
        buffer = io.BytesIO()
        _small(image, side).save(buffer, "JPEG", quality=_JPEG)
        buffer.seek(0)
        _write_base64(file, f"media-{place}-{places[seen.frame]}", "image/jpeg", buffer)


async def _write_film(file: TextIO, place: int, media: Media, side: int) -> None:
    with TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / "film.mp4"
        with Film(path, quality=_QUALITY, most=side) as film:
            await copy_film(media, film, lambda _, image: image)
        with path.open("rb") as source:
            _write_base64(file, f"media-{place}", "video/mp4", source)


def _write_base64(file: TextIO, name: str, kind: str, source: Any) -> None:
    file.write(f'<script type="text/plain" id="{name}" data-type="{kind}">')
    for chunk in iter(partial(source.read, _CHUNK), b""):
        file.write(base64.b64encode(chunk).decode("ascii"))
    file.write("</script>\n")


def _small(image: Image, side: int) -> Image:
    scale = min(1.0, side / max(image.size))
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "frame": frame.frame,
        "t": frame.t,
        "seconds": float(frame.seconds),
        "w": frame.w,
        "h": frame.h,
        "labels": [_said(tag) for tag in frame.labels],
        "regions": [_region(region) for region in frame.regions],
    }


def _region(region: Region) -> dict[str, Any]:
    polys = ((rectangle(region.box),),) if is_plain(region) else polys_of(region)
    shapes = () if is_line(region) else polys
    rings = [[[numbers(point, 2) for point in ring] for ring in part] for part in shapes]
    found = {**_said(region), "box": numbers(region.box, 2), "polys": rings, "filled": not is_plain(region)}
    lines = region.lines and [[numbers(point, 2) for point in line] for line in region.lines]
    points = region.kp and [numbers(point, 2) for point in region.kp]
    more = {"lines": lines, "kp": points, "track": region.track}
    return {**found, **{name: value for name, value in more.items() if value is not None}}


def _said(of: Region | Tag) -> dict[str, Any]:
    return {"label": of.label, **({} if of.score is None else {"score": number(of.score)})}


def _script(file: TextIO, name: str, value: Any) -> None:
    file.write(f'<script type="application/json" id="{name}">{_json(value)}</script>\n')


def _json(value: Any) -> str:
    """Return JSON that cannot end the script it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
