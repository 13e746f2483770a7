"""The log: torn lines are cut, and nothing else is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from penstock.annotate.errors import ResumeError
from penstock.annotate.log import Log
from penstock.annotate.records import Frame, encode


def frame(number: int) -> Frame:
    return Frame(src="s", name="a", frame=number, pts=None, tb="1/1", t=str(number), w=1, h=1)


def written(path: Path, count: int, *, end: bool = False) -> bytes:
    log = Log(path)
    assert list(log.replay()) == []
    for number in range(count):
        log.append(frame(number))
    if end:
        log.finish()
    log.close()
    return path.read_bytes()


def replayed(path: Path) -> tuple[list[int], Log]:
    log = Log(path)
    try:
        return [one.frame for one in log.replay()], log
    finally:
        log.close()


def test_cut_anywhere_its_whole_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = written(path, 3, end=True)
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    near = {end + by for end in (0, *ends) for by in (-1, 0, 1)} & set(range(len(data) + 1))
    for size in sorted(near | set(range(0, len(data), 29))):
        path.write_bytes(data[:size])
        frames, log = replayed(path)
        whole = sum(end <= size for end in ends)
        assert frames == list(range(min(whole, 3)))
        assert (log.end is not None) == (whole == 4)
        assert path.read_bytes() == data[: ends[whole - 1] if whole else 0]


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\0" * 40 + b"\n", b'{"v":1}\n', b"\xff"])
def test_what_a_loss_of_power_leaves_is_cut(tmp_path: Path, tail: bytes) -> None:
    data = written(tmp_path / "log", 2)
    (tmp_path / "log").write_bytes(data + tail)
    assert replayed(tmp_path / "log")[0] == [0, 1]
    assert (tmp_path / "log").read_bytes() == data


def test_nobody_waits_for_the_disk_when_a_log_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, synced, sync = threading.Event(), threading.Event(), os.fsync

    def slow(file: int) -> None:
        assert gate.wait(10)
        sync(file)
        synced.set()

    log = Log(tmp_path / "log")
    log.append(frame(0))
    monkeypatch.setattr(os, "fsync", slow)
    log.close()
    # Another can have it at once, and it is whole.
    assert replayed(tmp_path / "log")[0] == [0]
    gate.set()
    assert synced.wait(10)


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = written(path, 3).splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][5:] + lines[2])
    with pytest.raises(ResumeError, match="line 2"):
        replayed(path)
    assert path.read_bytes() == lines[0] + lines[1][5:] + lines[2]


def test_the_digest_is_of_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path, 2)
    log = Log(path)
    assert [one.frame for one in log.replay()] == [0, 1]
    log.append(frame(2))
    end = log.finish()
    log.close()
    assert written(tmp_path / "other", 3, end=True) == path.read_bytes()
    path.write_bytes(encode(frame(7)) + path.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(ResumeError, match="was changed"):
        replayed(path)
    assert end.frames == 3
