"""A tab of a real browser, used as its user would: by keys, and by what is to be seen."""

from __future__ import annotations

import json
from typing import Any

from pages.chromium import Page

CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "k": 75}
CONTROL = 2
SHIFT = 8
WAIT_MS = 15_000
DOMAINS = ("Page", "Network", "Log", "Runtime")


class Tab:
    """The page at `/` of a server.

    Args:
        page: The browser's page, wherever it is now.
        url: Where the server is.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        for domain in DOMAINS:
            page.command(f"{domain}.enable")
        page.command("Emulation.setFocusEmulationEnabled", enabled=True)

    def go(self, place: str = "") -> None:
        """Load the page anew, at a place in it, and wait until it is there."""
        self.page.command("Page.navigate", url="about:blank")
        self.page.events.clear()
        self.page.command("Page.navigate", url=f"{self.url}/{place}")
        self.until("document.readyState === 'complete'")

    def open(self, place: str) -> None:
        """Load the page, and wait for a view of it."""
        self.go(place)
        self.until("performance.getEntriesByName('usable').length > 0")

    def see(self, expression: str) -> Any:
        """Return the value of an expression."""
        return self.page.evaluate(expression)

    def until(self, expression: str) -> Any:
        """Wait for an expression to be true; return it."""
        return self.page.evaluate(
            f"""new Promise((resolve, reject) => {{
                const began = performance.now();
                const look = () => {{
                    const found = {expression};
                    const late = performance.now() - began > {WAIT_MS};
                    if (found) resolve(found);
                    else if (late) reject(new Error('it does not come: ' + document.body.innerText));
                    else setTimeout(look, 5);
                }};
                look();
            }})"""
        )

    def text(self, selector: str) -> str:
        """Return what an element says."""
        found: str = self.see(f"document.querySelector({json.dumps(selector)}).textContent")
        return found

    def until_text(self, selector: str, text: str) -> None:
        """Wait for an element that says something."""
        says = f"document.querySelector({json.dumps(selector)})?.textContent"
        self.until(f"({says} ?? '').includes({json.dumps(text)})")

    def put(self, name: str, value: str) -> None:
        """Put a value into a field, in the place of what is there."""
        self.see(f"document.querySelector({json.dumps(f'[name={name}]')}).select()")
        self.page.command("Input.insertText", text=value)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key."""
        text = "" if modifiers & CONTROL else {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        about = {"key": key, "code": key, "windowsVirtualKeyCode": CODES[key], "modifiers": modifiers}
        down = "keyDown" if text else "rawKeyDown"
        self.page.command("Input.dispatchKeyEvent", type=down, text=text, **about)
        self.page.command("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Put text in where the focus is."""
        self.page.command("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click an element in its middle, as a mouse does."""
        spot = self.see(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                element.scrollIntoView({{block: 'center'}});
                const box = element.getBoundingClientRect();
                return {{x: box.x + box.width / 2, y: box.y + box.height / 2}};
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.page.command("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **spot)

    def requests(self) -> list[dict[str, Any]]:
        """Return every request since the page was loaded."""
        self.see("1")  # what was told before is read now
        return [told["params"]["request"] for told in self._told("Network.requestWillBeSent")]

    def faults(self) -> list[str]:
        """Return what the page's console has of errors, but for statuses of the server."""
        self.see("1")
        thrown = [json.dumps(told["params"]) for told in self._told("Runtime.exceptionThrown")]
        entries = [told["params"]["entry"] for told in self._told("Log.entryAdded")]
        logged = [each["text"] for each in entries if each["source"] != "network"]
        return thrown + logged

    def _told(self, method: str) -> list[dict[str, Any]]:
        return [told for told in self.page.events if told.get("method") == method]
