"""Servers and gateways with a certificate: all is as it is in clear, and nothing is said in clear."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from behaviour.cable import Cable
from behaviour.certificates import Certificates, certify
from behaviour.checks import at_rest, happened, until
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S, Address
from behaviour.seam import Switch
from behaviour.served import hosted
from behaviour.sites import Project, Site, data
from penstock.client import AsyncClient
from penstock.errors import ConnectionFailed, PenstockError
from penstock.gateway.settings import GatewaySettings
from penstock.runner.runner import Runner
from penstock.runtime.app import App
from penstock.server.host import Host
from penstock.server.settings import ServerSettings
from penstock.testing.zoo import model_zoo

pytestmark = [
    pytest.mark.anyio,
    # Python 3.10 says this of TLS connections that the other side has closed.
    pytest.mark.filterwarnings("ignore:unclosed transport <asyncio.sslproto:ResourceWarning"),
]

LOOPS = [("asyncio", {}), ("asyncio", {"use_uvloop": True})]
MEGABYTE = 1_000_000


@pytest.fixture(scope="module", params=LOOPS, ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """TLS is each event loop's own."""
    if request.param[1]:
        pytest.importorskip("uvloop")
    return request.param


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certify(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def served(app: App, certificates: Certificates, **settings: object) -> AsyncIterator[Address]:
    async with hosted(app, **certificates.settings, **settings) as (_, address):
        yield address
        await at_rest(app)


def url_of(address: Address, scheme: str) -> str:
    return f"{scheme}://{address[0]}:{address[1]}"


@pytest.mark.parametrize(
    ("scheme", "options"),
    [("https", {}), ("https", {"form": "sse"}), ("wss", {})],
    ids=["ndjson", "sse", "websocket"],
)
async def test_calls_are_what_they_are_in_clear(
    certificates: Certificates, scheme: str, options: dict[str, Any]
) -> None:
    project = Project()
    async with (
        served(App(project.runtime), certificates) as address,
        AsyncClient(url_of(address, scheme), tls=certificates.trust, **options) as client,
    ):
        assert (await client.health()).status == "healthy"
        assert (await client.run("count", items=3))["i"] == 2
        async with client.stream("count", items=300, pad=5000) as stream:
            assert [item["i"] async for item in stream] == list(range(300))
        async with client.stream("wait", task_id="w") as stream:
            assert (await stream.__anext__())["i"] == 0
            assert await client.cancel("w") == "cancelled"
        async with client.stream("wait") as stream:
            assert (await stream.__anext__())["i"] == 0
        await until(lambda: len(project.ended) == 2, lambda: project.ended)  # its reader left


@promise("P5", "P6")
@pytest.mark.parametrize("how", ["fin", "rst", "goodbye"])
async def test_leaving_is_felt(certificates: Certificates, how: str) -> None:
    project = Project()
    async with served(App(project.runtime), certificates) as address:
        reader, writer = await asyncio.open_connection(*address, ssl=certificates.trust)
        body = b'{"command": "wait", "is_stream": true}'
        head = b"POST /v2/execute HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        await happened(project.waits)
        await reader.read(1)
        raw: socket.socket = writer.get_extra_info("socket")
        if how == "rst":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "goodbye":
            writer.close()
        else:
            writer.transport.abort()
        await until(lambda: len(project.ended) == 1, lambda: "it runs on")


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(certificates: Certificates) -> None:
    async with served(App(Project().runtime), certificates) as address:
        for scheme in ("https", "wss"):
            async with AsyncClient(url_of(address, scheme)) as client:
                with pytest.raises(ConnectionFailed, match=r"certificate that is not trusted here \(.*--ca"):
                    await client.run("count")
        async with AsyncClient(f"https://[::1]:{address[1]}", tls=certificates.trust) as client:
            with pytest.raises(ConnectionFailed):  # another machine's
                await client.run("count")


@pytest.mark.parametrize(
    "bytes_sent",
    [b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 600, b""],
)
async def test_who_does_not_speak_tls_is_told_nothing_and_costs_nobody(
    certificates: Certificates, bytes_sent: bytes
) -> None:
    async with (
        served(App(Project().runtime), certificates, header_s=0.3) as address,
        AsyncClient(url_of(address, "https"), tls=certificates.trust) as client,
    ):
        crowd = [await asyncio.open_connection(*address) for _ in range(20)]
        for _, writer in crowd:
            writer.write(bytes_sent)
        assert (await client.run("count", items=3))["i"] == 2
        for reader, writer in crowd:
            with anyio.fail_after(WAIT_S):
                try:
                    said = await reader.read()
                except ConnectionResetError:
                    said = b""
            assert said == b"" or said[0] == 21, said  # an alert
            writer.close()


async def test_old_versions_of_tls_are_not_spoken(certificates: Certificates) -> None:
    async with served(App(Project().runtime), certificates) as address:
        old = certificates.trust
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await asyncio.open_connection(*address, ssl=old)
        assert writer.get_extra_info("cipher")[1] == "TLSv1.2"
        writer.close()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            await asyncio.open_connection(*address, ssl=old)


@promise("P14", "P15")
async def test_a_slow_reader_holds_back_its_call_and_is_dropped(certificates: Certificates) -> None:
    zoo = model_zoo()
    app = App(zoo.runtime)
    async with served(app, certificates, slow_reader_s=0.3) as address:
        _, writer = await asyncio.open_connection(*address, ssl=certificates.trust)
        writer.transport.pause_reading()
        body = b'{"command": "flood", "is_stream": true, "input": {"size": 10000}}'
        head = b"POST /v2/execute HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        await zoo.journal.wait("started")
        await zoo.journal.wait("cancelled")
        writer.transport.abort()


# -- the server's part -----------------------------------------------------------------------------------


def settings(tmp_path: Path, certificate: str | None, key: str | None) -> ServerSettings:
    paths = {"tls_cert": certificate, "tls_key": key}
    for name, text in paths.items():
        (tmp_path / name).write_text(text or "")
    return ServerSettings(
        port=0, **{name: tmp_path / name for name, text in paths.items() if text is not None}
    )


def test_a_certificate_has_its_key(tmp_path: Path, certificates: Certificates) -> None:
    certificate, key = certificates.certificate.read_text(), certificates.key.read_text()
    (tmp_path / "other").mkdir()
    other = certify(tmp_path / "other").key.read_text()
    hub: Any = None
    with pytest.raises(ValueError, match="go together"):
        settings(tmp_path, certificate, None)
    with pytest.raises(ValueError, match="go together"):
        settings(tmp_path, None, key)
    for wrong in [("", key), (certificate, ""), (certificate, other), (key, certificate), ("x" * 500, key)]:
        with pytest.raises(PenstockError, match="are not a certificate and its key"):
            Host(hub, settings(tmp_path, *wrong))
    with pytest.raises(PenstockError, match="No such file"):
        Host(hub, ServerSettings(port=0, tls_cert=tmp_path / "no", tls_key=tmp_path / "no"))


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(
    tmp_path: Path, certificates: Certificates
) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    key = pem.load_pem_private_key(certificates.key.read_bytes(), None)
    locked = key.private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"open sesame")
    )
    with pytest.raises(PenstockError, match="without a passphrase"):
        Host(None, settings(tmp_path, certificates.certificate.read_text(), locked.decode()))  # type: ignore[arg-type]


async def test_others_are_not_let_in_for_a_certificate_alone(certificates: Certificates) -> None:
    app = App(Project().runtime)
    with pytest.raises(PenstockError, match="nobody would need a key"):
        await Host(app, ServerSettings(host="0.0.0.0", port=0, **certificates.settings)).serve()
    await app.aclose()


# -- a gateway -------------------------------------------------------------------------------------------


@asynccontextmanager
async def site(certificates: Certificates) -> AsyncIterator[Site]:
    switch = Switch()
    async with hosted(switch, **certificates.settings) as (_, address), Cable(address) as cable:
        at = Site(switch, cable, address, GatewaySettings())
        await at.start_hub()
        try:
            yield at
        finally:
            with anyio.fail_after(2 * WAIT_S):
                await at.hub.aclose()


@promise("P12")
async def test_a_runner_dials_and_loses_nothing_when_its_link_is_cut(certificates: Certificates) -> None:
    async with site(certificates) as at:
        url = at.cable.url.replace("ws:", "wss:")
        project = Project()
        async with Runner(App(project.runtime), [url], "one", tls=certificates.trust, chance=lambda: 0.0):
            await at.there()
            for size in range(200, 6000, 530):
                at.cable.cut_after(size, up=True)
                frames = await at.frames(await at.open("count", pad=200))
                assert data(frames) == list(range(24)), size
                assert frames[-1]["status"] == "completed"
            assert at.cable.connections > 5


async def test_a_runner_trusts_no_gateway_that_nobody_vouches_for(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(certificates) as at:
        url = at.cable.url.replace("ws:", "wss:")
        async with Runner(App(Project().runtime), [url], "one", chance=lambda: 0.0):
            await until(lambda: "not trusted here" in caplog.text, lambda: caplog.text)
            assert "with --ca" in caplog.text
            assert not len(at.hub.runners)
