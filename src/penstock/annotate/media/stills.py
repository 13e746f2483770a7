"""Still images, and those with several frames or pages, by Pillow; in the decoding process only."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from penstock.annotate.media.messages import Finished, Job, Opened, Picture, Place
from penstock.annotate.media.sampling import THUMB, Sampler
from penstock.annotate.media.speaker import Speaker, Unreadable
from penstock.annotate.records import seconds_text

if TYPE_CHECKING:
    from PIL.Image import Image

TIME_BASE = "1/1000"  # Pillow tells how long a frame is shown in milliseconds
PNG_LEVEL = 1

_ORIENTATION = 0x0112  # of EXIF
_TURNED = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
_MIRRORED = frozenset((2, 4, 5, 7))


def read_stills(job: Job, speaker: Speaker) -> None:
    """Say what is in a file of images.

    Raises:
        Unreadable: It is none, or breaks a limit.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the limit is the job's
    try:
        with Image.open(job.path) as image:
            speaker.say(Opened())
            _read_frames(job, image, speaker)
    except UnidentifiedImageError as error:
        raise Unreadable("it is no image that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError) as error:
        # What Pillow raises for a broken file depends on where it is broken.
        raise Unreadable(f"the image is broken: {str(error) or type(error).__name__}") from error


def encode(image: Image, job: Job) -> bytes:
    """Return a picture in the form in which it travels."""
    if job.form == "raw":
        return image.tobytes()
    stream = io.BytesIO()
    if job.form == "png":
        image.save(stream, "PNG", compress_level=PNG_LEVEL)
    else:
        image.save(stream, "JPEG", quality=job.quality, subsampling=0)
    return stream.getvalue()


def _read_frames(job: Job, image: Image, speaker: Speaker) -> None:
    sampler = Sampler(job.sampling)
    count, begin = 0, 0
    for number, shown in _frames(image, job.limits.pixels):
        seconds = Fraction(begin, 1000)
        wanted = sampler.wants(number, seconds, True, _thumb(image))
        if wanted and (job.after is None or number > job.after.frame):
            pts = begin if shown else None
            place = Place(frame=number, pts=pts, tb=TIME_BASE, t=seconds_text(seconds))
            _say(job, image, place, speaker)
        count, begin = number + 1, begin + shown
        if sampler.is_over(number, seconds):
            speaker.say(Finished(frames=None, seconds=None))
            return
    speaker.say(Finished(frames=count, seconds=seconds_text(Fraction(begin, 1000)) if begin else None))


def _frames(image: Image, most: int) -> Iterator[tuple[int, int]]:
    """Show the frames one after another; give the number of each, and its duration in milliseconds."""
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        if image.width * image.height > most:
            raise Unreadable(f"frame {number} has {image.width} × {image.height} pixels, more than allowed")
        image.load()
        yield number, int(image.info.get("duration", 0) or 0)


def _thumb(image: Image) -> Callable[[], bytes]:
    return lambda: image.convert("L").resize((THUMB, THUMB)).tobytes()


def _say(job: Job, image: Image, place: Place, speaker: Speaker) -> None:
    from PIL import ImageOps

    orientation = image.getexif().get(_ORIENTATION, 1)
    upright = _eight_bits(ImageOps.exif_transpose(image))
    flags = ("mirrored",) if orientation in _MIRRORED else ()
    message = Picture(
        place=place, w=upright.width, h=upright.height, rot=_TURNED.get(orientation, 0), flags=flags
    )
    speaker.say(message, encode(upright, job))


def _eight_bits(image: Image) -> Image:
    """Return an image as RGB; those of 16 bits, which Pillow would cut off at 255, by their upper eight."""
    if image.mode.startswith("I;16"):
        from PIL import Image as images

        data = image.tobytes()
        high = data[0::2] if image.mode.endswith("B") else data[1::2]
        image = images.frombytes("L", image.size, high)
    return image.convert("RGB")
