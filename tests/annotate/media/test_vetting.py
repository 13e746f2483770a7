"""What is downloaded for somebody else, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from penstock.annotate.errors import MediaError
from penstock.annotate.media.fetch import fetch
from penstock.annotate.media.vetting import Vetting


def answers(**found: httpx.Response) -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: found[request.url.path.strip("/")])


def get(path: str, folder: Path, vetting: Vetting, **found: httpx.Response) -> Path:
    return fetch(f"http://93.184.215.14/{path}", folder, 100, answers(**found), vetting)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0"),
        *("[::1]", "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "224.0.0.1", "2130706433", "0x7f.1"),
        *("127.1", "[::127.0.0.1]", "[64:ff9b::a00:1]", "[2002:7f00:1::]", "[fec0::1]"),
        *("100.64.0.1", "[64:ff9b:1::7f00:1]", "[2001:0:53aa:64c:0:0:80ff:fffe]"),
    ],
)
def test_private_addresses_are_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="private network"):
        fetch(f"http://{host}/a", tmp_path, 100, answers(a=httpx.Response(200)), Vetting())
    ours = Vetting(private=True)
    assert fetch(f"http://{host}/a", tmp_path, 100, answers(a=httpx.Response(200)), ours).exists()


@pytest.mark.parametrize("to", ["http://127.0.0.1/secret", "http://[::1]/secret"])
def test_redirects_are_looked_at(to: str, tmp_path: Path) -> None:
    away = httpx.Response(302, headers={"location": to})
    with pytest.raises(MediaError, match="private network"):
        get("a", tmp_path, Vetting(), a=away, secret=httpx.Response(200, text="secret"))


def test_redirects_lead_to_no_file(tmp_path: Path) -> None:
    away = httpx.Response(302, headers={"location": "file:///etc/passwd"})
    with pytest.raises(MediaError):
        get("a", tmp_path, Vetting(), a=away)


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be found"):
        fetch("http://nobody.invalid/a", tmp_path, 100, answers(a=httpx.Response(200)), Vetting())


def test_a_download_ends_when_it_is_told_to(tmp_path: Path) -> None:
    vetting = Vetting()
    read = []

    def pieces() -> Iterator[bytes]:
        for number in range(1000):
            read.append(number)
            if number == 3:
                vetting.stop()
            yield b"x" * 300_000

    with pytest.raises(MediaError, match="stopped"):
        fetch(
            "http://93.184.215.14/a",
            tmp_path,
            10**9,
            answers(a=httpx.Response(200, content=pieces())),
            vetting,
        )
    assert len(read) < 10
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_download_may_not_take_for_ever(tmp_path: Path) -> None:
    now = [0.0]

    def pieces() -> Iterator[bytes]:
        for _ in range(1000):
            now[0] += 1.0
            yield b"x" * 300_000

    vetting = Vetting(seconds=10, clock=lambda: now[0])
    with pytest.raises(MediaError, match="too long"):
        fetch(
            "http://93.184.215.14/a",
            tmp_path,
            10**9,
            answers(a=httpx.Response(200, content=pieces())),
            vetting,
        )
