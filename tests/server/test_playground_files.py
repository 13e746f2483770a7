"""`/` and what is below `/playground/`."""

from __future__ import annotations

import httpx
import pytest

from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.server.asgi import Application
from penstock.server.playground.files import read_files
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def ask(
    method: str, path: str, headers: dict[str, str] | None = None, *, playground: bool = True
) -> httpx.Response:
    async with App(Runtime()) as app:
        application = Application(app, ServerSettings(playground=playground))
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            reply = await http.request(method, path, headers=headers or {"accept": "*/*"})
        await application.aclose()
    return reply


async def test_a_browser_is_shown_the_page() -> None:
    reply = await ask("GET", "/", BROWSER)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.content == read_files()["index.html"].body
    assert reply.headers["vary"] == "accept"
    policy = dict(part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {value for name, value in policy.items() if name.endswith("-src")} == {"'none'", "'self'"}
    assert policy["frame-ancestors"] == "'none'"
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
async def test_to_others_there_is_nothing_at_the_root(accept: str) -> None:
    with_page = await ask("GET", "/", {"accept": accept})
    without = await ask("GET", "/", {"accept": accept}, playground=False)
    for reply in (with_page, without):
        told = reply.json()
        assert (reply.status_code, told["code"]) == (404, "not_found")
        assert told["error"] == "there is nothing at '/'"


async def test_every_file_is_there_and_asked_for_again_by_its_mark() -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "html": "text/html"}
    for name, file in read_files().items():
        reply = await ask("GET", f"/playground/{name}")
        assert (reply.status_code, reply.content) == (200, file.body)
        assert reply.headers["content-type"].partition(";")[0] == kinds[name.rpartition(".")[2]]
        assert reply.headers["cache-control"] == "no-cache"
    etag = reply.headers["etag"]
    again = await ask("GET", f"/playground/{name}", {"if-none-match": f'"other", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    changed = await ask("GET", f"/playground/{name}", {"if-none-match": '"other"'})
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/playground/",
        "/playground/nothing.js",
        "/playground/../files.py",
        "/playground/..%2ffiles.py",
        "/playground//index.html",
        "/playground/page",
        "/playground/page/main.js/",
    ],
)
async def test_what_is_no_file_of_it_is_not_found(path: str) -> None:
    reply = await ask("GET", path, BROWSER)
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


async def test_it_can_be_left_out() -> None:
    for path in ("/", "/playground/index.html", "/playground/page/main.js"):
        reply = await ask("GET", path, BROWSER, playground=False)
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


async def test_nothing_is_sent_to_it() -> None:
    reply = await ask("POST", "/playground/index.html")
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET")
