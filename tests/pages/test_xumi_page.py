"""Every snippet of the streaming guide runs here unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pages.chromium import CHROMIUM, open_page
from pages.served import Served, fixture

STORY = "Once upon a time."


def test_curl_initialises_and_streams(claude: Served) -> None:
    script = claude.here(fixture("xumi_curl.sh.txt"))
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=30, check=True)
    initialised, rest = done.stdout.split("}{", 1) if "}{" in done.stdout else done.stdout.split("\n", 1)
    assert '"status":"completed"' in initialised
    assert '"data":{"state":["model"]}' in initialised
    frames = [json.loads("{" + line if line[0] != "{" else line) for line in rest.strip().splitlines()]
    assert [frame["status"] for frame in frames] == ["accepted", *["streaming"] * 4, "completed"]
    assert frames[-2]["data"] == {"text": STORY, "chunk": "", "finished": True}
    assert all(frame["version"] == "v2" and frame["command"] == "predict" for frame in frames)


def test_python_client(claude: Served, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the page's client needs aiohttp, a development dependency")
    program = tmp_path / "client.py"
    program.write_text(claude.here(fixture("xumi_client.py.txt")))
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"{STORY}\n--- Generation Complete ---\n"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_javascript_client_in_a_browser(claude: Served, tmp_path: Path) -> None:
    script = claude.here(fixture("xumi_client.js.txt"))
    with open_page(tmp_path / "profile", f"http://{claude.http}/livez") as page:
        text = page.evaluate(
            f"""new Promise((resolve) => {{
                document.body.innerHTML = '<div id="output"></div>';
                let completed = 0;
                const say = console.log;
                console.log = (line) => {{
                    say(line);
                    // Once for `initialize`, once for the story.
                    if (line === 'Generation completed' && ++completed === 2)
                        resolve(document.getElementById('output').textContent);
                }};
                {script}
            }})"""
        )
    assert text == STORY
