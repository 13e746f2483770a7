"""URLs that callers name: nothing here fetches them, but for media of annotation tasks, and those only from
addresses that are everybody's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from behaviour.promises import promise
from behaviour.served import Connect
from penstock import Runtime
from penstock.annotate.errors import MediaError
from penstock.annotate.media import vetting
from penstock.annotate.media.fetch import fetch
from penstock.annotate.media.vetting import Vetting
from penstock.annotate.serving import annotate_command

SPELLINGS = (
    *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0x7f.1", "127.0.0.1.", "LOCALHOST"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]"),
    *("[::1]", "[0:0:0:0:0:0:0:1]", "0.0.0.0", "0", "[::]", "somebody@127.0.0.1", "93.184.215.14@127.0.0.1"),
    *(
        "127.0.0.1%2e",
        "０x7f.1",
        "①②⑦.0.0.1",
        "0177.0.0.1",
        "127.0.0.1#@example.com",
        "127.0.0.1\\@example.com",
    ),
)


class Site:
    """A server on this machine, which must not be asked.

    Attributes:
        asked: The Host and path of each request.
        to: Where each of them is sent on, if anywhere.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.to: str | None = None
        self.port = 0


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.headers["host"], self.path))
            body = b"secret"
            self.send_response(200 if site.to is None else 302)
            if site.to is not None:
                self.send_header("location", site.to)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer((host, 0), Handler) as server:
        site.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@promise("P37")
@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_an_address_leads_to_this_machine(host: str, tmp_path: Path) -> None:
    with serving() as site:
        with pytest.raises(MediaError):
            fetch(f"http://{host}:{site.port}/a", tmp_path, 100, vetting=Vetting())
        assert site.asked == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@promise("P37")
def test_no_redirect_leads_to_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetting, "is_public", lambda address: address == "127.0.0.2")  # the first of them is
    with serving("127.0.0.2") as public, serving() as site:
        for to in (
            f"http://127.0.0.1:{site.port}/secret",
            f"//127.0.0.1:{site.port}/b",
            "file:///etc/passwd",
        ):
            public.to = to
            with pytest.raises(MediaError):
                fetch(f"http://127.0.0.2:{public.port}/a", tmp_path, 100, vetting=Vetting())
        assert len(public.asked) == 3
        assert site.asked == []
        public.to = "/a"
        with pytest.raises(MediaError, match="more than 5 times"):
            fetch(f"http://127.0.0.2:{public.port}/a", tmp_path, 100, vetting=Vetting())


@promise("P37")
def test_what_is_asked_is_the_address_that_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as site:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", site.port))]
        monkeypatch.setattr(vetting.socket, "getaddrinfo", lambda *_, **__: found)
        ours = Vetting(private=True)
        path = fetch(f"http://films.example:{site.port}/a", tmp_path, 100, vetting=ours)
        assert path.read_text() == "secret"
        # The name was not looked up a second time: nobody could have led it elsewhere in between.
        assert site.asked == [(f"films.example:{site.port}", "/a")]


@promise("P37")
@pytest.mark.anyio
async def test_the_command_that_annotates_reads_no_urls(connect: Connect, tmp_path: Path) -> None:
    rt = Runtime()
    rt.streaming_command("annotate")(annotate_command(Runtime(), root=tmp_path, out=tmp_path / "logs"))
    with serving() as site:
        async with connect(rt) as way:
            for url in (f"http://localhost:{site.port}/a", f"//localhost:{site.port}/a", "tcp://localhost:1"):
                call = await way.open("annotate", {"source": url, "command": "detect"})
                assert (await call.last())["code"] == "not_found"
        assert site.asked == []
