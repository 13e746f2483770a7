"""Makes docs/stream.svg, the picture in README.md, from a real run: ``python scripts/picture.py``.

Needs the model of `examples/storyteller` (``make model``).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "stream.svg"
PROMPT = "Tell me of a fox who crosses a river."
CALL = ("call", "predict", f"prompt={PROMPT}", "max_tokens:=40", "--stream")
FRAMES = 5
WIDTH = 104


def penstock(*arguments: str) -> list[str]:
    """Return the command line of a penstock command."""
    return [sys.executable, "-m", "penstock.cli", *arguments]


@contextmanager
def storyteller() -> Iterator[str]:
    """Serve the storyteller; gives its URL."""
    command = penstock("run", str(ROOT / "examples" / "storyteller"), "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield re.findall(r"http://\S+", server.stdout.readline())[0]
        finally:
            server.terminate()


def ask(url: str, *more: str) -> str:
    """Return what a call prints."""
    return subprocess.run(
        penstock(*CALL, *more, "--url", url), capture_output=True, text=True, check=True
    ).stdout


def draw(console: Console, story: str, frames: str) -> None:
    """Print the two calls as a terminal shows them."""
    shown = f'penstock call predict prompt="{PROMPT}" max_tokens:=40 --stream'
    show_command(console, shown)
    console.print(Text(story.strip()), "\n")
    show_command(console, f"!! --json | head -n {FRAMES} | cut -c -{WIDTH}")
    for line in islice(frames.splitlines(), FRAMES):
        console.print(Text(line[:WIDTH]))


def show_command(console: Console, text: str) -> None:
    """Print a command with its prompt."""
    console.print(Text.assemble(("$ ", "bold green"), (text, "bold")))


def picture(console: Console) -> str:
    """Return what was printed as SVG that loads nothing from elsewhere."""
    svg = console.export_svg(title="penstock", unique_id="penstock")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    """Make the picture."""
    with storyteller() as url:
        story, frames = ask(url), ask(url, "--json")
    with Path("/dev/null").open("w") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        draw(console, story, frames)
        PICTURE.write_text(picture(console), encoding="utf-8")


if __name__ == "__main__":
    main()
