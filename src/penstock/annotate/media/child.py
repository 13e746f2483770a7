"""The process that decodes: it reads one job after another, and says what it finds.

It is a process of its own because a damaged or hostile file can end a decoder, or make it take all the memory
there is.  Run as ``python -m penstock.annotate.media.child SOCKET PACKET``, both numbers of open files.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
from contextlib import suppress

from penstock.annotate.media.messages import LENGTHS, PACKET, Job, Refused, read_job
from penstock.annotate.media.speaker import Speaker, Unreadable

BUFFER = 4 * 1024 * 1024  # bytes; some frames fit


def serve(link: socket.socket, packet: mmap.mmap) -> None:
    """Do jobs until there are no more."""
    speaker = Speaker(link, packet)
    limited = False
    while (job := _next_job(link)) is not None:
        if not limited:
            _limit_memory(job.limits.memory)
            limited = True
        speaker.at(-1)
        try:
            _decode(job, speaker, link)
        except Unreadable as error:
            speaker.say(Refused(message=str(error)))
        except MemoryError:
            speaker.say(
                Refused(message=f"it takes more than the {job.limits.memory} bytes of memory allowed")
            )
        except Exception as error:  # noqa: BLE001 - the top of the process: what a decoder raises has no end
            speaker.say(Refused(message=f"it cannot be decoded: {type(error).__name__}: {error}"))


def _decode(job: Job, speaker: Speaker, link: socket.socket) -> None:
    # Loaded here: FFmpeg takes its time, and need not be there for still images.
    if job.live is not None:
        from penstock.annotate.media.live import read_live

        read_live(job, speaker, link)
    elif job.kind == "video":
        from penstock.annotate.media.video import read_video

        read_video(job, speaker)
    else:
        from penstock.annotate.media.stills import read_stills

        read_stills(job, speaker)


def _next_job(link: socket.socket) -> Job | None:
    head = _read(link, LENGTHS.size)
    if not head:
        return None
    size, _ = LENGTHS.unpack(head)
    return read_job(_read(link, size))


def _read(link: socket.socket, size: int) -> bytes:
    """Return so many bytes; none if the other side is gone."""
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _limit_memory(most: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # not on every system; a lower limit may be in force
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve the one whose socket was given."""
    link = socket.socket(fileno=int(sys.argv[1]))
    with suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    with mmap.mmap(int(sys.argv[2]), PACKET.size) as packet, suppress(BrokenPipeError, ConnectionError):
        serve(link, packet)
    # Nothing is tidied up: what a library does at its end could only break what is done already.
    os._exit(0)


if __name__ == "__main__":
    main()
