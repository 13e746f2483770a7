"""`penstock gateway`, `runner` and `runners`: as processes, from the first line to the exit code."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from behaviour.certificates import certify
from behaviour.keyring import ANNA, RUNNER, holder, write_keys
from cli.processes import PATIENCE_S, Penstock, Server, started
from penstock.protocol.keys import Scope

ROOT = holder("root", Scope.ADMIN, Scope.CALLER)


@contextmanager
def gateway(*arguments: object, **env: str) -> Iterator[Server]:
    with started("gateway", "--port", 0, *arguments, **env) as process:
        yield Server(process)


@contextmanager
def runner(at: Server, tiny: Path, *arguments: object, **env: str) -> Iterator[str]:
    """A runner of the tiny project; yields the first line it says."""
    url = at.url.replace("http", "ws")
    with started("runner", tiny, "--gateway", url, *arguments, **env) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def until_ready(at: Server, **headers: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while httpx.get(f"{at.url}/readyz", headers=headers).status_code != 200:
        assert time.monotonic() < deadline, "no runner came"
        time.sleep(0.02)


def test_a_project_on_a_runner_is_called_through_a_gateway(penstock: Penstock, tiny: Path) -> None:
    with gateway("--name", "front") as at:
        assert at.ready_line.startswith(f"front ready on {at.url}")
        assert f"runners dial {at.url.replace('http', 'ws')}" in at.ready_line
        said = penstock("call", "add", "a:=1", "b:=2", "--url", at.url)
        assert (said.returncode, "not_found" in said.stderr) == (1, True)
        with runner(at, tiny, "--name", "gpu-1", "--label", "zone=a", "--capacity", 7) as first_line:
            assert first_line.startswith("runner gpu-1 offers ")
            until_ready(at)
            said = penstock("call", "predict", "prompt=Say", "--stream", "--url", at.url)
            assert (said.returncode, said.stdout) == (0, "Once upon a time\n")
            said = penstock("runners", "list", "--url", at.url)
            assert said.stdout.startswith("gpu-1 · connected, 0 calls · ")
            assert said.stdout.endswith("zone=a\n")
            said = penstock("runners", "drain", "gpu-1", "--url", at.url)
            assert said.stdout.startswith("gpu-1 · draining")
            said = penstock("call", "add", "a:=1", "b:=2", "--url", at.url)
            assert "unavailable" in said.stderr
            penstock("runners", "drain", "gpu-1", "--undo", "--url", at.url)
            said = penstock("runners", "weigh", "gpu-1", "0.5", "--url", at.url)
            assert " · weight 0.5 · " in said.stdout
            assert penstock("call", "add", "a:=1", "b:=2", "--url", at.url).returncode == 0
        said = penstock("runners", "list", "--url", at.url)
        assert (said.returncode, said.stdout) == (0, "no runner is connected\n")
        assert at.stop() == 0


def test_a_runner_that_is_removed_ends_clean(penstock: Penstock, tiny: Path) -> None:
    with gateway() as at:
        url = at.url.replace("http", "ws")
        with started("runner", tiny, "--gateway", url, "--name", "one") as process:
            until_ready(at)
            assert penstock("runners", "remove", "one", "--url", at.url).returncode == 0
            assert process.wait(PATIENCE_S) == 0
        said = penstock("runners", "remove", "one", "--url", at.url)
        assert (said.returncode, "not_found" in said.stderr) == (1, True)


def test_keys_say_who_may_what(penstock: Penstock, tiny: Path, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.txt", ANNA, ROOT, RUNNER)
    token = RUNNER.token
    with (
        gateway("--auth-keys", keys) as at,
        runner(at, tiny, "--name", "one", PENSTOCK_RUNNER_TOKEN=token) as first_line,
    ):
        assert token not in first_line
        until_ready(at, **ANNA.headers)
        said = penstock("runners", "list", "--url", at.url, PENSTOCK_API_KEY=ROOT.token)
        assert said.stdout.startswith("one · connected")
        said = penstock("runners", "list", "--url", at.url, PENSTOCK_API_KEY=ANNA.token)
        assert "permission_denied" in said.stderr
        said = penstock("runners", "list", "--url", at.url)
        assert "unauthenticated" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gateway", "ws://127.0.0.1:1"], "name a project folder"),
        (["{tiny}"], "name a gateway"),
        (["{tiny}", "--gateway", "http://127.0.0.1"], "is no gateway's URL"),
        (["{tiny}", "--gateway", "ws://127.0.0.1:1", "--name", "a b"], "1 to 64 letters"),
        (["{tiny}", "--gateway", "ws://127.0.0.1:1", "--label", "zone"], "write it as name=value"),
    ],
)
def test_a_command_line_that_makes_no_sense(
    penstock: Penstock, tiny: Path, arguments: list[str], words: str
) -> None:
    said = penstock("runner", *(argument.replace("{tiny}", str(tiny)) for argument in arguments))
    assert (said.returncode, words in said.stderr) == (2, True), said.stderr


def test_a_project_with_mistakes_ends_with_its_line(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("import penstock\n\nraise ValueError('broken')\n")
    (tmp_path / "manifest.yml").write_text("name: broken\nentrypoint: run.py\n")
    said = penstock("runner", tmp_path, "--gateway", "ws://127.0.0.1:1")
    assert (said.returncode, "line 3" in said.stderr) == (1, True), said.stderr


def test_no_gateway_is_exit_code_3_for_those_who_ask(penstock: Penstock) -> None:
    said = penstock("runners", "list", "--url", "http://127.0.0.1:1")
    assert (said.returncode, "no gateway answers" in said.stderr) == (3, True)


def test_labels_and_keys_say_on_which_runner_a_call_runs(penstock: Penstock, tiny: Path) -> None:
    with gateway() as at, runner(at, tiny, "--name", "one", "--label", "zone=a"):
        until_ready(at)
        add = ("call", "add", "a:=1", "b:=2", "--url", at.url)
        assert penstock(*add, "--label", "zone=a", "--sticky", "anna").returncode == 0
        said = penstock(*add, "--label", "zone=b")
        assert (said.returncode, "no runner with the labels" in said.stderr) == (1, True)
        said = penstock(*add, "--label", "zone")
        assert (said.returncode, "write it as name=value" in said.stderr) == (2, True)


def test_calls_that_name_no_command_run_the_one_that_was_set(tiny: Path) -> None:
    with gateway("--default-command", "echo") as at, runner(at, tiny):
        until_ready(at)
        reply = httpx.post(f"{at.url}/predict", json={"input": {"text": "fox"}})
        assert (reply.status_code, reply.json()["data"]) == (200, "fox")


def test_a_certificate_encrypts_all_that_is_said(penstock: Penstock, tiny: Path, tmp_path: Path) -> None:
    made = certify(tmp_path)
    ca = ("--ca", made.ca)
    with started("gateway", "--port", 0, "--tls-cert", made.certificate, "--tls-key", made.key) as process:
        at = Server(process)
        assert at.url.startswith("https://")
        assert f"runners dial {at.url.replace('https', 'wss')}" in at.ready_line
        with started("runner", tiny, "--gateway", at.url.replace("https", "wss"), *ca) as dialling:
            assert dialling.stdout is not None
            dialling.stdout.readline()
            with httpx.Client(verify=made.trust) as http:
                deadline = time.monotonic() + PATIENCE_S
                while http.get(f"{at.url}/readyz").status_code != 200:
                    assert time.monotonic() < deadline, "no runner came"
                    time.sleep(0.02)
            said = penstock("call", "predict", "prompt=Say", "--stream", "--url", at.url, *ca)
            assert (said.returncode, said.stdout) == (0, "Once upon a time\n")
            said = penstock("call", "echo", "text=x", "--url", at.url.replace("https", "wss"), *ca)
            assert (said.returncode, said.stdout) == (0, '"x"\n')
            assert (
                "connected" in penstock("runners", "list", "--url", at.url, PENSTOCK_CA=str(made.ca)).stdout
            )
            said = penstock("call", "echo", "text=x", "--url", at.url)
            assert (said.returncode, "not trusted here" in said.stderr) == (3, True)
            dialling.send_signal(signal.SIGTERM)
            assert dialling.wait(PATIENCE_S) == 0
        assert at.stop() == 0
    said = penstock("call", "echo", "text=x", "--ca", tmp_path / "nowhere.pem")
    assert (said.returncode, "no certificates can be read there" in said.stderr) == (2, True)
    said = penstock("run", tiny, "--tls-cert", made.certificate)
    assert (said.returncode, "go together" in said.stderr) == (2, True)


def test_clarifais_link_is_served_where_it_is_asked_for() -> None:
    with gateway("--clarifai-port", 0, "--name", "front") as at:
        assert at.process.stdout is not None
        said = at.process.stdout.readline()
        assert said.startswith("Clarifai's runners and clients dial http://127.0.0.1:")
        assert at.stop() == 0


def test_clarifais_link_needs_its_extra(tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("raise ImportError('no grpc here')\n")
    with started("gateway", "--port", 0, "--clarifai-port", 0, PYTHONPATH=str(tmp_path)) as process:
        _, error = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "pip install 'penstock[clarifai]'" in error


def test_clarifais_link_refuses_what_every_door_refuses() -> None:
    with started("gateway", "--port", 0, "--clarifai-port", 0, "--host", "0.0.0.0") as process:
        _, error = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert "nobody would need a key" in error
    with started("gateway", "--clarifai-port", 70000) as process:
        _, error = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
