"""`penstock top`: the calls of a server as they run."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli.call import DEFAULT_URL
from penstock.cli.exits import Exit, fail
from penstock.cli.trust import Ca, trusting

Url = Annotated[str, typer.Argument(envvar="PENSTOCK_URL", help="The server.", show_default=DEFAULT_URL)]
Once = Annotated[bool, typer.Option("--once", help="Print what there is now, and leave.")]
Cancel = Annotated[
    list[str] | None, typer.Option(help="Cancel this call, and leave; may be given several times.")
]
Every = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")]


def top(
    url: Url = DEFAULT_URL, once: Once = False, cancel: Cancel = None, every: Every = 1.0, ca: Ca = None
) -> None:
    """Show the calls that run on a server, and cancel them; `c ID` cancels one, `q` or Ctrl-C leaves."""
    tls = trusting(ca)

    from penstock.cli.overview import Overview
    from penstock.cli.watching import print_once, watch
    from penstock.errors import CallError, ConnectionFailed, PenstockError

    try:
        overview = Overview(url, tls)
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    try:
        with overview:
            if cancel:
                for task_id in cancel:
                    print(overview.cancel(task_id))
            elif once:
                print_once(overview)
            else:
                watch(overview, every)
    except ConnectionFailed as error:
        fail(error.message, Exit.NO_SERVER)
    except CallError as error:
        fail(f"{error.message} ({error.code.value})")
    except PenstockError as error:
        fail(str(error))
