"""The page where a key is wanted, and at a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from behaviour.keyring import ANNA, METRICS, write_keys
from pages.chromium import Page
from playground.served import PROJECT, running, serving
from playground.tab import CONTROL, Tab

STATIC = ("/", "/playground/")


@pytest.fixture(scope="module")
def guarded(browser: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the project is served to those with a key."""
    keys = write_keys(tmp_path_factory.mktemp("keys") / "keys.txt", ANNA, METRICS)
    with serving("run", str(PROJECT), "--auth-keys", str(keys)) as url:
        yield url


def test_it_asks_for_a_key_and_never_puts_one_in_a_url(browser: Page, guarded: str) -> None:
    tab = Tab(browser, guarded)
    tab.go("#/command/shout")
    tab.until("document.activeElement.id === 'key'")
    assert tab.see("document.querySelector('dialog[open]').ariaModal ?? 'modal'")
    assert tab.see("document.querySelector('#key').type") == "password"
    tab.type("two words")
    tab.press("Enter")
    assert "no spaces" in tab.text("dialog [role=alert]")
    tab.see("document.querySelector('#key').select()")
    tab.type("penstock_wrong")
    tab.press("Enter")
    tab.until_text("dialog [role=alert]", "does not know this key")
    tab.until("document.activeElement.id === 'key'")
    tab.type(ANNA.token)
    tab.press("Enter")
    tab.until_text("h1", "shout")
    assert tab.text("#name") == "tried"  # which only those are told who have a key
    tab.put("text", "quiet")
    tab.press("Enter", CONTROL)
    tab.until_text(".results .pane", "QUIET")
    told = tab.requests()
    for request in told:
        with_key = request["headers"].get("authorization") == f"Bearer {ANNA.token}"
        path = urlsplit(request["url"]).path
        static = path == STATIC[0] or path.startswith(STATIC[1])
        assert ANNA.token not in request["url"]
        assert not (with_key and static)
    assert tab.see("JSON.stringify(localStorage)").find(ANNA.token) == -1
    assert ANNA.token not in tab.see("document.cookie + location.href + document.documentElement.outerHTML")
    tab.open("")  # the tab has it still
    assert tab.text("#key-button") == "Forget the key"
    tab.click("#key-button")
    tab.until("document.activeElement.id === 'key'")
    assert tab.see("sessionStorage.length") == 0
    tab.press("Escape")
    tab.until_text("#explain", "a key is needed")
    asked = (
        "performance.getEntriesByType('resource').filter((each) => each.name.endsWith('/v2/commands')).length"
    )
    times = tab.see(asked)
    tab.see("document.dispatchEvent(new Event('visibilitychange'))")
    tab.until(f"{asked} > {times}")  # it has looked again, and asks for no key again
    assert tab.see("document.querySelector('dialog[open]')") is None
    tab.click("#key-button")
    tab.until("document.activeElement.id === 'key'")
    assert tab.faults() == []


def test_a_key_that_may_not_call_is_told_so(browser: Page, guarded: str) -> None:
    tab = Tab(browser, guarded)
    tab.go()
    tab.until("document.activeElement.id === 'key'")
    tab.type(METRICS.token)
    tab.press("Enter")
    tab.until_text("#explain", "not of the scope")
    tab.see("sessionStorage.clear()")


def test_a_gateway_shows_what_its_runners_offer(browser: Page, tmp_path: Path) -> None:
    with serving("gateway") as url:
        tab = Tab(browser, url)
        tab.go("#/command/shout")
        tab.until_text("#explain", "nothing to call here yet")
        with running("runner", str(PROJECT), "--gateway", url.replace("http", "ws")):
            tab.until_text("h1", "shout")
            tab.put("text", "quiet")
            tab.press("Enter", CONTROL)
            tab.until_text(".results .pane", "QUIET")
        assert tab.faults() == []
