"""`penstock chat`: a conversation in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli.call import DEFAULT_URL
from penstock.cli.exits import Exit, fail
from penstock.cli.trust import Ca, trusting

Url = Annotated[str, typer.Argument(envvar="PENSTOCK_URL", help="The server.", show_default=DEFAULT_URL)]
Model = Annotated[
    str | None, typer.Option(help="Whom to talk to: a model or a command (the first that can chat).")
]
System = Annotated[str | None, typer.Option(help="What the model is told before anything else.")]
Timeout = Annotated[float | None, typer.Option(help="Give an answer up after so many seconds.")]


def chat(
    url: Url = DEFAULT_URL,
    model: Model = None,
    system: System = None,
    timeout: Timeout = None,
    ca: Ca = None,
) -> None:
    """Talk to a model on a server; Ctrl-C cancels an answer, Ctrl-D leaves.

    penstock chat http://127.0.0.1:8000 --system "Be brief."
    """
    tls = trusting(ca)

    from penstock.cli.chatting import Chatting
    from penstock.client import AsyncClient
    from penstock.client.backoff import ONCE
    from penstock.errors import CallError, ConnectionFailed, PenstockError

    try:
        client = AsyncClient(url, tls=tls, timeout_s=timeout, retry=ONCE)
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    try:
        Chatting(client, model, system).run()
    except ConnectionFailed as error:
        fail(error.message, Exit.NO_SERVER)
    except CallError as error:
        fail(f"{error.message} ({error.code.value})")
    except PenstockError as error:
        fail(str(error))
    except UnicodeError as error:
        fail(f"what is typed has to be UTF-8 ({error})", Exit.USAGE)
