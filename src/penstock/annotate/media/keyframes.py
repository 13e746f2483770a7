"""Keyframes alone: their numbers are told from the time stamps of all packets, and only they are decoded.

That holds where each packet has a time stamp of its own and makes one frame, so that frames come in the order
of these.  Whoever decodes looks at every frame in turn where it does not, or where a keyframe does not decode
by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING

import av.error

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Of these each packet is one frame; VP8, for one, has packets that are never shown.
_ONE_EACH = frozenset(
    ("h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "vp9", "libvpx-vp9", "av1", "libdav1d")
)
_WHOLE = 1  # the picture type of frames that refer to no other
_LONGEST = 100_000  # packets from one keyframe to the next


class Doubtful(Exception):
    """Keyframes alone do not tell what all frames would."""


class Keyframes:
    """Decodes the keyframes of a stream, and only them.

    Args:
        stream: Which one.
        at: Told which packet is decoded next.

    Attributes:
        count: How many frames there are, as far as it was read.
        latest: The last of their time stamps.

    Raises:
        Doubtful: Of this codec packets are not frames.
    """

    def __init__(self, stream: VideoStream, at: Callable[[int], None]) -> None:
        if stream.codec_context.name not in _ONE_EACH:
            raise Doubtful
        self._context = stream.codec_context
        self._context.skip_frame = "NONKEY"
        self._at = at
        self.count = 0
        self.latest = 0

    def read(
        self, packets: Iterable[Packet[VideoStream]]
    ) -> Generator[tuple[int, VideoFrame | None], None, None]:
        """Yield each keyframe with its number; now and then how far it is, without one.

        Raises:
            Doubtful: Time stamps do not say which frame is which, or a keyframe is damaged or does not stand
                by itself.
        """
        key: tuple[int, Packet[VideoStream]] | None = None
        stamps: list[int] = []  # of the keyframe, and of what follows it
        for number, packet in enumerate(packets):
            if not packet.size:
                continue
            pts = packet.pts
            if pts is None or packet.is_corrupt or packet.is_discard or len(stamps) > _LONGEST:
                raise Doubtful
            if packet.is_keyframe:
                if key is not None:
                    yield self._numbered(stamps), self._decoded(*key)
                key, stamps = (number, packet), []
            elif key is None:
                raise Doubtful  # what comes before the first may or may not become frames
            stamps.append(pts)
            if not number % 256:
                yield self.count, None
        if key is None:
            raise Doubtful
        yield self._numbered(stamps), self._decoded(*key)

    def _numbered(self, stamps: list[int]) -> int:
        """Count a keyframe and those behind it; return its number.  Some of those may be shown before it."""
        before = sum(stamp < stamps[0] for stamp in stamps)
        if len(set(stamps)) != len(stamps) or (min(stamps) <= self.latest if self.count else before):
            raise Doubtful
        number = self.count + before
        self.count += len(stamps)
        self.latest = max(stamps)
        return number

    def _decoded(self, number: int, packet: Packet[VideoStream]) -> VideoFrame:
        self._at(number)
        try:
            # Each is drained by itself: a decoder that waits for what was left out gives them in any order.
            frames = [*packet.decode(), *self._context.decode(None)]
        except (av.error.FFmpegError, UnicodeDecodeError) as error:
            raise Doubtful from error
        self._context.flush_buffers()
        if len(frames) != 1:
            raise Doubtful
        (frame,) = frames
        if not frame.key_frame or frame.is_corrupt or int(frame.pict_type) != _WHOLE or frame.pts is None:
            raise Doubtful
        return frame
