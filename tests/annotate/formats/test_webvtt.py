"""The track of a video as FFmpeg reads it."""

from __future__ import annotations

import json
from pathlib import Path

import av

from annotate.logs import dataset, walk
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.records import Frame, Region, decode


def test_ffmpeg_reads_the_cues(tmp_path: Path) -> None:
    FORMATS["webvtt"].write(dataset(), tmp_path)
    with av.open(str(tmp_path / "walk.vtt")) as container:
        packets = [packet for packet in container.demux() if packet.size]
        cues = [
            (packet.pts * packet.time_base, packet.duration * packet.time_base, bytes(packet))
            for packet in packets
        ]
    assert [float(start) for start, _, _ in cues] == [number / 10 for number in range(0, 31, 5)]
    assert {float(length) for _, length, _ in cues} == {0.5}
    assert [decode(text) for _, _, text in cues] == [walk(number) for number in range(0, 31, 5)]


def test_an_arrow_in_a_label_does_not_end_a_cue(tmp_path: Path) -> None:
    region = Region(id="ab", label="a --> b\n\nc", box=(0.0, 0.0, 1.0, 1.0), src="model")
    frame = Frame(src="s", name="v.mp4", frame=0, pts=0, tb="1/1", t="0", w=4, h=4, regions=(region,))
    later = Frame(src="s", name="v.mp4", frame=1, pts=1, tb="1/1", t="1/3", w=4, h=4)
    one = FORMATS["webvtt"]
    one.write(Dataset(lambda: [frame, later]), tmp_path)
    assert one.check(tmp_path) == []
    _, cue, _ = (tmp_path / "v.vtt").read_text().split("\n\n")
    assert cue.startswith("00:00:00.000 --> 00:00:00.333\n")
    assert json.loads(cue.partition("\n")[2])["regions"][0]["label"] == region.label
