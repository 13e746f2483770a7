"""nginx in front of a server under test."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from behaviour.raw_http import WAIT_S, Address, Connection

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr emerg;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout 200ms;
    client_header_timeout 200ms;
    client_body_timeout 200ms;
    upstream served {{ server {host}:{port}; keepalive 4; }}
    server {{
        listen unix:{folder}/socket;
        location / {{
            proxy_pass http://served;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host test;
        }}
        location /upgrading/ {{
            proxy_pass http://served/;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host test;
        }}
    }}
}}
"""


@asynccontextmanager
async def nginx(address: Address) -> AsyncIterator[Path]:
    """Run nginx in front of ``address``, with its usual buffers; it listens on a file and takes no port."""
    if NGINX is None:
        pytest.skip("nginx is not installed on this machine")
    with tempfile.TemporaryDirectory(prefix="nginx") as name:
        folder = Path(name)
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, host=address[0], port=address[1]), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(NGINX, "-p", name, "-c", str(config))
        try:
            await _listens(folder / "socket")
            yield folder / "socket"
        finally:
            process.terminate()
            with anyio.fail_after(WAIT_S):
                await process.wait()


async def _listens(path: Path) -> None:
    with anyio.fail_after(WAIT_S):
        while True:
            try:
                connection = await through(path)
            except OSError:
                await anyio.lowlevel.checkpoint()
            else:
                await connection.aclose()
                return


async def through(path: Path) -> Connection:
    """Connect to what listens on a file."""
    with anyio.fail_after(WAIT_S):
        return Connection(*await asyncio.open_unix_connection(str(path), limit=32 * 1024 * 1024))
