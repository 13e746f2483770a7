"""The papers, taken apart: fenced samples and tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")


class Fence(NamedTuple):
    """A fenced block: its page, the words behind the fence, what stands in it, and on which line."""

    page: str
    info: str
    body: str
    line: int

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.page}:{self.line}"


def fences(path: Path) -> list[Fence]:
    """Return the fenced blocks of a page."""
    text = path.read_text(encoding="utf-8")
    return [
        Fence(path.name, found["info"].strip(), found["body"], text.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(text)
    ]


def table(path: Path, *head: str) -> list[dict[str, str]]:
    """Return the rows of the one table of a page whose columns begin so, by column."""
    found = [rows for columns, rows in _tables(path) if columns[: len(head)] == head]
    assert len(found) == 1, f"{path.name} has {len(found)} tables with the columns {head}"
    return found[0]


def codes(cell: str) -> list[str]:
    """Return what a cell shows as code."""
    return _CODE.findall(cell)


def _tables(path: Path) -> list[tuple[tuple[str, ...], list[dict[str, str]]]]:
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    return [_read(block) for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)]


def _read(block: str) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    head, _, *rows = (_cells(line) for line in block.splitlines())
    assert all(len(row) == len(head) for row in rows), f"a row of the table {head} has other columns"
    return head, [dict(zip(head, row, strict=True)) for row in rows]


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1])
