"""Frames of video: known by their numbers, met again by seeking, and damage told as intervals."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from annotate import films
from annotate.media.ears import heard
from penstock.annotate.media.messages import Finished, Hole, Limits, Opened, Picture
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.media.speaker import Unreadable

pytest.importorskip("av")

from penstock.annotate.media import video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    films.write_all(folder, 60)
    return folder


NAMES = ["a.mp4", "b.ts", "c.mkv", "d.avi", "e.mp4", "f.mp4", "g.avi", "h.h264"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_found_by_a_seek_is_what_is_found_from_the_start(folder: Path, name: str) -> None:
    whole = heard(folder / name).pictures
    assert len(whole) > 40
    assert [place.frame for place, _ in whole] == list(range(len(whole)))
    for (place, _), expected in pairwise(whole):
        one = Sampling(frames=(expected[0].frame,))
        assert heard(folder / name, one, after=place, taken=0, seek_from=0).pictures == [expected]


def test_seeks_are_used_where_they_can_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = heard(folder / "c.mkv").pictures[50][0]
    monkeypatch.setattr(video.Reading, "begins", lambda _: pytest.fail("it was read from the start"))
    assert heard(folder / "c.mkv", after=place, taken=51, seek_from=0).pictures[0][0].frame == 51


@pytest.mark.parametrize(
    "sampling", [Sampling(every=7), Sampling(fps="4"), Sampling(limit=20), Sampling(scenes=30.0)]
)
@pytest.mark.parametrize("seek_from", [0, 1000])
def test_behind_any_frame_the_same_frames_are_chosen(
    folder: Path, sampling: Sampling, seek_from: int
) -> None:
    chosen = heard(folder / "c.mkv", sampling).pictures
    for taken, (place, _) in enumerate(chosen, 1):
        again = heard(folder / "c.mkv", sampling, after=place, taken=taken, seek_from=seek_from).pictures
        assert again == chosen[taken:]


def test_times_are_exact_from_the_first_frame(folder: Path) -> None:
    times = [Fraction(place.t) for place, _ in heard(folder / "b.ts").pictures]
    assert times == [Fraction(number, 30) for number in range(60)]
    uneven = [Fraction(place.t) * 1000 for place, _ in heard(folder / "c.mkv").pictures]
    assert uneven[:6] == [0, 17, 50, 100, 140, 290]


def test_frames_without_time_stamps_are_counted(folder: Path) -> None:
    ears = heard(folder / "h.h264")
    assert {place.pts for place, _ in ears.pictures} == {None}
    assert {message.flags for message in ears.of(Picture)} == {("no_pts",)}
    assert len({place.t for place, _ in ears.pictures}) == 60


def test_the_facts_are_told(folder: Path) -> None:
    ears = heard(folder / "a.mp4")
    assert ears.of(Opened) == [Opened(rate="30", seconds="2", sar=None)]
    assert ears.of(Finished) == [Finished(frames=60, seconds="2")]


def test_a_hole_is_an_interval(folder: Path) -> None:
    ears = heard(folder / "f.mp4")
    (hole,) = ears.of(Hole)
    assert (hole.why, hole.packets >= 1) == ("packets", True)
    assert 0 < Fraction(hole.begin) < Fraction(hole.end) <= 2
    assert 40 < len(ears.pictures) <= 60


def test_a_file_that_ends_too_early_says_so(folder: Path, tmp_path: Path) -> None:
    whole = films.write(tmp_path / "w.mkv", 120, options={"preset": "ultrafast", "g": "10"})
    cut = tmp_path / "cut.mkv"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    ears = heard(cut)
    assert [hole.why for hole in ears.of(Hole)][-1] == "truncated"
    assert 30 < ears.of(Finished)[0].frames < 90


def test_frames_with_one_time_are_told_apart(tmp_path: Path) -> None:
    twins = films.write(tmp_path / "twins.mkv", 30, options={"preset": "ultrafast", "g": "10"}, gaps=(40, 0))
    whole = heard(twins).pictures
    assert whole[2][0].pts == whole[1][0].pts
    for taken, (place, _) in enumerate(whole, 1):
        assert heard(twins, after=place, taken=taken, seek_from=0).pictures == whole[taken:]


def test_a_packet_can_be_left_out(folder: Path) -> None:
    ears = heard(folder / "d.avi", avoid=(20,))
    assert [hole.packets for hole in ears.of(Hole)] == [1]
    assert len(ears.pictures) >= 58


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_pictures_are_upright(tmp_path: Path, turn: int) -> None:
    import av
    import numpy as np

    path = tmp_path / "turned.mp4"
    films.write(path, 3, options={"preset": "ultrafast", "crf": "0"})
    turned = tmp_path / "out.mp4"
    # The display matrix of a track is 36 bytes into its header; fixed-point numbers, row by row.
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 8 + 8
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    matrix = np.array([cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30], dtype=">i4")
    data[at : at + 36] = matrix.tobytes()
    turned.write_bytes(data)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    message, picture = next(one for one in heard(turned).said if isinstance(one[0], Picture))
    assert isinstance(message, Picture)
    assert message.rot == turn
    upright = np.rot90(stored, -turn // 90)
    assert (message.h, message.w) == upright.shape[:2]
    assert picture == upright.tobytes()


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_pictures_travel_as_files_too(folder: Path, form: str) -> None:
    import io

    from PIL import Image

    _, data = heard(folder / "a.mp4", Sampling(limit=1), form=form).pictures[0]
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == (form.upper(), (films.WIDTH, films.HEIGHT))


@pytest.mark.parametrize("limits", [Limits(pixels=100 * 100), Limits(seconds=1.0)], ids=["pixels", "seconds"])
def test_limits_are_kept(folder: Path, limits: Limits) -> None:
    with pytest.raises(Unreadable, match="allowed"):
        heard(folder / "c.mkv", limits=limits)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b'{"a": 1}',
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\0" * 5000,
        b"WEBVTT\n\n00:00.000 --> 00:01.000\nhi\n",
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(Unreadable):
        heard(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av
    import numpy as np

    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(Unreadable):
        heard(path)


@pytest.mark.parametrize("name", ["a.mp4", "b.ts", "g.avi"])
def test_of_a_file_that_was_cut_off_the_rest_is_read(folder: Path, tmp_path: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    if name == "a.mp4":  # with what tells of its frames at the front, it can be read
        front = {"movflags": "faststart"}
        data = films.write(tmp_path / "whole.mp4", 60, container_options=front).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) * 2 // 3])
    ears = heard(path)
    assert 20 < len(ears.pictures) < 60
    assert ears.of(Finished)[0].frames == len(ears.pictures)


def test_a_playlist_opens_nothing(folder: Path, tmp_path: Path) -> None:
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\n{folder / 'b.ts'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(Unreadable):
        heard(playlist)


@pytest.mark.parametrize("seed", range(20))
def test_damage_is_an_error_or_is_told(folder: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    source = folder / NAMES[seed % len(NAMES)]
    data = bytearray(source.read_bytes())
    for _ in range(chance.choice((1, 10, 200))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path = tmp_path / source.name
    path.write_bytes(data)
    try:
        ears = heard(path, limits=Limits(pixels=1_000_000))
    except Unreadable:
        return
    assert ears.of(Finished)
    assert heard(path, limits=Limits(pixels=1_000_000)).said == ears.said
