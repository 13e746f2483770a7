"""Writes the client for threads from the one for event loops; with --check only says whether that is due.

What they do is the same word for word: `await` is left out, and names change as told below.  What has to wait
is done by `penstock.client.blocking.transport`, on an event loop of its own, so that there is one
implementation of each transport.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[1] / "src" / "penstock" / "client"
FILES = ("client.py", "stream.py")
HEAD = "# Written by scripts/blocking_client.py from penstock/client/{}: change that, and run it.\n"

CHANGES = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"(?<!httpx\.)\bAsync(Client|Stream|Source|Iterator)\b", r"\1"),
    (r"\bAwaitable\[([\w.]+)\]", r"\1"),
    (r"Awaitable, ", ""),
    (r"__a(enter|exit|next|iter)__", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"StopAsyncIteration", "StopIteration"),
    (r"penstock\.client\.(pacing|stream)\b", r"penstock.client.blocking.\1"),
    (
        r"penstock\.client\.reaching import reach\b",
        "penstock.client.blocking.transport import BlockingTransport, reach_blocking",
    ),
    (r"\breach\(", "reach_blocking("),
    (
        r"penstock\.client\.transport import Reply, Transport",
        "penstock.client.blocking.transport import BlockingReply, BlockingTransport",
    ),
    (r", Transport$", ""),
    (r"(?<![.`\w])(Reply|Transport)\b(?!`)", r"Blocking\1"),
    (
        r"(dispatcher such as an ``App``)\.",
        r"\1, which the client\n            runs until it is closed.",
    ),
)


def written(name: str) -> str:
    """Return the text of a file for threads."""
    text = (HOME / name).read_text(encoding="utf-8")
    for pattern, replacement in CHANGES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    text = HEAD.format(name) + text
    for command in (("check", "--select", "I", "--fix", "--quiet"), ("format",)):
        ruff = [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--stdin-filename",
            str(HOME / "blocking" / name),
            "-",
        ]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> int:
    """Write what is due; return 1 if it was only to be checked, and something is."""
    due = {name: text for name in FILES if (text := written(name)) != _there(name)}
    if "--check" in sys.argv[1:]:
        print(*(f"{name}: `python scripts/blocking_client.py` writes it anew" for name in due), sep="\n")
        return 1 if due else 0
    for name, text in due.items():
        (HOME / "blocking" / name).write_text(text, encoding="utf-8")
    return 0


def _there(name: str) -> str:
    path = HOME / "blocking" / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
