"""Keyframes alone: what they say of themselves is what is said of them among all frames, and sooner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotate import films
from annotate.media.ears import Ears, heard
from penstock.annotate.media.messages import Finished, Hole, Hurt, Limits
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.media.speaker import Unreadable

pytest.importorskip("av")

from penstock.annotate.media import video

KEYFRAMES = Sampling(keyframes=True)
H264 = {"preset": "ultrafast", "g": "20", "bf": "2", "crf": "18"}
OPEN = {"preset": "ultrafast", "x264-params": "open-gop=1:keyint=20:bframes=3:b-adapt=0:scenecut=0"}
H265 = {"preset": "ultrafast", "x265-params": "keyint=20:open-gop=1:bframes=3:log-level=none"}
VP9 = {"g": "20", "cpu-used": "8", "deadline": "realtime"}
QUICK = ["a.mp4", "b.ts", "c.mkv", "i.mp4", "j.mkv", "k.webm", "l.ts", "m.mkv"]
SLOW = ["d.avi", "g.avi", "h.h264"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    films.write_all(folder, 60)
    films.write(folder / "i.mp4", 60, options=OPEN)
    films.write(folder / "j.mkv", 60, codec="libx265", options=H265)
    films.write(folder / "k.webm", 60, codec="libvpx-vp9", options=VP9, gaps=films.UNEVEN)
    films.write(folder / "l.ts", 60, codec="mpeg2video", form="mpegts", options={"g": "20", "bf": "2"})
    films.write(folder / "m.mkv", 60, codec="mpeg4", options={"g": "20", "bf": "2"})
    return folder


def slowly(path: Path, sampling: Sampling = KEYFRAMES, **fields: Any) -> Ears:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video.Reading, "by_keyframes", lambda _: False)
        return heard(path, sampling, **fields)


def quickly(path: Path, sampling: Sampling = KEYFRAMES, **fields: Any) -> Ears:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video.Reading, "begins", lambda _: pytest.fail("every frame is decoded"))
        return heard(path, sampling, **fields)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", QUICK)
def test_numbers_times_and_pixels_are_those_among_all_frames(folder: Path, name: str, threads: int) -> None:
    expected = slowly(folder / name)
    assert 2 <= len(expected.pictures) < 30
    assert quickly(folder / name, threads=threads).said == expected.said


@pytest.mark.parametrize("name", SLOW)
def test_where_time_stamps_do_not_tell_every_frame_is_decoded(folder: Path, name: str) -> None:
    assert heard(folder / name, KEYFRAMES).said == slowly(folder / name).said


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(keyframes=True, limit=2),
        Sampling(keyframes=True, begin="0.6"),
        Sampling(keyframes=True, end="0.5"),
        Sampling(keyframes=True, begin="5"),
    ],
)
def test_ranges_are_kept(folder: Path, sampling: Sampling) -> None:
    assert quickly(folder / "i.mp4", sampling).said == slowly(folder / "i.mp4", sampling).said


def test_behind_any_frame_the_same_frames_are_chosen(folder: Path) -> None:
    whole = quickly(folder / "i.mp4").pictures
    for taken, (place, _) in enumerate(whole, 1):
        assert quickly(folder / "i.mp4", after=place, taken=taken).pictures == whole[taken:]


def test_a_keyframe_that_is_damaged_is_met_among_all_frames(folder: Path, tmp_path: Path) -> None:
    import av

    with av.open(str(folder / "a.mp4")) as container:
        keys = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe and packet.size]
    data = bytearray((folder / "a.mp4").read_bytes())
    assert keys[-1] is not None
    data[keys[-1] + 1000 : keys[-1] + 3000] = bytes(2000)
    path = tmp_path / "hurt.mp4"
    path.write_bytes(data)
    found, expected = heard(path, KEYFRAMES), slowly(path)
    assert found.pictures == expected.pictures
    assert found.of(Hurt) == expected.of(Hurt) != []
    assert found.of(Finished) == expected.of(Finished)


def test_packets_that_are_left_out_are_met_among_all_frames(folder: Path) -> None:
    found, expected = heard(folder / "a.mp4", KEYFRAMES, avoid=(30,)), slowly(folder / "a.mp4", avoid=(30,))
    assert found.pictures == expected.pictures
    assert found.of(Hole) == expected.of(Hole) != []


def test_limits_are_kept(folder: Path) -> None:
    with pytest.raises(Unreadable, match="allowed"):
        heard(folder / "c.mkv", KEYFRAMES, limits=Limits(seconds=1.0))


def test_most_packets_are_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.write(tmp_path / "long.mp4", 300, options={"preset": "ultrafast", "g": "60"})
    decoded: list[int] = []
    monkeypatch.setattr(Ears, "at", lambda _, packet: decoded.append(packet))
    assert [place.frame for place, _ in quickly(path).pictures] == decoded == [0, 60, 120, 180, 240]
