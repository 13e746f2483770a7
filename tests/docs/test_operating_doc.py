"""docs/operating.md is true: nginx, systemd and probes take what it shows."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import trustme
import yaml
from websockets.asyncio.client import unix_connect

from behaviour.proxy import NGINX
from behaviour.served import hosted
from docs.pages import DOCS, fences
from penstock.calls.limits import CallLimits
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio

PAGE = DOCS / "operating.md"
NAME = "model.example"
OF_NGINX = """
daemon off;
master_process off;
pid pid;
error_log stderr emerg;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {shown}
}}
"""


def shown(kind: str) -> str:
    """Return the one block of a kind."""
    [block] = (fence.body for fence in fences(PAGE) if fence.info == kind)
    return block


def project(seen: SimpleNamespace) -> Runtime:
    rt = Runtime()

    @rt.streaming_command("predict")
    async def predict(prompt: str) -> AsyncIterator[dict[str, int]]:
        yield {"size": len(prompt)}
        try:
            await seen.go.wait()
        finally:
            seen.left.set()
        yield {"size": 0}

    return rt


@pytest.fixture
def seen() -> SimpleNamespace:
    return SimpleNamespace(go=asyncio.Event(), left=asyncio.Event())


@asynccontextmanager
async def proxied(address: tuple[str, int]) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """Run nginx as it is shown, with a certificate made here; give the file on which it listens."""
    assert NGINX is not None
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    with tempfile.TemporaryDirectory(prefix="nginx") as name:
        folder, issued = Path(name), authority.issue_cert(NAME)
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        text = shown("nginx").replace("127.0.0.1:8000", f"{address[0]}:{address[1]}")
        text = text.replace("listen 443 ssl", f"listen unix:{folder}/socket ssl")
        text = re.sub(r"/etc/ssl/\S+\.pem", f"{folder}/cert.pem", text)
        text = re.sub(r"/etc/ssl/\S+\.key", f"{folder}/key.pem", text)
        (folder / "nginx.conf").write_text(OF_NGINX.format(shown=text))
        process = await asyncio.create_subprocess_exec(NGINX, "-p", name, "-c", f"{name}/nginx.conf")
        try:
            with anyio.fail_after(20):
                while not (folder / "socket").exists():
                    await anyio.lowlevel.checkpoint()
                    assert process.returncode is None
            yield f"{folder}/socket", trusting
        finally:
            process.terminate()
            await process.wait()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed on this machine")
async def test_nginx_as_it_is_shown_hands_on_streams_sockets_and_leaving(seen: SimpleNamespace) -> None:
    async with (
        App(project(seen)) as app,
        hosted(app, allow_host=NAME) as (_, address),
        proxied(address) as (socket, trusting),
    ):
        transport = httpx.AsyncHTTPTransport(uds=socket, verify=trusting)
        async with httpx.AsyncClient(transport=transport, base_url=f"https://{NAME}") as client:
            with anyio.fail_after(30):
                await _streams_as_it_comes(client, seen)
                await _opens_a_socket(socket, trusting)
                assert (await _large(client)).status_code == 200
                stranger = await client.get("/v2/commands", headers={"host": "other.example"})
                assert stranger.status_code == 403
                await _cancels(client, seen)


async def _streams_as_it_comes(client: httpx.AsyncClient, seen: SimpleNamespace) -> None:
    body = {"input": {"prompt": "abc"}, "is_stream": True}
    async with client.stream("POST", "/predict", json=body) as answer:
        lines = answer.aiter_lines()
        while '"size":3' not in await anext(lines):
            pass
        assert not seen.go.is_set()  # nobody waited for the end
        seen.go.set()
        assert '"completed"' in [line async for line in lines][-1]


async def _opens_a_socket(socket: str, trusting: ssl.SSLContext) -> None:
    async with unix_connect(socket, f"wss://{NAME}/ws", ssl=trusting) as link:
        await link.send(json.dumps({"type": "command", "command": "predict", "input": {"prompt": "x"}}))
        assert json.loads(await link.recv())["status"] == "completed"


async def _large(client: httpx.AsyncClient) -> httpx.Response:
    body = {"command": "predict", "input": {"prompt": "x" * 12_000_000}}
    return await client.post("/v2/execute", json=body, timeout=30)


async def _cancels(client: httpx.AsyncClient, seen: SimpleNamespace) -> None:
    seen.go.clear()
    seen.left.clear()
    body = {"input": {"prompt": "abc"}, "is_stream": True}
    async with client.stream("POST", "/predict", json=body) as answer:
        lines = answer.aiter_lines()
        while '"size":3' not in await anext(lines):
            pass
    await seen.left.wait()


async def test_the_probes_are_there_and_a_pod_waits_for_the_calls(seen: SimpleNamespace) -> None:
    spec: Any = yaml.safe_load(shown("yaml"))["spec"]
    [container] = spec["containers"]
    paths = [probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")]
    assert len(paths) == 3
    before_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > before_s + CallLimits().drain_s
    async with App(project(seen)) as app, hosted(app) as (_, (host, port)), httpx.AsyncClient() as client:
        for path in paths:
            assert (await client.get(f"http://{host}:{port}{path}")).status_code == 200


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = shown("ini")
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) > CallLimits().drain_s
    penstock = Path(sys.executable).with_name("penstock")
    file = tmp_path / "story.service"
    file.write_text(unit.replace("/srv/story/.venv/bin/penstock", str(penstock)))
    ran = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
