"""What an annotation log holds: a line for each frame, and one that ends it.

Coordinates are float pixels on the upright image.  The origin is the top-left corner of the top-left pixel,
so pixel ``i`` covers ``[i, i + 1)``, and boxes are half-open.  Every export is a pure function of these
records and of the manifest beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from math import isfinite
from typing import Any, Literal, TypeAlias

import msgspec

VERSION = 1

Origin: TypeAlias = Literal["model", "interpolated", "human"]
Box: TypeAlias = tuple[float, float, float, float]
Point: TypeAlias = tuple[float, float]
Ring: TypeAlias = tuple[Point, ...]
Part: TypeAlias = tuple[Ring, ...]  # the exterior, then its holes
Polys: TypeAlias = tuple[Part, ...]
Line: TypeAlias = tuple[Point, ...]  # a path that does not come back to where it begins
Lines: TypeAlias = tuple[Line, ...]
Keypoint: TypeAlias = tuple[float, float, int]

_RING = 3  # points
_LINE = 2


class Rle(msgspec.Struct, frozen=True):
    """A mask as COCO writes it: runs down the columns, the first of them of zeros.

    Args:
        size: Height and width, which are those of the image.
        counts: The runs, as COCO's compressed text.
    """

    size: tuple[int, int]
    counts: str


class Tag(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a frame as a whole shows."""

    label: str
    score: float | None = None


class Region(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found at a place in a frame.

    Args:
        id: Hex digits; see ``region_id``.
        label: What it is.
        score: How sure the model is; None: it does not say.
        box: ``x1, y1, x2, y2``, tight around the shape.
        obb: A rotated box: ``cx, cy, w, h, degrees``, clockwise as one sees it.
        polys: Its parts, each an exterior ring and its holes; rings are not closed by a repeated point.
        lines: Its polylines, such as the parts of a kerb that are in the image.
        rle: Its mask.
        kp: Its keypoints: ``x, y, v``, where v is 0 (not labelled), 1 (hidden) or 2 (visible).
        text: What is written there.
        track: Which object it is, across frames.
        src: Who says so.
        attrs: What else is known of it.

    Raises:
        ValueError: A number is not finite, a box is inside out, a ring or a line has too few points.
    """

    id: str
    label: str
    score: float | None = None
    box: Box
    obb: tuple[float, float, float, float, float] | None = None
    polys: Polys | None = None
    lines: Lines | None = None
    rle: Rle | None = None
    kp: tuple[Keypoint, ...] | None = None
    text: str | None = None
    track: str | None = None
    src: Origin
    attrs: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.box
        if not (x1 <= x2 and y1 <= y2 and isfinite(x2 - x1) and isfinite(y2 - y1)):
            raise ValueError(f"region {self.id}: {self.box} is no box: x1 <= x2 and y1 <= y2 are needed")
        if self.score is not None and not isfinite(self.score):
            raise ValueError(f"region {self.id}: its score {self.score} is not finite")
        if self.obb is not None and not all(map(isfinite, self.obb)):
            raise ValueError(f"region {self.id}: its rotated box {self.obb} is not finite")
        if self.polys is not None:
            _check_polys(self.id, self.polys)
        if self.lines is not None:
            _check_lines(self.id, self.lines)


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log: a frame that was looked at, also where nothing was found.

    Args:
        v: Version of this form.
        src: Digest of the file it is of: ``sha256:`` and hex digits.
        name: That file's name, relative to the folder that was given.
        frame: Its number in decode order, from 0.
        pts: Its presentation time in units of ``tb``; None where the container gives none.
        tb: The unit, in seconds, such as ``1/15360``.
        t: Seconds from the first frame, exact: a decimal, or else a fraction.
        w: Width of the upright image, in pixels.
        h: Its height.
        rot: Degrees by which the stored picture was turned clockwise to be upright: 0, 90, 180 or 270.
        flags: What is odd with it: ``corrupt`` (the decoder says so), ``failed`` (the model did; ``error``
            has the code), ``no_pts``.
        regions: What was found.
        labels: What the frame as a whole shows.
        error: Code of the failure of a frame that was skipped.
        drops: How many regions were dropped, by reason.
        iou: Where polygons were made simpler: the least IoU of the mask of one with that of what it was.
    """

    v: int = VERSION
    src: str
    name: str
    frame: int
    pts: int | None
    tb: str
    t: str
    w: int
    h: int
    rot: int = 0
    flags: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    labels: tuple[Tag, ...] = ()
    error: str | msgspec.UnsetType = msgspec.UNSET
    drops: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    iou: float | msgspec.UnsetType = msgspec.UNSET

    @property
    def seconds(self) -> Fraction:
        """Time from the first frame."""
        return Fraction(self.t)


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """A line for frames of a live source that no command was asked about; it stands before the next that was.

    Args:
        v: Version of this form.
        lost: How many frames.
        src: As of a frame.
        name: As of a frame.
        first: Number of the first of them.
        last: Number of the last of them.
        since: Its time, exact, as ``Frame.t``.
        until: The time of the last.
        why: ``slow``: they came faster than they were looked at.  ``away``: nobody was there; then it is not
            known how many there were, ``lost`` is 0, and the numbers are that of the next frame.
    """

    v: int = VERSION
    lost: int
    src: str
    name: str
    first: int
    last: int
    since: str
    until: str
    why: Literal["slow", "away"] = "slow"


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of a finished log.

    Args:
        v: Version of this form.
        end: True.
        frames: How many lines there are before it.
        regions: How many regions these have.
        digest: ``sha256:`` and the digest of all bytes before this line.
    """

    v: int = VERSION
    end: Literal[True] = True
    frames: int
    regions: int
    digest: str


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file that was annotated.

    Args:
        name: See ``Frame.name``; unique within a log.
        digest: See ``Frame.src``; of a live source, ``live:`` and the digest of its address.
        kind: Still images, images with several frames or pages, or video.
        bytes: Its size.
        frames: How many frames were decoded, chosen or not; None: it is not known yet.
        seconds: From its first frame to the end of its last, as far as that is known; exact, as ``Frame.t``.
        rate: Average frames per second as the container says, such as ``30000/1001``; a hint, never a clock.
        sar: Width of a pixel by its height, where that is not 1.
        hurt: Whether damage was met in it; while a run goes on, that is known before ``Manifest.damage`` says
            how much.
        problem: Why it could not be read, or no further.
    """

    name: str
    digest: str
    kind: Literal["image", "pages", "video"]
    bytes: int
    frames: int | None = None
    seconds: str | None = None
    rate: str | None = None
    sar: str | None = None
    hurt: bool = False
    problem: str = ""


class Damage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An interval of a file that gave no frames, or not all.

    Args:
        name: The file's.
        frame: Number of the first frame behind it (or how many there are, if it is the end).
        begin: Time of the last frame before it, in seconds from the first frame, exact; None: unknown.
        end: Time of the first frame behind it, or the end that the container declares; None: unknown.
        packets: How many packets could not be decoded.
        why: ``packets``, ``truncated`` (the file ends before it says it does) or ``crash``.
        packet: Of a crash, the packet that ended the process which decoded it; it is left out.
    """

    name: str
    frame: int
    begin: str | None = None
    end: str | None = None
    packets: int = 0
    why: Literal["packets", "truncated", "crash"]
    packet: int | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a log, as JSON: what it was made of and how.

    Args:
        v: Version of this form.
        state: Whether the log goes on; ``failed`` and ``running`` logs can be resumed.
        config: Digest of the settings; a log is only ever continued with the same.
        settings: The settings themselves.
        command: What was called for each frame; of an ensemble its commands, joined by ``+``.
        model: What is known of the server: ``name`` and ``version``.
        versions: Of ``penstock``, and of the decoders that were used.
        transport: How a frame travelled: ``raw``, ``png``, or ``jpeg`` and its quality.
        sources: The files, in order.
        counts: ``frames`` and ``regions`` in the log, ``failed`` frames; of a live source those ``lost``.
        drops: Regions that were dropped, by reason.
        iou: The least of all frames, see ``Frame.iou``; 1 where no polygon was changed by a pixel.
        damage: What could not be decoded.
        digest: Of all lines of frames; empty until the log is done.
        problem: What ended it, if it has failed.
    """

    v: int = VERSION
    state: Literal["running", "done", "failed"]
    config: str
    settings: Mapping[str, Any] = {}
    command: str
    model: Mapping[str, str] = {}
    versions: Mapping[str, str] = {}
    transport: str = "raw"
    sources: tuple[Source, ...] = ()
    counts: Mapping[str, int] = {}
    drops: Mapping[str, int] = {}
    iou: float = 1.0
    damage: tuple[Damage, ...] = ()
    digest: str = ""
    problem: str = ""


class _Any(msgspec.Struct):
    end: bool = False
    lost: int | None = None


_encoder = msgspec.json.Encoder()
_frames = msgspec.json.Decoder(Frame)
_ends = msgspec.json.Decoder(End)
_losses = msgspec.json.Decoder(Lost)
_any = msgspec.json.Decoder(_Any)


def encode(line: Frame | Lost | End) -> bytes:
    """Return ``line`` as it stands in the log, its line feed included."""
    return _encoder.encode(line) + b"\n"


def decode(line: bytes) -> Frame | Lost | End:
    """Read a line of a log.

    Raises:
        ValueError: It is none.
    """
    kind = _any.decode(line)
    if kind.end:
        return _ends.decode(line)
    if kind.lost is not None:
        return _losses.decode(line)
    return _frames.decode(line)


def read(lines: Iterable[bytes]) -> Iterator[Frame]:
    """Read the frames of a log, up to its end.

    Raises:
        ValueError: A line is none of a log's.
    """
    for line in lines:
        record = decode(line)
        if isinstance(record, End):
            return
        if isinstance(record, Frame):
            yield record


def region_id(src: str, frame: int, content: object, duplicate: str = "0") -> str:
    """Return the id of a region: the same for the same thing, in any run.

    Args:
        src: Digest of the file.
        frame: Number of the frame.
        content: What the region says, its id and track left out; anything that is JSON.
        duplicate: Tells regions apart that say the same, and files with the same bytes.
    """
    text = _encoder.encode((src, frame, content, duplicate))
    return hashlib.sha256(text).hexdigest()[:20]


def seconds_text(value: Fraction) -> str:
    """Return seconds exactly: as a decimal where that ends, else as a fraction.

    >>> seconds_text(Fraction(39, 10)), seconds_text(Fraction(1, 3)), seconds_text(Fraction(2))
    ('3.9', '1/3', '2')
    """
    twos, fives, rest = 0, 0, value.denominator
    while rest % 2 == 0:
        twos, rest = twos + 1, rest // 2
    while rest % 5 == 0:
        fives, rest = fives + 1, rest // 5
    places = max(twos, fives)
    if rest != 1:
        return str(value)
    if not places:
        return str(value.numerator)
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"


def _check_polys(name: str, polys: Polys) -> None:
    for part in polys:
        for ring in part:
            if len(ring) < _RING:
                raise ValueError(f"region {name}: a ring has {len(ring)} points; it needs {_RING}")
            if not all(isfinite(x) and isfinite(y) for x, y in ring):
                raise ValueError(f"region {name}: a ring has a point that is not finite")


def _check_lines(name: str, lines: Lines) -> None:
    for line in lines:
        if len(line) < _LINE:
            raise ValueError(f"region {name}: a line has {len(line)} points; it needs {_LINE}")
        if not all(isfinite(x) and isfinite(y) for x, y in line):
            raise ValueError(f"region {name}: a line has a point that is not finite")
