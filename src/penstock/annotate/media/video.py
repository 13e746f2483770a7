"""Video, by PyAV; in the decoding process only.

A frame is known by its number in decode order: times alone are no identity, as some containers give none, or
give them in another order.  What is damaged is passed over packet by packet, and told as intervals.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import av
import av.error
import msgspec
from av.video.reformatter import VideoReformatter

from penstock.annotate.media.holes import Holes
from penstock.annotate.media.keyframes import Doubtful, Keyframes
from penstock.annotate.media.messages import Finished, Job, Opened, Picture, Place
from penstock.annotate.media.sampling import THUMB, Sampler
from penstock.annotate.media.speaker import Speaker, Unreadable
from penstock.annotate.media.timing import Timing, declared_seconds, exact
from penstock.annotate.records import seconds_text

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,gif,ogg,asf,h264,hevc,m4v,ivf,obu,"
    "mjpeg,mxf,nut,rm,dv,y4m,yuv4mpegpipe,apng"
)
"""What is read; formats that name other files, such as playlists, are not among it."""
STAMPED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "mpeg", "flv")
"""Those whose time stamps are those of the frames in their packets."""
SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
BACK_OFF = (0, 2, 10)  # seconds before a frame at which a seek for it is tried

# What a broken file is met with: FFmpeg's errors, and text in it that is none.
BROKEN = (av.error.FFmpegError, UnicodeDecodeError)


def read_video(job: Job, speaker: Speaker) -> None:
    """Say what is in a video.

    Raises:
        Unreadable: It is none, or breaks a limit.
    """
    if job.sampling.keyframes:
        reading = Reading(job, speaker)
        if reading.by_keyframes():
            return
        job = reading.rest
    if job.after is not None and not job.avoid and job.after.frame >= job.seek_from:
        for seconds in BACK_OFF:
            if Reading(job, speaker).goes_on(seconds):
                return
    Reading(job, speaker).begins()


_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


class Reading:
    """One pass through a file."""

    def __init__(self, job: Job, speaker: Speaker) -> None:
        self._job = job
        self._speaker = speaker
        self._sampler = Sampler(job.sampling)
        self._holes = Holes(speaker)
        self._colours, self._greys = VideoReformatter(), VideoReformatter()
        self._next = 0  # number of the next frame
        self._after = -1 if job.after is None else job.after.frame
        self._over = False
        self._broke: Exception | None = None
        self.rest = job  # what is left to do of it

    def begins(self) -> None:
        """Read from the start."""
        with self._source() as container:
            stream = self._checked(container)
            self._say_facts(container, stream)
            self._timing = self._timed(stream)
            with closing(self._decoded(container, stream)) as frames:
                self._see_all(frames)
            self._end(container, stream)

    def goes_on(self, back: int) -> bool:
        """Seek the frame behind which the job goes on, and read from there; returns whether that can be.

        A seek is believed only if it came out before that frame and then met it, and it alone has its time:
        where that is so, the frames behind it are the same as if they were read from the start.
        """
        after = self._job.after
        assert after is not None
        if after.pts is None:
            return False
        with open(self._job.path, "rb") as file, opened(file) as container:
            stream = self._checked(container)
            if container.format.name not in SEEKABLE or exact(stream.time_base) != Fraction(after.tb):
                return False
            self._timing = Timing.from_place(stream, after)
            target = after.pts - int(back / Fraction(after.tb))
            with closing(self._sought(container, stream, target, after.pts)) as frames:
                met = next(frames, None)
                if met is None:
                    return False
                self._say_facts(container, stream)
                self._next = after.frame
                self._sampler.count = self._job.taken - 1
                self._see(met)
                self._see_all(frames)
            self._end(container, stream)
        return True

    def by_keyframes(self) -> bool:
        """Decode keyframes only; returns whether their numbers, times and pixels are those that they have
        among all frames.  Where that is doubted later, ``rest`` goes on behind those that were told."""
        try:
            with open(self._job.path, "rb") as file, opened(file) as container:
                stream = self._checked(container)
                if container.format.name not in STAMPED:
                    return False
                self._say_facts(container, stream)
                self._timing = Timing(stream)
                keyframes = Keyframes(stream, self._at)
                packets = cast("Generator[Packet[VideoStream], None, None]", container.demux(stream))
                with closing(packets), closing(keyframes.read(packets)) as frames:
                    self._see_keyframes(frames)
                self._next = keyframes.count
                last = self._timing.reaches(keyframes.latest)
                if last > self._job.limits.seconds:
                    return False  # where among all frames that is, is said
                self._over = self._over or self._sampler.is_over(self._next - 1, last)
                self._end(container, stream)
        except (Doubtful, *BROKEN, IndexError):
            return False
        return True

    def _see_keyframes(self, frames: Iterable[tuple[int, VideoFrame | None]]) -> None:
        passed = "0" if self._job.after is None else self._job.after.t
        for number, frame in frames:
            if frame is None:
                self._speaker.passed(number, lambda: passed)
                continue
            self._next = number
            self._see(frame)
            if self._over:
                return

    def _at(self, packet: int) -> None:
        if packet in self._job.avoid:
            raise Doubtful
        self._speaker.at(packet)

    def _sought(
        self, container: InputContainer, stream: VideoStream, target: int, pts: int
    ) -> Generator[VideoFrame, None, None]:
        """Yield the frame of a time stamp, and those behind it; nothing if it is not met."""
        try:
            container.seek(target, stream=stream, backward=True)
        except BROKEN:
            return
        with closing(self._decoded(container, stream)) as frames:
            before: int | None = None
            for frame in frames:
                if frame.is_corrupt:
                    self._holes.corrupt()
                if frame.pts is None or frame.pts > pts or self._holes.any or frame.pts == before:
                    return
                if frame.pts == pts:
                    if before is None:
                        return  # another with the same time may stand before it
                    break
                before = frame.pts
            else:
                return
            behind = next(frames, None)
            if behind is not None and behind.pts == pts:
                return  # which of the two it is cannot be told
            yield frame
            if behind is not None:
                yield behind
                yield from frames

    # -- packets -------------------------------------------------------------------------------------

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Generator[VideoFrame, None, None]:
        packets = cast("Generator[Packet[VideoStream], None, None]", container.demux(stream))
        number = 0
        # A container that is closed while its packets are being read ends the process.
        with closing(packets):
            while True:
                try:
                    packet = next(packets, None)
                except (*BROKEN, IndexError) as error:  # the last: PyAV, of a stream that was not announced
                    self._holes.bad()
                    self._broke = error
                    yield from self._flushed(stream)
                    return
                if packet is None:
                    return
                yield from self._of_packet(packet, number)
                number += 1

    def _of_packet(self, packet: Packet[VideoStream], number: int) -> list[VideoFrame]:
        if number in self._job.avoid:
            self._holes.bad()
            return []
        self._speaker.at(number)
        try:
            return list(packet.decode())
        except BROKEN:
            if packet.size:  # the one that ends a file is empty
                self._holes.bad()
            return []

    def _flushed(self, stream: VideoStream) -> list[VideoFrame]:
        try:
            return list(stream.decode(None))
        except BROKEN:
            return []

    # -- frames --------------------------------------------------------------------------------------

    def _see_all(self, frames: Iterable[VideoFrame]) -> None:
        for frame in frames:
            self._see(frame)
            if self._over:
                return

    def _see(self, frame: VideoFrame) -> None:
        number, self._next = self._next, self._next + 1
        seconds, guessed = self._timing.of(frame)
        if seconds > self._job.limits.seconds:
            raise Unreadable(f"it is longer than the {self._job.limits.seconds} s allowed")
        if frame.is_corrupt:
            self._holes.corrupt()
        self._holes.frame(number, seconds)
        keyframe = bool(frame.key_frame)
        wanted = self._sampler.wants(number, seconds, keyframe, lambda: self._grey(frame))
        if wanted and number > self._after:
            self._say(frame, number, seconds, guessed)
        else:
            self._speaker.passed(number, lambda: seconds_text(seconds))
        self._over = self._sampler.is_over(number, seconds)

    def _say(self, frame: VideoFrame, number: int, seconds: Fraction, guessed: bool) -> None:
        picture, data = self._picture(frame, number, seconds, guessed)
        self._speaker.say(picture, data)
        self.rest = msgspec.structs.replace(self.rest, after=picture.place, taken=self.rest.taken + 1)

    def _picture(
        self, frame: VideoFrame, number: int, seconds: Fraction, guessed: bool
    ) -> tuple[Picture, bytes]:
        if frame.width * frame.height > self._job.limits.pixels:
            raise Unreadable(f"frame {number} has {frame.width} × {frame.height} pixels, more than allowed")
        place = Place(frame=number, pts=frame.pts, tb=self._timing.base_text, t=seconds_text(seconds))
        turned = getattr(frame, "rotation", 0) // 90 % 4
        data, width, height = self._upright(frame, turned)
        flags = (*(("corrupt",) if frame.is_corrupt else ()), *(("no_pts",) if guessed else ()))
        return Picture(place=place, w=width, h=height, rot=-turned % 4 * 90, flags=flags), data

    def _upright(self, frame: VideoFrame, turned: int) -> tuple[bytes, int, int]:
        import numpy as np

        pixels: Any = self._colours.reformat(frame, format="rgb24").to_ndarray()
        if turned:
            pixels = np.rot90(pixels, turned)
        height, width = pixels.shape[:2]
        if self._job.form == "raw":
            return pixels.tobytes(), width, height
        from PIL import Image

        from penstock.annotate.media.stills import encode

        return encode(Image.fromarray(np.ascontiguousarray(pixels)), self._job), width, height

    def _grey(self, frame: VideoFrame) -> bytes:
        grey: Any = self._greys.reformat(frame, width=THUMB, height=THUMB, format="gray").to_ndarray()
        return bytes(grey.tobytes())

    # -- the file ------------------------------------------------------------------------------------

    @contextmanager
    def _source(self) -> Iterator[InputContainer]:
        with open(self._job.path, "rb") as file, opened(file) as container:
            yield container

    def _timed(self, stream: VideoStream) -> Timing:
        return Timing(stream)

    def _checked(self, container: InputContainer) -> VideoStream:
        streams = container.streams.video
        if not streams:
            raise Unreadable("there is no video in it")
        stream = streams[0]
        if stream.codec_context is None:
            raise Unreadable("its video is of a kind that cannot be decoded here")
        if stream.codec_context.width * stream.codec_context.height > self._job.limits.pixels:
            size = f"{stream.codec_context.width} × {stream.codec_context.height}"
            raise Unreadable(f"its frames have {size} pixels, more than allowed")
        stream.thread_type = "NONE" if self._job.threads == 1 else "FRAME"
        stream.codec_context.thread_count = self._job.threads
        declared = declared_seconds(container, stream)
        if declared is not None and declared > self._job.limits.seconds:
            raise Unreadable(f"it is {float(declared):.0f} s long, more than allowed")
        return stream

    def _say_facts(self, container: InputContainer, stream: VideoStream) -> None:
        declared = declared_seconds(container, stream)
        rate, sar = stream.average_rate, stream.sample_aspect_ratio
        self._speaker.say(
            Opened(
                rate=str(exact(rate)) if rate else None,
                seconds=None if declared is None else seconds_text(declared),
                sar=str(exact(sar)) if sar and exact(sar) != 1 else None,
            )
        )

    def _end(self, container: InputContainer, stream: VideoStream) -> None:
        if self._over:
            self._holes.close(self._next)
            self._speaker.say(Finished(frames=None, seconds=None))
            return
        if not self._next:
            raise Unreadable("none of its packets could be decoded")
        end = self._timing.end
        self._holes.end(self._next, end, self._timing.gap, declared_seconds(container, stream))
        self._speaker.say(Finished(frames=self._next, seconds=seconds_text(end)))


def opened(
    source: Any,
    formats: str = FORMATS,
    protocols: str = "none",
    form: str | None = None,
    timeout: tuple[float, float] | None = None,
    options: Mapping[str, str] = _NO_OPTIONS,
) -> InputContainer:
    """Open what FFmpeg is allowed to: it is given the bytes of a file, and can open nothing by itself, unless
    ``source`` is an address and ``protocols`` names what it is reached by.

    Raises:
        Unreadable: It is no video.
    """
    # Texts in a file need not be text; PyAV from 19 on reads them as they are.
    major = int(av.__version__.split(".")[0])
    texts: dict[str, Any] = {"metadata_errors": "replace"} if major < 19 else {}
    allowed = {**options, "format_whitelist": formats, "protocol_whitelist": protocols}
    try:
        container: InputContainer = av.open(
            source, mode="r", format=form, container_options=allowed, timeout=timeout, **texts
        )
    except BROKEN as error:
        raise Unreadable(f"it is no video that can be read ({error})") from error
    return container
