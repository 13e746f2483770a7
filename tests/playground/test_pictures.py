"""The pictures of the playground in docs/: taken anew into the folder that PENSTOCK_PICTURES names."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docs.pages import DOCS
from pages.chromium import Page
from playground.served import serving
from playground.tab import CONTROL, Tab

SHOWN = Path(__file__).parent / "shown"
FOLDER = os.environ.get("PENSTOCK_PICTURES")
LARGEST = 200_000
NAMES = ("playground-light.png", "playground-phone.png")

wanted = pytest.mark.skipif(
    FOLDER is None, reason="no pictures are asked for: PENSTOCK_PICTURES=docs takes them"
)


@contextmanager
def seen(page: Page, url: str, scheme: str, width: int, height: int, mobile: bool) -> Iterator[Tab]:
    """Give a tab of this size, light or dark."""
    tab = Tab(page, url)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    page.command("Emulation.setDeviceMetricsOverride", **size)
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        yield tab
    finally:
        page.command("Emulation.clearDeviceMetricsOverride")
        page.command("Emulation.setEmulatedMedia", features=[])


def take(tab: Tab, name: str) -> None:
    """Write what is seen."""
    tab.see("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    picture = base64.b64decode(tab.page.command("Page.captureScreenshot", format="png")["data"])
    Path(str(FOLDER), name).write_bytes(picture)


@wanted
def test_the_pictures_are_taken(browser: Page) -> None:
    with serving("run", str(SHOWN)) as url:
        with seen(browser, url, "light", 1120, 900, mobile=False) as tab:
            tab.open("#/command/predict")
            for _ in range(5):
                tab.put("prompt", "Tell me of a fox at a river.")
                tab.press("Enter", CONTROL)
                tab.until_text(".state", "Running")
                tab.until_text(".state", "Completed")
            take(tab, NAMES[0])
        with seen(browser, url, "dark", 390, 844, mobile=True) as tab:
            tab.open("#/chat/chat")
            for question, words in (("What is a penstock?", "no more"), ("And it can be shut?", "keep")):
                tab.type(question)
                tab.press("Enter")
                tab.until_text(".turn:last-child .text", words)
                tab.until_text(".state", "Completed")
            tab.see("scrollTo(0, 0)")
            take(tab, NAMES[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_pictures_are_small(name: str) -> None:
    picture = (DOCS / name).read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    assert len(picture) <= LARGEST
