"""From what a caller names to the way there."""

from __future__ import annotations

import os
import ssl

import httpx

from penstock.client.http import HttpTransport, StreamForm
from penstock.client.local import LocalTransport
from penstock.client.transport import Transport
from penstock.protocol.dispatch import Dispatcher


def reach(
    target: str | Dispatcher,
    *,
    api_key: str | None,
    form: StreamForm,
    silence_s: float | None,
    max_frame: int,
    tls: ssl.SSLContext | None,
    http: httpx.AsyncClient | None,
) -> Transport:
    """Return the transport to a server, or to a dispatcher of this process; for the arguments see
    ``AsyncClient``.

    Raises:
        ValueError: ``target`` is text, but no http, https, ws or wss URL.
    """
    if not isinstance(target, str):
        return LocalTransport(target)
    api_key = os.environ.get("PENSTOCK_API_KEY") if api_key is None else api_key
    if target.startswith(("ws:", "wss:")):
        # Loaded where it is used: it takes as long as the rest of the client.
        from penstock.client.websocket import WebSocketTransport

        return WebSocketTransport(target, api_key=api_key, max_frame=max_frame, tls=tls, http=http)
    return HttpTransport(
        target,
        api_key=api_key,
        form=form,
        silence_s=silence_s,
        max_frame=max_frame,
        tls=tls,
        http=http,
    )
