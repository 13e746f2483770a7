"""Which files are meant."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import httpx
import pytest

from penstock.annotate.errors import MediaError
from penstock.annotate.media import fetch
from penstock.annotate.media.messages import Limits
from penstock.annotate.media.sources import Media, find

PNG, GIF = b"\x89PNG\r\n\x1a\n" + bytes(20), b"GIF89a" + bytes(20)
LIMITS = Limits()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in {
        "in/b.png": PNG,
        "in/a.gif": GIF,
        "in/deep/c.mp4": b"\0\0\0\x18ftypisom" + bytes(20),
        "in/notes.txt": b"hello",
        "in/.hidden/d.png": PNG,
        "other/b.png": PNG,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def found(folder: Path, *specs: str) -> list[Media]:
    return find([str(folder / spec) for spec in specs], folder / "media", LIMITS)


def test_a_folder_has_its_media_by_name(folder: Path) -> None:
    media = found(folder, "in")
    assert [(one.name, one.kind) for one in media] == [
        ("a.gif", "pages"),
        ("b.png", "image"),
        ("deep/c.mp4", "video"),
    ]
    assert media[1].digest == f"sha256:{hashlib.sha256(PNG).hexdigest()}"


def test_patterns_files_and_folders_come_in_the_order_given(folder: Path) -> None:
    names = [one.name for one in found(folder, "other/b.png", "in/*.gif", "in/**/*.mp4", "in")]
    assert names == ["b.png", "a.gif", "deep/c.mp4", "4/a.gif", "4/b.png", "4/deep/c.mp4"]


def test_files_with_the_same_bytes_are_told_apart(folder: Path) -> None:
    assert [(one.name, one.copy) for one in found(folder, "in/b.png", "other/b.png")] == [
        ("b.png", 0),
        ("2/b.png", 1),
    ]


@pytest.mark.parametrize("spec", ["none.png", "in/*.jpg", "in/.hidden/..", "empty"])
def test_what_is_not_there_is_refused(folder: Path, spec: str) -> None:
    (folder / "empty").mkdir()
    if spec.endswith(".."):
        assert found(folder, spec)  # that is the folder itself
        return
    with pytest.raises(MediaError):
        found(folder, spec)


@pytest.mark.parametrize("spec", ["ftp://host/a.mp4", "file:///etc/passwd", "concat:a|b", "rtsp://host/live"])
def test_other_addresses_are_never_opened(folder: Path, spec: str) -> None:
    with pytest.raises(MediaError):
        find([spec], folder, LIMITS)


def test_too_large_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(MediaError, match="28 bytes"):
        find([str(folder / "in" / "b.png")], folder, Limits(bytes=10))


def test_standard_input_is_kept(folder: Path) -> None:
    (media,) = find(["-"], folder / "media", LIMITS, io.BytesIO(PNG))
    assert (media.name, media.kind, media.path.read_bytes()) == ("stdin", "image", PNG)
    (again,) = find(["-"], folder / "media", LIMITS, io.BytesIO(b""))
    assert again == media
    with pytest.raises(MediaError, match="empty"):
        find(["-"], folder / "nothing", LIMITS, io.BytesIO(b""))


def serving(data: bytes, status: int = 200) -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(status, content=data))


def test_a_download_is_made_once(tmp_path: Path) -> None:
    url = "https://example.com/films/a%20b.mp4?x=1"
    path = fetch.fetch(url, tmp_path, 100, serving(b"film"))
    assert (path.name, path.read_bytes()) == ("a b.mp4", b"film")
    assert fetch.fetch(url, tmp_path, 100, serving(b"", 404)) == path


@pytest.mark.parametrize(("status", "size"), [(404, 1), (200, 101)])
def test_a_download_that_fails_leaves_nothing(tmp_path: Path, status: int, size: int) -> None:
    with pytest.raises(MediaError):
        fetch.fetch("http://example.com/a.mp4", tmp_path, 100, serving(bytes(size), status))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_redirect_elsewhere_is_not_followed(tmp_path: Path) -> None:
    away = httpx.MockTransport(lambda _: httpx.Response(302, headers={"location": "file:///etc/passwd"}))
    with pytest.raises(MediaError):
        fetch.fetch("http://example.com/a.mp4", tmp_path, 100, away)
