"""Films: frames encoded at the times they had in their source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from penstock.annotate.extras import needed
from penstock.annotate.formats.dataset import Dataset, is_still
from penstock.annotate.looks.drawing import draw
from penstock.annotate.looks.pictures import by_number, pictures
from penstock.annotate.media.messages import Place
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.media.sources import Media
from penstock.annotate.records import Frame

if TYPE_CHECKING:
    from PIL.Image import Image

_FINEST = Fraction(1, 90_000)  # seconds, where a container gives none that can be used
_RATE = 30


class Film:
    """An MP4 that is being written; every frame has the time since the first that it had in its source.

    Args:
        path: Where to.
        quality: The constant rate factor of x264: 18 looks like the source, 28 is small.
        most: Frames larger than this, in pixels of their longer side, are made smaller; None: none are.
    """

    def __init__(self, path: Path, *, quality: int = 18, most: int | None = None) -> None:
        self._av = needed("av", "films")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = self._av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._quality, self._most = quality, most
        self._stream: Any = None
        self._size = (0, 0)
        self._unit = _FINEST
        self._last = -1

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def add(self, place: Place, image: Image) -> None:
        """Add a frame; one of another size than the first is made to fit."""
        if self._stream is None:
            self._begin(place, image)
        if image.size != self._size:
            image = image.resize(self._size)
        frame = self._av.VideoFrame.from_image(_even(image))
        # Frames that do not come in the order of their times go on, a tick apart.
        self._last = max(self._last + 1, round(Fraction(place.t) / self._unit))
        frame.pts, frame.time_base = self._last, self._unit
        self._container.mux(self._stream.encode(frame))

    def _begin(self, place: Place, image: Image) -> None:
        scale = min(1.0, self._most / max(image.size)) if self._most else 1.0
        self._size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        unit = Fraction(place.tb)
        self._unit = unit if 0 < unit <= Fraction(1, 100) and unit.numerator == 1 else _FINEST
        even = tuple(side + side % 2 for side in self._size)
        self._stream = self._container.add_stream("libx264", rate=_RATE)
        self._stream.width, self._stream.height, self._stream.pix_fmt = even[0], even[1], "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = self._unit
        # Frames that refer to later ones would begin before the time 0.
        self._stream.options = {"crf": str(self._quality), "preset": "veryfast", "bf": "0"}


async def write_overlays(data: Dataset, media: Iterable[Media], folder: Path) -> list[Path]:
    """Write every video as an MP4, and every other image as a PNG, with what was found drawn in.

    What was found in a frame is shown until the next one that was looked at.

    Raises:
        MediaError: A file cannot be read, or is not the one that was annotated.
    """
    written: list[Path] = []
    for one in media:
        frames = by_number(data, one)
        if not frames:
            continue
        stem = data.stems[one.name]
        if one.kind == "video":
            path = folder / f"{stem}.mp4"
            with Film(path) as film:
                await copy_film(one, film, shown(frames))
            written.append(path)
            continue
        async for place, image in pictures(one, Sampling(frames=tuple(frames))):
            path = folder / (
                f"{stem}.png" if is_still(data.sources[one.name]) else f"{stem}_{place.frame:06d}.png"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(image, frames[place.frame]).save(path)
            written.append(path)
    return written


async def copy_film(media: Media, film: Film, change: Callable[[int, Image], Image]) -> None:
    """Add all frames of a video to a film, each as ``change`` makes it of its number and picture."""
    async for place, image in pictures(media, Sampling()):
        film.add(place, change(place.frame, image))


def shown(frames: Mapping[int, Frame]) -> Callable[[int, Image], Image]:
    """Return what draws into a frame what was found in the last one that was looked at."""
    last: list[Frame] = []

    def change(number: int, image: Image) -> Image:
        if number in frames:
            last[:] = [frames[number]]
        return draw(image, last[0]) if last else image

    return change


def _even(image: Image) -> Image:
    """Return an image with sides that the encoder can halve: a pixel more, black."""
    width, height = (side + side % 2 for side in image.size)
    if (width, height) == image.size:
        return image
    padded: Image = needed("PIL.Image", "films").new("RGB", (width, height))
    padded.paste(image)
    return padded
