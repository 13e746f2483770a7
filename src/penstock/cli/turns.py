"""What is typed in a conversation, turn by turn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

FENCE = '"""'


class Turn(NamedTuple):
    """What one turn says; several lines are never an order such as ``/reset``."""

    text: str
    is_line: bool

    @property
    def order(self) -> tuple[str, str] | None:
        """The order it is, and what stands behind that."""
        if not self.is_line or not self.text.startswith("/"):
            return None
        name, _, rest = self.text.partition(" ")
        return name, rest.strip()


def read_turn(read_line: Callable[[bool], str]) -> Turn:
    r"""Read a turn: a line, lines of which all but the last end in ``\``, or what stands between ``\"""``.

    Args:
        read_line: Reads a line, without its end; it is told whether that belongs to a turn that has begun.

    Raises:
        EOFError: Nothing more comes.
    """
    line = read_line(False)
    if line.lstrip().startswith(FENCE):
        return Turn(_read_block(line.lstrip()[len(FENCE) :], read_line).strip("\n"), is_line=False)
    if not line.endswith("\\"):
        return Turn(line.strip(), is_line=True)
    lines = [line[:-1]]
    while line.endswith("\\"):
        line = _read_more(read_line)
        lines.append(line.removesuffix("\\"))
    return Turn("\n".join(lines).strip(), is_line=False)


def _read_block(first: str, read_line: Callable[[bool], str]) -> str:
    lines = [first]
    while not lines[-1].rstrip().endswith(FENCE):
        try:
            lines.append(read_line(True))
        except EOFError:
            return "\n".join(lines)
    lines[-1] = lines[-1].rstrip().removesuffix(FENCE)
    return "\n".join(lines)


def _read_more(read_line: Callable[[bool], str]) -> str:
    try:
        return read_line(True)
    except EOFError:
        return ""


def is_terminal() -> bool:
    """Whether somebody sits there to type and to read."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def read_typed(begun: bool) -> str:
    """Read a line from a terminal, with a prompt; lines before can be fetched with the arrow keys."""
    return input("… " if begun else "> ")


def read_piped(begun: bool) -> str:
    """Read a line from what is no terminal."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")
