"""Hosts one benchmark app: pinned to its core, on a free port that it prints, until it is told to stop."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
import uvloop
from versions import versions


def pin_to_core() -> None:
    """Move this process to the core named by ``--core``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, required=True)
    os.sched_setaffinity(0, {parser.parse_args().core})


def say_ready(port: int) -> None:
    """Print the one line that `run.py` waits for."""
    print(json.dumps({"port": port, "versions": versions()}), flush=True)


def serve_asgi(app: Callable[..., Any], ws: Any = "none") -> None:
    """Serve an ASGI app with the uvicorn settings that penstock's own host uses.

    Args:
        ws: uvicorn's name of a WebSocket implementation, or a protocol class.
    """
    pin_to_core()
    config = uvicorn.Config(
        app,
        http="httptools",
        ws=ws,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    say_ready(listener.getsockname()[1])
    uvloop.run(uvicorn.Server(config).serve(sockets=[listener]))
