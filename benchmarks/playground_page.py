"""What the page at `/` takes in a real Chromium: until it can be used, and while tokens come.

python benchmarks/playground_page.py [--loads 10] [--tokens 10000]

`usable_ms` is from the beginning of the navigation until the form of a command can be filled in.
`longest_block_ms` is the longest time in a row in which the page does nothing for its user, while all tokens
of a call come as fast as they are taken, and `late_frame_ms` the longest between two paintings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # has the browser, and a project to try

from pages.chromium import Page, open_page
from playground.served import PROJECT, serving
from playground.tab import CONTROL, Tab

AIMS = {"usable_ms": 1000, "longest_block_ms": 100}
WATCH = """(() => {
    window.seen = {block: 0, frame: 0, began: 0, took: 0};
    const state = document.querySelector('.state');
    const running = () => state.textContent.startsWith('Running');
    new PerformanceObserver((list) => {
        for (const {duration} of list.getEntries()) seen.block = Math.max(seen.block, duration);
    }).observe({type: 'longtask'});
    new MutationObserver(() => {
        if (running() && !seen.began) seen.began = performance.now();
        if (!running()) seen.took = performance.now() - seen.began;
    }).observe(state, {childList: true, characterData: true, subtree: true});
    let last = 0;
    const frame = (now) => {
        if (last && running()) seen.frame = Math.max(seen.frame, now - last);
        last = now;
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})()"""


def load(page: Page, url: str, times: int) -> list[float]:
    """Return the milliseconds until the page can be used, the first time with nothing kept by the browser."""
    found = []
    for number in range(times):
        tab = Tab(page, url)
        if number == 0:
            page.command("Network.clearBrowserCache")
        tab.open("#/command/tokens")
        found.append(float(tab.see("performance.getEntriesByName('usable')[0].startTime")))
    return found


def stream(page: Page, url: str, tokens: int, line: int) -> dict[str, float]:
    """Return what one call does to the page, with so many tokens, of which so many are a line."""
    tab = Tab(page, url)
    tab.open("#/command/tokens")
    tab.see(WATCH)
    tab.put("n", str(tokens))
    tab.put("line", str(line))
    tab.press("Enter", CONTROL)
    tab.until_text(".state", f"Completed, {tokens} items")
    tab.until("document.querySelector('.results .pane').textContent.length > 10")
    seen = tab.see("new Promise((done) => setTimeout(() => done(seen), 200))")
    return {
        "tokens_in_a_line": line,
        "longest_block_ms": round(seen["block"], 1),  # the browser tells of those past 50 ms only
        "late_frame_ms": round(seen["frame"], 1),
        "tokens_per_s": round(1000 * tokens / seen["took"]),
    }


def main() -> None:
    """Print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=10_000)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving("run", str(PROJECT)) as url,
        open_page(Path(folder) / "profile", "about:blank") as page,
    ):
        first, *again = load(page, url, args.loads)
        runs = [stream(page, url, args.tokens, line) for line in (40, 40, 40, args.tokens)]
    found: dict[str, Any] = {
        "usable_ms": {
            "first": round(first),
            "again": round(statistics.median(again)),
            "worst": round(max(first, *again)),
        },
        "tokens": args.tokens,
        "streams": runs,
        "aims": AIMS,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
