"""What a page of another site can do to a server that the browser's user can reach: nothing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from behaviour.keyring import ANNA, write_keys
from behaviour.promises import promise
from cli.conftest import serve  # noqa: F401 - a fixture
from cli.processes import Serve
from pages.chromium import CHROMIUM, Page, open_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: apt-get install chromium)")

ENGINE = ("--engine", "scripted:text=one", "--ws-port", 0)
BODY = json.dumps({"command": "predict", "input": {"prompt": "x"}})
REBOUND = "rebound.test"


class Blank(http.server.BaseHTTPRequestHandler):
    """Answers everything with an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<body></body>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Another site."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def fetch(page: Page, url: str, **options: Any) -> Any:
    """Return what a page gets: status and text, or the name of the error."""
    return page.evaluate(
        f"fetch({json.dumps(url)}, {json.dumps(options)})"
        ".then(async (reply) => [reply.status, await reply.text()], (error) => error.name)"
    )


def post(page: Page, url: str, **headers: str) -> Any:
    return fetch(
        page,
        f"{url}/v2/execute",
        method="POST",
        body=BODY,
        headers={"content-type": "application/json", **headers},
    )


def dial(page: Page, url: str, *protocols: str) -> Any:
    """Return the first answer over a WebSocket, or 'refused'."""
    where = json.dumps([f"{url.replace('http', 'ws')}/v2/ws", protocols])
    return page.evaluate(
        f"""new Promise((resolve) => {{
            const socket = new WebSocket(...{where});
            socket.onopen = () => socket.send('{{"type": "ping"}}');
            socket.onmessage = (message) => {{ resolve(JSON.parse(message.data).type); socket.close(); }};
            socket.onerror = () => resolve('refused');
        }})"""
    )


def embed(page: Page, url: str) -> Any:
    """Have a page load something as an image, which needs no leave; return how that went."""
    return page.evaluate(
        f"""new Promise((resolve) => {{
            const image = new Image();
            image.onload = () => resolve('loaded');
            image.onerror = () => resolve('failed');
            image.src = {json.dumps(url)};
        }})"""
    )


def ran(url: str, **headers: str) -> int:
    """Return how many calls the server has seen."""
    return len(httpx.get(f"{url}/tasks", headers=headers).json()["tasks"])


@promise("P33")
def test_a_foreign_page_gets_nothing_over_http_or_websocket(
    serve: Serve,  # noqa: F811
    elsewhere: str,
    tmp_path: Path,
) -> None:
    server = serve(*ENGINE)
    assert len(server.urls) == 2
    with open_page(tmp_path / "profile", f"{elsewhere}/") as page:
        for url in server.urls:
            assert fetch(page, f"{url}/livez") == "TypeError"
            assert post(page, url) == "TypeError"
            # Sent without asking, and answered with nothing the page can read; nothing may come of it.
            plain = {
                "method": "POST",
                "body": BODY,
                "mode": "no-cors",
                "headers": {"content-type": "text/plain"},
            }
            assert fetch(page, f"{url}/v2/execute", **plain) == [0, ""]
            assert embed(page, f"{url}/tasks") == "failed"
            assert dial(page, url) == "refused"
        assert ran(server.url) == 0


@promise("P33")
def test_a_name_that_was_made_to_point_here_gets_nothing(
    serve: Serve,  # noqa: F811
    tmp_path: Path,
) -> None:
    server = serve(*ENGINE)
    rebound = server.url.replace("127.0.0.1", REBOUND)
    flag = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"
    with open_page(tmp_path / "profile", f"{rebound}/livez", flag) as page:
        # To the browser this is the page's own site.
        status, text = fetch(page, f"{rebound}/livez")
        assert (status, json.loads(text)["code"]) == (403, "permission_denied")
        assert post(page, rebound)[0] == 403
        assert dial(page, rebound) == "refused"
        assert ran(server.url) == 0


@promise("P33")
def test_the_server_s_own_pages_may_use_it_on_both_ports(
    serve: Serve,  # noqa: F811
    tmp_path: Path,
) -> None:
    server = serve(*ENGINE)
    with open_page(tmp_path / "profile", f"{server.url}/livez") as page:
        for url in server.urls:
            assert post(page, url)[0] == 200
            assert dial(page, url) == "pong"
            by_name = url.replace("127.0.0.1", "localhost")
            assert post(page, by_name)[0] == 200
        assert ran(server.url) == 4


@promise("P33", "P31")
@pytest.mark.parametrize("with_keys", [False, True])
def test_a_page_that_was_let_in_may_use_it(
    serve: Serve,  # noqa: F811
    elsewhere: str,
    tmp_path: Path,
    with_keys: bool,
) -> None:
    keys = write_keys(tmp_path / "keys.txt", ANNA)
    more = ("--auth-keys", keys) if with_keys else ()
    server = serve(*ENGINE, "--allow-origin", "https://other.example", "--allow-origin", elsewhere, *more)
    sent = {"X-API-Key": ANNA.token} if with_keys else {}
    with open_page(tmp_path / "profile", f"{elsewhere}/") as page:
        for url in server.urls:
            status, text = post(page, url, **sent, **{"X-Request-Id": "page-7"})
            assert (status, json.loads(text)["status"]) == (200, "completed")
            assert fetch(page, f"{url}/tasks/none", method="DELETE", headers=sent)[0] == 404
            streamed = post(page, url, **sent, Accept="text/event-stream")
            assert streamed[1].count("data: ") > 2
            protocols = ("penstock", f"bearer.{ANNA.token}") if with_keys else ()
            assert dial(page, url, *protocols) == "pong"
            if with_keys:
                refused = post(page, url)
                assert (refused[0], json.loads(refused[1])["code"]) == (401, "unauthenticated")
                assert dial(page, url) == "refused"
                assert dial(page, url, "penstock", "bearer.none") == "refused"
    assert ran(server.url, **sent) == 4
