"""The papers become a site, and that needs nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from docs.pages import DOCS, ROOT
from pages.chromium import CHROMIUM, open_page

pytestmark = pytest.mark.skipif(
    find_spec("mkdocs") is None or not (ROOT / "mkdocs.yml").exists(), reason="there is no mkdocs here"
)
ELSEWHERE = re.compile(r"^(https?:)?//", re.IGNORECASE)
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; mkdocs has seen that links and anchors lead somewhere, and that no page is left out."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


class _Loads(HTMLParser):
    """What a page has a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name == LOADING.get(tag) and value]


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in DOCS.glob("*.md")}
    for page in pages:
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        assert [url for url in loads.found if ELSEWHERE.match(url)] == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*", style.read_text(encoding="utf-8")) == []


def test_a_snippet_is_shown_as_code_of_its_language(site: Path) -> None:
    text = (site / "authoring.html").read_text(encoding="utf-8")
    assert '<span class="kn">from</span>' in text
    assert "```" not in re.sub(r"<[^>]+>", "", text)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_asks_nobody_for_anything(site: Path, tmp_path: Path) -> None:
    with open_page(tmp_path / "profile", "about:blank") as page:
        page.command("Network.enable")
        for name in ("index.html", "protocol.html"):
            url = (site / name).as_uri()
            page.command("Page.navigate", url=url)
            page.await_loaded(url)
        assert page.evaluate("document.querySelectorAll('table tr').length") > 10
    asked = [
        event["params"]["request"]["url"]
        for event in page.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert len(asked) > 4
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
