"""What a decoding process is asked, and what it says.

A message is two lengths, its fields (msgpack), and the bytes of a picture, if it brings one.
"""

from __future__ import annotations

import struct
from typing import Literal, TypeAlias

import msgspec

from penstock.annotate.media.sampling import Sampling

LENGTHS = struct.Struct("<IQ")  # bytes of the fields, bytes of the picture
PACKET = struct.Struct("<q")  # which packet is being decoded, in shared memory

Kind: TypeAlias = Literal["image", "pages", "video"]
Form: TypeAlias = Literal["raw", "png", "jpeg"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a file may cost.

    Args:
        bytes: Its size.
        pixels: Of one of its frames.
        seconds: Its duration.
        memory: Bytes that the process which decodes it may have.
        stall_s: How long that process may be silent, in seconds.
    """

    bytes: int = 64 * 1024**3
    pixels: int = 100_000_000
    seconds: float = 24 * 3600.0
    memory: int = 4 * 1024**3
    stall_s: float = 60.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A frame, by all that it is known by: its number, its time stamp, and its time from the first."""

    frame: int
    pts: int | None
    tb: str
    t: str


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """A live source.

    Args:
        file: The number of an open file that it is read from; -1: there is none.
        address: What FFmpeg is told to open, else; it has been vetted.
        form: What FFmpeg opens it as.
        grows: Whether the file is one that is being written, so that its end is none.
        idle_s: For how many seconds it may not grow before that is its end.
        backlog: So many frames wait to be looked at; of more, the oldest are dropped.
    """

    file: int = -1
    address: str = ""
    form: str = ""
    grows: bool = False
    idle_s: float = 10.0
    backlog: int = 8


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A file to decode.

    Args:
        path: Where it is.
        kind: By what it is read.
        sampling: Which of its frames are wanted.
        after: Only frames behind this one are.
        taken: How many frames were chosen up to ``after``, with it.
        form: How pictures travel.
        quality: Of a jpeg.
        limits: What it may cost.
        avoid: Packets that are not decoded, by number, since decoding them ended a process.
        seek_from: Frames behind which ``after`` is looked for by a seek; fewer are decoded and passed over.
        threads: How many decode.
        live: Where it comes from, if it is live; ``path`` is not looked at then, and a message is sent for
            each byte that asks for one.
        seen: Of a live source, when ``after`` was seen, in seconds since the epoch.
    """

    path: str
    kind: Kind
    sampling: Sampling
    after: Place | None = None
    taken: int = 0
    form: Form = "raw"
    quality: int = 90
    limits: Limits = Limits()
    avoid: tuple[int, ...] = ()
    seek_from: int = 3000
    threads: int = 1
    live: Feed | None = None
    seen: float = 0.0


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The file could be opened; these are the facts that its container states.

    Args:
        rate: Average frames per second, exact.
        seconds: Duration, exact.
        sar: Width of a pixel by its height, where that is not 1.
    """

    rate: str | None = None
    seconds: str | None = None
    sar: str | None = None


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """Frames of a live source that were dropped; see ``records.Lost``."""

    count: int
    first: int
    last: int
    since: str
    until: str
    why: Literal["slow", "away"] = "slow"


class Picture(msgspec.Struct, frozen=True, kw_only=True, tag="picture"):
    """A frame that was chosen; behind the fields stands its picture, in base64.  ``gone`` are those before
    it, of a live source."""

    place: Place
    w: int
    h: int
    rot: int = 0
    flags: tuple[str, ...] = ()
    gone: tuple[Gone, ...] = ()


class Passed(msgspec.Struct, frozen=True, kw_only=True, tag="passed"):
    """So far it has come; sent now and then while nothing is chosen."""

    frame: int
    t: str


class Hurt(msgspec.Struct, frozen=True, kw_only=True, tag="hurt"):
    """The file is damaged; where and how much is told when that is over."""


class Hole(msgspec.Struct, frozen=True, kw_only=True, tag="hole"):
    """Packets could not be decoded, or the file ends before its time; see ``records.Damage``."""

    frame: int
    begin: str | None
    end: str | None
    packets: int
    why: Literal["packets", "truncated"]


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """That was all.

    Args:
        frames: How many frames were decoded; None: it was not read to its end.
        seconds: From the first frame to the end of the last, exact.
    """

    frames: int | None
    seconds: str | None


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The file is not decoded, or no further."""

    message: str


Message: TypeAlias = Opened | Picture | Passed | Hurt | Hole | Finished | Refused

_jobs = msgspec.msgpack.Decoder(Job)
_messages: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_encoder = msgspec.msgpack.Encoder()


def write(message: Message | Job, picture: bytes | memoryview = b"") -> tuple[bytes, bytes | memoryview]:
    """Return a message as it travels: its lengths with its fields, and its picture."""
    fields = _encoder.encode(message)
    return LENGTHS.pack(len(fields), len(picture)) + fields, picture


def read_job(fields: bytes) -> Job:
    """Return the job that these fields are."""
    return _jobs.decode(fields)


def read_message(fields: bytes | bytearray) -> Message:
    """Return the message that these fields are."""
    return _messages.decode(fields)
