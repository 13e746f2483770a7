"""Videos read in this process, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.annotate.media.messages import Job, Message, Picture, Place
from penstock.annotate.media.sampling import Sampling

ALL = Sampling()


class Ears:
    """Hears what is said of a file."""

    def __init__(self) -> None:
        self.said: list[tuple[Message, bytes]] = []

    def say(self, message: Message, picture: bytes = b"") -> None:
        self.said.append((message, picture))

    def passed(self, frame: int, t: Callable[[], str]) -> None:
        pass

    def at(self, packet: int) -> None:
        pass

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message, _ in self.said if isinstance(message, kind)]

    @property
    def pictures(self) -> list[tuple[Place, bytes]]:
        return [(message.place, data) for message, data in self.said if isinstance(message, Picture)]


def heard(path: Path, sampling: Sampling = ALL, **fields: Any) -> Ears:
    from penstock.annotate.media import video

    ears = Ears()
    video.read_video(Job(path=str(path), kind="video", sampling=sampling, **fields), ears)  # type: ignore[arg-type]
    return ears
