"""A browser, and what it looks at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pages.chromium import CHROMIUM, Page, open_page
from playground.served import PROJECT, serving
from playground.tab import Tab


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a browser that finds no host by its name."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with open_page(tmp_path_factory.mktemp("browser") / "profile", "about:blank", nowhere) as page:
        yield page


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Where the project is served."""
    with serving("run", str(PROJECT)) as url:
        yield url


@pytest.fixture
def tab(browser: Page, server: str) -> Iterator[Tab]:
    """A tab that has to do with nobody but its server, and has no error on its console."""
    tab = Tab(browser, server)
    yield tab
    assert tab.faults() == []
    asked = [each["url"] for each in tab.requests() if each["url"] != "about:blank"]
    assert [url for url in asked if not url.startswith(f"{server}/")] == []
    tab.see("(sessionStorage.clear(), localStorage.clear())")
