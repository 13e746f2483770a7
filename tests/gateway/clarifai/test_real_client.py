"""The SDK's client and command line, unmodified, at a gateway: with a model folder that penstock serves, and
with one that `clarifai model serve` does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cli.processes import PATIENCE_S, started
from gateway.clarifai.real_parts import HERE, PYTHON, TOY, Gateway, gateway, needs_clarifai, until

pytestmark = needs_clarifai
CLI = PYTHON.with_name("clarifai")


@pytest.fixture(scope="module")
def front() -> Iterator[Gateway]:
    with gateway() as found:
        yield found
        assert found.stop() == 0


def environment(front: Gateway, home: Path) -> dict[str, str]:
    given = {"CLARIFAI_API_BASE": front.clarifai_url, "CLARIFAI_PAT": "none", "CLARIFAI_USER_ID": "u1"}
    return {"PATH": os.environ["PATH"], "HOME": str(home), **given}


def client(front: Gateway, what: str, home: Path) -> dict[str, Any]:
    """Return what the SDK's client gets."""
    done = subprocess.run(
        [str(PYTHON), str(HERE / "sdk_client.py"), front.clarifai_url, what],
        env=environment(front, home),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


# -- a model folder that penstock serves ---------------------------------------------------------------


@pytest.fixture(scope="module")
def native(front: Gateway) -> Iterator[None]:
    label = "clarifai_model=native"
    with started("runner", HERE / "native", "--gateway", front.url.replace("http", "ws"), "--label", label):
        front.until_there(1_000_000)
        yield


@pytest.mark.usefixtures("native")
def test_the_clients_calls_reach_commands(front: Gateway, tmp_path: Path) -> None:
    found = client(front, "native", tmp_path)
    assert set(found["methods"]) >= {"predict", "generate", "stream", "see", "fields"}
    assert (found["predict"], found["default"], found["batch"]) == ("ababab", "abab", ["aa", "bbb"])
    assert (found["generate"], found["stream"]) == (["g0", "g1", "g2"], ["a?", "b?"])
    assert found["begun"] == ["e0", "e1"]
    assert found["see"] == [["cat", 0.5], ["dog", 0.5]]
    assert found["region"][1] == "cat"
    assert found["region"][0] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert (found["fields"], found["value"], found["list"]) == (
        "qqq",
        {"it": {"a": [1, None]}},
        {"it": [1, "x"]},
    )
    assert found["turn"] == "cba 0.25 False"
    assert "FAILURE" in found["fail"]
    assert "without giving anything" in found["wrong"]
    assert "MODEL_DOES_NOT_EXIST" in found["unknown"]
    assert (found["gateway"], found["old"]) == ("abab", "abab")
    until(lambda: all(one["calls"] == 0 for one in front.runners()))  # what was left is cancelled


# -- one that the command line does --------------------------------------------------------------------


@contextmanager
def served(front: Gateway, home: Path, *options: str) -> Iterator[list[str]]:
    """Run `clarifai model serve`; what it printed is there once it has ended."""
    printed: list[str] = []
    before = {one["name"] for one in front.runners()}
    with subprocess.Popen(
        [str(PYTHON), str(CLI), "model", "serve", str(home / "toy"), "--concurrency", "3", *options],
        env=environment(front, home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            until(
                lambda: any(
                    one["name"] not in before and one["state"] == "connected" for one in front.runners()
                )
            )
            yield printed
            process.send_signal(signal.SIGINT)
            printed.append(process.communicate(timeout=PATIENCE_S)[0])
        finally:
            process.kill()


@pytest.fixture
def home(front: Gateway, tmp_path: Path) -> Path:
    """The home of somebody who uses the command line."""
    context = {
        "CLARIFAI_API_BASE": front.clarifai_url,
        "CLARIFAI_PAT": "none",
        "CLARIFAI_USER_ID": "u1",
        "CLARIFAI_APP_ID": "a1",
    }
    config = tmp_path / ".config/clarifai/config"
    config.parent.mkdir(parents=True)
    config.write_text(yaml.dump({"current_context": "default", "contexts": {"default": context}}))
    shutil.copytree(TOY, tmp_path / "toy")
    (tmp_path / "toy/requirements.txt").write_text("clarifai\n")
    return tmp_path


def test_the_command_line_serves_a_model(front: Gateway, home: Path) -> None:
    with served(front, home) as first:
        found = client(front, "toy", home)
        labels = next(one["labels"] for one in front.runners() if one["labels"].get("clarifai_app"))
        chosen = client(front, "selected", home)
        commands = httpx.get(f"{front.url}/v2/commands").json()["commands"]
    assert "Resources preserved" in first[0]
    assert (found["predict"], found["batch"]) == ("abab", ["a", "b"])
    assert (found["generate"], found["stream"]) == (["g0", "g1"], ["a?", "b?"])
    assert "no way" in found["fail"]
    assert "half way" in found["half"]
    assert "without giving anything" in found["none"]
    assert len(found["req_id"]) == 32
    assert (labels["clarifai_model"], labels["clarifai_deployment"]) == ("toy", "local-toy")
    assert (chosen["deployment"], chosen["nodepool"]) == ("ab", "ab")
    assert "'other' not found" in chosen["unknown"]
    assert commands["toy.predict"]["input_schema"]["properties"]["times"]["default"] == 1
    with served(front, home, "--clean") as second:
        assert client(front, "toy", home)["predict"] == "abab"
    assert second[0].count("done") == 4
    assert "failed" not in second[0]
