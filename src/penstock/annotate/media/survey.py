"""What a run would look at: every file is read, and nobody asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from penstock.annotate.media.decoding import Crashed, Decoder
from penstock.annotate.media.messages import Finished, Job, Limits, Picture, Refused
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.media.sources import Media


class Surveyed(msgspec.Struct, kw_only=True):
    """What would be looked at of a file.

    Attributes:
        name: The file's.
        chosen: How many of its frames.
        frames: How many it has; None: it was not read to its end.
        seconds: How long it is, exact.
        problem: Why it cannot be read, or no further.
    """

    name: str
    chosen: int = 0
    frames: int | None = None
    seconds: str | None = None
    problem: str = ""


async def survey(
    media: Sequence[Media], sampling: Sampling, limits: Limits, threads: int = 1
) -> AsyncGenerator[Surveyed, None]:
    """Yield what would be looked at, file by file."""
    decoder = Decoder()
    try:
        for one in media:
            job = Job(path=str(one.path), kind=one.kind, sampling=sampling, limits=limits, threads=threads)
            yield await _of_file(decoder, job, one.name)
    finally:
        await decoder.aclose()


async def _of_file(decoder: Decoder, job: Job, name: str) -> Surveyed:
    found = Surveyed(name=name)
    async with aclosing(decoder.decode(job)) as answers:
        async for said in answers:
            message = said.message
            if isinstance(message, Picture):
                found.chosen += 1
            elif isinstance(message, Finished):
                found.frames, found.seconds = message.frames, message.seconds
            elif isinstance(message, Refused):
                found.problem = message.message
            elif isinstance(message, Crashed) and message.given_up:
                found.problem = message.why
    return found
