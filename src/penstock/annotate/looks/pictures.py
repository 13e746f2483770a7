"""The pictures that annotations are of, decoded once more."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

from penstock.annotate.errors import MediaError
from penstock.annotate.extras import needed
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.media.decoding import Crashed, Decoder
from penstock.annotate.media.messages import Job, Picture, Place, Refused
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.media.sources import Media
from penstock.annotate.records import Frame

if TYPE_CHECKING:
    from PIL.Image import Image


class Seen(NamedTuple):
    """A frame of a file, upright."""

    place: Place
    image: Image


async def pictures(media: Media, sampling: Sampling) -> AsyncGenerator[Seen, None]:
    """Yield frames of a file, decoded in a process of their own.

    Raises:
        MediaError: It cannot be read.
        ConfigError: What reads it is not installed.
    """
    images = needed("PIL.Image", "pictures of annotations")
    decoder = Decoder()
    try:
        async with aclosing(
            decoder.decode(Job(path=str(media.path), kind=media.kind, sampling=sampling))
        ) as all_said:
            async for message, picture in all_said:
                if isinstance(message, Picture):
                    size = (message.w, message.h)
                    yield Seen(message.place, images.frombytes("RGB", size, b64decode(picture)))
                elif isinstance(message, Refused):
                    raise MediaError(f"{media.name}: {message.message}")
                elif isinstance(message, Crashed) and message.given_up:
                    raise MediaError(f"{media.name}: decoding it ended the process again and again")
    finally:
        await decoder.aclose()


def frames_of(data: Dataset, media: Media) -> Iterator[Frame]:
    """Yield the frames of a file that annotations were made of.

    Raises:
        MediaError: They are of another file.
    """
    for shot in data.shots():
        if shot.frame.name == media.name:
            if shot.frame.src != media.digest:
                raise MediaError(f"{media.name} is not the file that was annotated: its bytes are others")
            yield shot.frame


def by_number(data: Dataset, media: Media) -> Mapping[int, Frame]:
    """Return the frames of a file by number."""
    return {frame.frame: frame for frame in frames_of(data, media)}
