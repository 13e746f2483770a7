"""`/docs` in a real browser: it shows the commands, runs one, asks for a key, and asks others for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from behaviour.keyring import ANNA, STRANGER, write_keys
from pages.chromium import CHROMIUM, Page, open_page
from penstock.errors import CallError
from penstock.server.reference import files
from penstock.server.reference.files import Reference
from playground.served import serving
from playground.tab import Tab

PROJECT = '''
from penstock import Runtime

rt = Runtime()


@rt.streaming_command("count")
def count(to: int = 3):
    """Count to a number."""
    yield from range(to)


@rt.command("greet")
async def greet(name: str) -> str:
    """Say hello."""
    return f"Hello {name}"
'''
GREET = ".opblock:has([data-path='/v2/commands/greet'])"
NOBODY: Any = None
SHOWN = f'document.querySelector("{GREET}") !== null'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("project") / "run.py"
    path.write_text(PROJECT)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a browser that finds no host by its name."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with open_page(tmp_path_factory.mktemp("browser") / "profile", "about:blank", nowhere) as page:
        yield page


def check_asked(tab: Tab, url: str) -> set[str]:
    """Return the paths that were asked for; nothing was asked of others, and nothing went wrong."""
    assert tab.faults() == []
    asked = [each["url"] for each in tab.requests()]
    elsewhere = [each for each in asked if not each.startswith((f"{url}/", "data:", "about:blank"))]
    assert elsewhere == []
    return {urlsplit(each).path for each in asked if each.startswith(url)}


def test_a_command_is_shown_and_run(browser: Page, project: Path) -> None:
    with serving("run", str(project)) as url:
        tab = Tab(browser, url)
        tab.go("docs")
        tab.until(SHOWN)
        assert "Say hello." in tab.text(GREET)
        assert tab.see("document.title") == "run 0.0.0"
        tab.click(f"{GREET} .opblock-summary-control")
        tab.until(f'document.querySelector("{GREET} textarea") !== null')
        tab.see(f'document.querySelector("{GREET} textarea").select()')
        tab.type('{"input": {"name": "fox"}}')
        tab.click(f"{GREET} .execute")
        tab.until_text(f"{GREET} .live-responses-table", "Hello fox")
        paths = check_asked(tab, url)
    due = {"/docs", "/openapi.json", "/v2/commands/greet"}
    assert paths == due | {f"/docs/{name}" for name in files.read_files() if name != files.PAGE}


def test_where_keys_are_needed_it_asks_for_one(browser: Page, project: Path, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.txt", ANNA)
    with serving("run", str(project), "--auth-keys", str(keys)) as url:
        tab = Tab(browser, url)
        tab.go("docs")
        tab.until("!document.querySelector('#key').hidden")
        tab.until("document.activeElement.id === 'token'")
        tab.type(STRANGER.token)
        tab.press("Enter")
        tab.until_text("#trouble", "no such key")
        tab.see("document.querySelector('#token').select()")
        tab.type(ANNA.token)
        tab.press("Enter")
        tab.until(SHOWN)
        assert tab.see("document.querySelector('#key').hidden && document.querySelector('#trouble').hidden")
        tab.click(f"{GREET} .opblock-summary-control")
        tab.until(f'document.querySelector("{GREET} .execute") !== null')
        tab.until(f'document.querySelector("{GREET} textarea") !== null')
        tab.see(f'document.querySelector("{GREET} textarea").select()')
        tab.type('{"input": {"name": "owl"}}')
        tab.click(f"{GREET} .execute")
        tab.until_text(f"{GREET} .live-responses-table", "Hello owl")
        check_asked(tab, url)
        assert not tab.see("location.href + document.cookie + sessionStorage.length").count(ANNA.token)


def test_its_files_say_no_more_than_they_must(project: Path) -> None:
    with serving("run", str(project)) as url, httpx.Client(base_url=url) as http:
        page = http.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "http" not in policy
        again = http.get("/docs", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for name in ("nothing", "../files.py", "%2e%2e/files.py", "files.py", "index.html/"):
            assert http.get(f"/docs/{name}").status_code == 404
        assert http.post("/docs").status_code == 405


def test_a_server_may_have_no_pages(project: Path) -> None:
    with serving("run", str(project), "--no-playground") as url:
        assert httpx.get(f"{url}/docs").status_code == 404


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    files.read_files.cache_clear()
    monkeypatch.setattr(files, "PACKAGE", "a_package_that_is_not_there")
    yield
    files.read_files.cache_clear()


@pytest.mark.usefixtures("without_package")
def test_without_the_package_it_says_what_to_do() -> None:
    assert files.read_files() == {}
    assert Reference().opens("/docs")
    assert not Reference().opens("/docs/reference.js")
    with pytest.raises(CallError, match=r"penstock\[docs\]"):
        asyncio.run(Reference().page(NOBODY))
