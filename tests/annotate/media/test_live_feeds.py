"""Live sources: which there are, what of an address is allowed, and which frames wait."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate import films, streams
from annotate.media.ears import Ears
from penstock.annotate.errors import MediaError
from penstock.annotate.media.feeds import is_live, opened_live
from penstock.annotate.media.messages import Feed, Finished, Hurt, Job, Message, Passed, Picture
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.media.speaker import Unreadable

pytest.importorskip("av")

from penstock.annotate.media import live
from penstock.annotate.media.live import Box, Kept


@pytest.mark.parametrize(
    ("spec", "yes"),
    [
        ("rtsp://host/1", True),
        ("rtsps://host/1", True),
        ("tcp://host:9", True),
        ("/dev/video0", True),
        ("/dev/video0/../sda", False),
        ("/dev/null", False),
        ("a.mp4", False),
        ("-", False),
        ("http://host/a.mp4", False),
        ("rtsp://[host", False),
    ],
)
def test_what_can_only_be_live_is(spec: str, yes: bool) -> None:
    assert is_live(spec) == yes


@pytest.mark.parametrize(
    "spec",
    [
        "http://host/live",
        "udp://host:1",
        "file:///dev/video0",
        "concat:a|b",
        "rtsp:///path",
        "rtsp://host:port/1",
        "rtsp://host:99999/1",
        "rtsp://ho st/1",
        "rtsp://host/1\r\nSETUP",
        "rtsp://host/1|file:/etc/passwd",
        "rtsp://hôst/1",
        "tcp://host",
        "/dev/null",
        "/dev/zero",
        "none.ts",
        ".",
    ],
)
def test_nothing_else_is_opened(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(MediaError), opened_live(spec):
        pass


def test_passwords_are_no_part_of_a_name() -> None:
    with (
        opened_live("rtsp://me:secret@host:554/a/b?c=1") as one,
        opened_live("rtsp://host:554/a/b?c=1") as other,
    ):
        assert (one.name, one.digest) == ("host/a/b", other.digest)
        assert one.live is not None
        assert (one.live.address, one.live.form) == ("rtsp://me:secret@host:554/a/b?c=1", "rtsp")
    with pytest.raises(MediaError) as caught, opened_live("tcp://me:secret@host"):
        pass
    assert "secret" not in str(caught.value)


def test_what_was_opened_is_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with opened_live(str(tmp_path / "pipe")) as media:
        assert media.live is not None
        assert os.get_blocking(media.live.file)
        file = media.live.file
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(file)


def test_standard_input_has_to_be_one() -> None:
    for stdin in (None, io.BytesIO(b"x")):
        with pytest.raises(MediaError, match="standard input"), opened_live("-", stdin=stdin):
            pass


def test_at_least_one_frame_waits() -> None:
    with pytest.raises(ValueError, match="at least 1"), opened_live("-", 0):
        pass


def test_who_does_not_answer_is_named() -> None:
    with streams.listening() as (listener, port):
        listener.close()
        with pytest.raises(MediaError, match=f"127.0.0.1:{port} does not answer"):
            opened_live(f"tcp://127.0.0.1:{port}").__enter__()


@given(st.lists(st.sampled_from("kkktm"), max_size=60), st.integers(1, 5))
def test_the_newest_wait_and_all_are_told_of(steps: list[str], backlog: int) -> None:
    box = Box(Ears(), backlog)  # type: ignore[arg-type]
    put, seen, waiting = 0, [], []

    def take() -> None:
        entry, gone = box.take(0)
        if isinstance(entry, Kept):
            seen.extend(range(gone.first, gone.last + 1) if gone else ())
            assert gone is None or gone.count == gone.last - gone.first + 1
            assert entry.number == waiting.pop(0)
            seen.append(entry.number)
        else:
            assert gone is None

    for step in steps:
        if step == "k":
            box.keep(Kept(None, put, Fraction(put, 30), False))  # type: ignore[arg-type]
            waiting = [*waiting, put][-backlog:]
            put += 1
        elif step == "m":
            box.say(Hurt())
        else:
            take()
    while box._entries:
        take()
    assert seen == list(range(put))


def test_where_nothing_comes_there_is_a_sign_of_life() -> None:
    box = Box(Ears(), 1)  # type: ignore[arg-type]
    box.passed(7, lambda: "0.5")
    assert box.take(0) == (Passed(frame=7, t="0.5"), None)


def followed(feed: Feed, ears: Ears, **fields: Any) -> None:
    """Read a live source in this process, and ask for everything that comes of it."""
    link, other = socket.socketpair()
    with link, other:
        other.sendall(bytes(10_000))
        live.read_live(Job(path="", kind="video", sampling=Sampling(), live=feed, **fields), ears, link)  # type: ignore[arg-type]


class Clock:
    """Stands still until it is set, or is to run: then a second passes at each sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs = False

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += self.runs
        time.sleep(0.001)  # only so that others have their turn


class Watching(Ears):
    """Does something at some frames."""

    def __init__(self, at: dict[int, Callable[[], None]]) -> None:
        super().__init__()
        self._at = at

    def say(self, message: Message, picture: bytes = b"") -> None:
        super().say(message, picture)
        if isinstance(message, Picture) and (do := self._at.get(message.place.frame)):
            do()


def test_a_file_that_grows_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = streams.film(tmp_path / "whole.ts", 60).read_bytes()
    growing, clock = tmp_path / "growing.ts", Clock()
    growing.write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(live, "time", clock)

    def grow() -> None:
        with growing.open("ab") as file:
            file.write(data[len(data) // 2 :])

    def stop() -> None:
        clock.runs = True  # whoever begins to wait for more has waited long enough after a while

    ears = Watching({5: grow, 50: stop})
    with growing.open("rb") as file:
        followed(Feed(file=file.fileno(), grows=True, idle_s=10.0, backlog=100), ears)
    assert [place.frame for place, _ in ears.pictures] == list(range(60))
    assert ears.of(Finished)[0].frames == 60


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 1000)
    with (tmp_path / "text").open("rb") as file, pytest.raises(Unreadable, match="no video"):
        followed(Feed(file=file.fileno()), Ears())


def test_a_camera_that_is_none_is_refused() -> None:
    with pytest.raises(Unreadable, match="no video that can be read"):
        followed(Feed(address="/dev/video4711", form="v4l2"), Ears())


def test_an_address_opens_nothing_else(tmp_path: Path) -> None:
    film = films.write(tmp_path / "a.ts", 5, form="mpegts")
    for address in (str(film), f"file:{film}", f"concat:{film}"):
        with pytest.raises(Unreadable):
            followed(Feed(address=address, form="rtsp"), Ears())


def test_times_go_on_when_a_clock_is_set_back(tmp_path: Path) -> None:
    film = streams.film(tmp_path / "a.ts", 60)
    twice = tmp_path / "twice.ts"
    twice.write_bytes(film.read_bytes() * 2)
    ears = Ears()
    with twice.open("rb") as file:
        followed(Feed(file=file.fileno(), backlog=200), ears)
    times = [Fraction(place.t) for place, _ in ears.pictures]
    assert len(times) > 110
    assert times == sorted(times)
    assert times[-1] > 3.5
