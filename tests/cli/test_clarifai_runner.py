"""`penstock runner --clarifai`: as a process, from its flags to its exit code."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import grpc
import pytest
import typer
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from cli.processes import PATIENCE_S, Penstock, command, environment
from penstock.cli import runner_clarifai
from runner.clarifai.fake_server import (
    GENERATE,
    STREAM,
    FakeServer,
    cancel,
    fake_server,
    item,
    response_of,
    status,
    success,
    text_of,
)
from runner.clarifai.one_loop import anyio_backend, one_loop

__all__ = ["anyio_backend", "one_loop"]  # fixtures

pytestmark = pytest.mark.anyio

IDS = ("--user-id", "u", "--compute-cluster-id", "c", "--nodepool-id", "n", "--runner-id", "r")
MODEL = """
import time
from typing import Iterator

from clarifai.runners.models.model_class import ModelClass
from clarifai.runners.utils.data_types import Image
from clarifai_protocol import get_item_id, register_item_abort_callback


class Toy(ModelClass):
    def load_model(self):
        self.mark = "!"
        self.aborted = []
        register_item_abort_callback(self.aborted.append)

    @ModelClass.method
    def predict(self, text: str, n: int = 1) -> str:
        return text * n + self.mark

    @ModelClass.method
    def generate(self, text: str, count: int = 3, delay: float = 0.0) -> Iterator[str]:
        for number in range(count):
            time.sleep(delay)
            yield f"{text}-{number}"

    @ModelClass.method
    def stream(self, texts: Iterator[str]) -> Iterator[str]:
        for text in texts:
            yield text.upper()

    @ModelClass.method
    def until_cancelled(self) -> Iterator[str]:
        yield get_item_id()
        while not self.aborted:
            time.sleep(0.005)
        yield "late"

    @ModelClass.method
    def seen(self) -> str:
        return ",".join(self.aborted)

    @ModelClass.method
    def size(self, image: Image) -> int:
        return len(image.bytes)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1").mkdir(parents=True)
    (folder / "config.yaml").write_text("model:\n  id: toy\nnum_threads: 3\n")
    (folder / "1" / "model.py").write_text(MODEL)
    return folder


@asynccontextmanager
async def runner(*arguments: object, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A runner as a process, which has said its first line."""
    process = await asyncio.create_subprocess_exec(
        *command("runner", *arguments),
        env=environment(**{"CLARIFAI_PAT": "secret-pat", **env}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        with anyio.fail_after(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("runner r of u offers "), line
        assert "secret-pat" not in line
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def left(process: asyncio.subprocess.Process) -> int:
    """Return how a runner ends that is told to leave."""
    process.send_signal(signal.SIGTERM)
    with anyio.fail_after(PATIENCE_S):
        return await process.wait()


async def test_a_model_folder_is_a_runner(model: Path) -> None:
    async with fake_server() as server:
        ids = dict(zip(("user_id", "cluster", "nodepool", "runner"), "ucnr", strict=True))
        env = {
            "CLARIFAI_API_BASE": server.url,
            "CLARIFAI_USER_ID": ids["user_id"],
            "CLARIFAI_COMPUTE_CLUSTER_ID": ids["cluster"],
            "CLARIFAI_NODEPOOL_ID": ids["nodepool"],
            "CLARIFAI_RUNNER_ID": ids["runner"],
        }
        async with runner(model, **env) as process:
            visits, control = [await server.visit() for _ in range(3)], await server.control()
            assert control.metadata["authorization"] == "Key secret-pat"
            [said] = await visits[0].ask(success(item("a", "predict", text="hi ", n=2)))
            assert text_of(said) == ["hi hi !"]
            heard = await visits[1].ask(success(item("b", "generate", GENERATE, text="t")))
            assert [text_of(said) for said in heard] == [["t-0"], ["t-1"], ["t-2"]]
            await visits[2].say(success(item("c", "stream", STREAM, texts="x")))
            assert text_of(await visits[2].hear()) == ["X"]
            assert await visits[2].ask(status(codes.RUNNER_STREAM_END)) == []
            await _cancels(server)
            assert await left(process) == 0


async def _cancels(server: FakeServer) -> None:
    """Have the model's own abort callback called, with the id of the item."""
    visit = await server.visit()
    control = next(each for each in server.visits if each.control)
    await visit.say(success(item("item-9", "until_cancelled", GENERATE)))
    assert text_of(await visit.hear()) == ["item-9"]
    await control.say(cancel("item-9"))
    [last] = await visit.hear_all()
    assert response_of(last).status.code == codes.REQUEST_CANCELED_BY_USER
    visit.end()
    [said] = await (await server.visit()).ask(success(item("d", "seen")))
    assert text_of(said) == ["item-9"]


async def test_who_is_terminated_finishes_its_items(model: Path) -> None:
    server = FakeServer()
    await server.start()
    async with runner(model, "--clarifai", server.url, *IDS, "--threads", 2) as process:
        busy, idle = await server.visit(), await server.visit()
        await busy.say(success(item("a", "generate", GENERATE, text="t", count=20, delay=0.02)))
        first = await busy.hear()
        process.send_signal(signal.SIGTERM)
        await idle.ended()
        heard = [first, *await busy.hear_all()]
        busy.end()
        assert [text_of(said) for said in heard] == [[f"t-{number}"] for number in range(20)]
        with anyio.fail_after(PATIENCE_S):
            assert await process.wait() == 0
    await server.stop()


async def test_workers_run_its_items(tiny: Path) -> None:
    async with fake_server() as server:
        flags = ("--clarifai", server.url, *IDS, "--workers", 1, "--threads", 2)
        async with runner(tiny, *flags) as process:
            [said] = await (await server.visit()).ask(success(item("a", "echo", text="worked")))
            assert "worked" in str(response_of(said).outputs[0].data)
            visit, control = await server.visit(), await server.control()
            await visit.say(success(item("b", "hold", GENERATE)))
            await visit.hear()
            await control.say(cancel("b"))
            [last] = await visit.hear_all()
            assert response_of(last).status.code == codes.REQUEST_CANCELED_BY_USER
            visit.end()
            heard = await (await server.visit()).ask(success(item("c", "count", GENERATE, to=5)))
            assert len(heard) == 5
            assert await left(process) == 0


async def test_who_finds_no_server_leaves_when_told(model: Path) -> None:
    async with runner(model, "--clarifai", "http://127.0.0.1:1", *IDS) as process:
        assert await left(process) == 0


def made_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files of a key and of its certificate, for the name localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made with the command openssl")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *new, "-days", "2", *names, *files], check=True, capture_output=True)
    return key, certificate


async def test_an_engine_is_a_runner_over_tls(tmp_path: Path) -> None:
    key, certificate = made_certificate(tmp_path)
    server = FakeServer()
    pair = (key.read_bytes(), certificate.read_bytes())
    await server.start(credentials=grpc.ssl_server_credentials([pair]))
    url = f"https://localhost:{server.port}"
    try:
        arguments = ("--engine", "scripted:text=Once upon", "--clarifai", url, *IDS, "--ca", certificate)
        async with runner(*arguments, "--threads", 1) as process:
            visit = await server.visit()
            heard = await visit.ask(success(item("a", "predict", GENERATE, prompt="Say")))
            struct = response_of(heard[-1]).outputs[0].data.parts[0].data.struct_value
            assert struct["text"] == "Once upon"
            assert await left(process) == 0
    finally:
        await server.stop()


def test_flags_that_do_not_fit_are_refused(penstock: Penstock, tiny: Path) -> None:
    url = "http://127.0.0.1:1"
    for arguments, words in (
        ((), "name a gateway"),
        (("--clarifai", url), "--user-id is needed"),
        (("--clarifai", url, *IDS[2:]), "--user-id is needed"),
        (("--clarifai", url, *IDS, "--gateway", "ws://127.0.0.1:1"), "start two for both"),
        (("--clarifai", "127.0.0.1:1", *IDS), "no server's URL"),
        (("--clarifai", url + "/v2", *IDS), "has a path"),
        (("--clarifai", url, *IDS, "--threads", 0), "--threads is a number"),
        (("--clarifai", url, *IDS, "--keepalive", 0), "more than 0"),
        (("--clarifai", url, *IDS, "--pat", "a\nb"), "printable ASCII"),
    ):
        said = penstock("runner", tiny, *arguments)
        assert (said.returncode, words in said.stderr) == (2, True), said.stderr


def test_without_its_packages_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner_clarifai, "find_spec", lambda name: None)
    with pytest.raises(typer.Exit) as left:
        runner_clarifai.refuse_without_packages()
    assert left.value.exit_code == 1
    assert "pip install 'penstock[clarifai]'" in capsys.readouterr().err


def test_nothing_of_it_is_loaded_where_it_is_not_used() -> None:
    code = (
        "import sys, penstock.cli.runner, penstock.compose, penstock.runner.service; "
        "print([name for name in sys.modules if name.startswith(('grpc', 'clarifai', 'google.protobuf'))])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert (said.returncode, said.stdout.strip()) == (0, "[]"), said.stderr
