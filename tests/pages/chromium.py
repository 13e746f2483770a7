"""Just enough of the DevTools protocol to run a script in a real headless Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# No sandbox: tests run as root in containers.  The rest keeps the browser from calling its makers.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]


class Page:
    """One page of the browser.

    Attributes:
        events: What the browser has told of itself, where it was asked to (``Network.enable`` and its likes).
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.events: list[dict[str, Any]] = []

    def command(self, method: str, timeout_s: float = 20.0, **params: Any) -> dict[str, Any]:
        """Return the browser's answer to a command of the DevTools protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=timeout_s))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found
            self.events.append(answer)

    def evaluate(self, expression: str, timeout_s: float = 20.0) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        answer = self.command(
            "Runtime.evaluate", timeout_s, expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def await_loaded(self, url: str) -> None:
        """Wait until the page is there; until then a script runs in the empty page before it."""
        deadline = time.monotonic() + 20
        while self.evaluate("[location.href, document.readyState].join()") != f"{url},complete":
            assert time.monotonic() < deadline, f"{url} does not load"
            time.sleep(0.02)


@contextmanager
def open_page(profile: Path, url: str, *flags: str) -> Iterator[Page]:
    """Open a page in a browser with a new profile, and end that browser afterwards."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _devtools_port(profile, process)
        request = Request(f"http://127.0.0.1:{port}/json/new?{quote(url)}", method="PUT")
        with urlopen(request, timeout=10) as response:
            address = json.load(response)["webSocketDebuggerUrl"]
        with connect(address, max_size=None) as socket:
            page = Page(socket)
            page.await_loaded(url)
            yield page
    finally:
        process.terminate()
        process.wait(timeout=15)


def _devtools_port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until the browser has written down where it listens; it has no other way to tell."""
    written = profile / "DevToolsActivePort"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "the browser ended"
        if written.exists() and (lines := written.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.02)
    raise AssertionError("the browser did not start")
