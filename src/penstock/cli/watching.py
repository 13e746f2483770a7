"""One run of `penstock top`: looks, the screen they are drawn on, and what is typed meanwhile."""

from __future__ import annotations

import time
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from penstock.cli.keyboard import Keyboard
from penstock.cli.overview import Look, Overview
from penstock.cli.overview_table import Rates, render
from penstock.errors import PenstockError

HINT = "c ID cancels a call · q leaves"


def print_once(overview: Overview) -> None:
    """Print what there is now.

    Raises:
        PenstockError: It cannot be asked for.
    """
    look = overview.look()
    Console().print(render(look, Rates().update(look)))


def watch(overview: Overview, every_s: float) -> None:
    """Show what there is, again and again, until somebody leaves; once where nobody watches.

    Args:
        overview: Tells it.
        every_s: Seconds between two looks.

    Raises:
        PenstockError: It cannot be asked for at the start.
    """
    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:
        print_once(overview)
        return
    screen = Screen(overview, console)
    with suppress(KeyboardInterrupt, EOFError), Keyboard() as keyboard, screen.live:
        while screen.show(keyboard, every_s):
            screen.look()


class Screen:
    """What is shown.

    Args:
        overview: Tells it.
        console: Where.

    Raises:
        PenstockError: It cannot be asked for.
    """

    def __init__(self, overview: Overview, console: Console) -> None:
        self._overview = overview
        self._rates = Rates()
        self._said = HINT
        self._draw(overview.look())
        self.live = Live(console=console, screen=True, auto_refresh=False)

    def look(self) -> None:
        """Ask anew; a server that does not answer may do so later."""
        try:
            self._draw(self._overview.look())
        except PenstockError as error:
            self._said = str(error)

    def show(self, keyboard: Keyboard, for_s: float) -> bool:
        """Show it for so many seconds, and do what is typed meanwhile; returns False if that is to leave."""
        until = time.monotonic() + for_s
        while (left := until - time.monotonic()) > 0:
            asked = Text(f"{self._said}\n> {keyboard.typed}\n")  # first: what is too long is cut off below
            self.live.update(Group(asked, self._shown), refresh=True)
            line = keyboard.read_line(left)
            if line == "q":
                return False
            if line:
                self._said = self._do(line)
                return True
        return True

    def _draw(self, look: Look) -> None:
        self._shown = render(look, self._rates.update(look))

    def _do(self, line: str) -> str:
        order, _, task_id = line.partition(" ")
        if order != "c" or not task_id.strip():
            return HINT
        try:
            return self._overview.cancel(task_id.strip())
        except PenstockError as error:
            return str(error)
