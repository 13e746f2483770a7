"""Our runner behind our gateway, over Clarifai's link: called over HTTP, and by Clarifai's own client."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.processes import PATIENCE_S, started
from gateway.clarifai.real_parts import PYTHON, TOY, Gateway, gateway, needs_clarifai, until

IDS = ("--user-id", "u1", "--compute-cluster-id", "cc1", "--nodepool-id", "np1", "--runner-id", "toy")
SDK = """
import itertools, json, sys
from clarifai.client import Model

model = Model(url="https://clarifai.com/u1/a1/models/toy", base_url=sys.argv[1], pat="none")
said = {
    "unary": model.predict(text="ab", times=2),
    "default": model.predict(text="ab"),
    "generate": list(model.generate(text="g", count=5)),
    "stream": list(model.stream(texts=iter(["a", "b", "c"]), mark="?")),
    "batch": model.predict([{"text": "a"}, {"text": "b", "times": 2}]),
}
for name, call in {
    "fail": lambda: model.fail(text="cats"),
    "half": lambda: list(model.half(text="h")),
}.items():
    try:
        said[name] = call()
    except Exception as error:
        said[name] = type(error).__name__
print(json.dumps(said))
"""


@contextmanager
def runner(at: Gateway, *arguments: object, threads: int = 4) -> Iterator[subprocess.Popen[str]]:
    """Our runner of the toy model, which the gateway has taken in; it ends well."""
    dialled = ("--clarifai", at.clarifai_url, *IDS, "--threads", threads)
    with started("runner", TOY, *dialled, *arguments, CLARIFAI_PAT="none") as process:
        at.until_there(threads)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, process.communicate()


@pytest.fixture(scope="module")
def front() -> Iterator[Gateway]:
    with gateway() as found:
        yield found
        assert found.stop() == 0


@pytest.fixture(scope="module")
def toy(front: Gateway) -> Iterator[subprocess.Popen[str]]:
    with runner(front) as found:
        yield found


def ask(at: Gateway, command: str, **given: Any) -> dict[str, Any]:
    """Return the answer of a command, or why there is none."""
    body = {"command": command, "input": given}
    return dict(httpx.post(f"{at.url}/v2/execute", json=body, timeout=PATIENCE_S).json())


def frames(at: Gateway, command: str, **given: Any) -> Iterator[dict[str, Any]]:
    """Yield the frames of a command; whoever leaves disconnects."""
    body = {"command": command, "input": given, "is_stream": True}
    with httpx.stream("POST", f"{at.url}/v2/execute", json=body, timeout=PATIENCE_S) as response:
        for line in response.iter_lines():
            yield json.loads(line)


def items(at: Gateway, command: str, **given: Any) -> list[Any]:
    """Return the items of a command."""
    return [frame["data"] for frame in frames(at, command, **given) if frame["status"] == "streaming"]


def test_its_commands_are_called_over_http(front: Gateway, toy: object) -> None:
    assert ask(front, "toy.predict", text="ab", times=2)["data"] == "abab"
    assert items(front, "toy.generate", text="g", count=50) == [f"g{number}" for number in range(50)]
    assert items(front, "toy.stream", texts=["a", "b"], mark="?") == ["a?", "b?"]
    failed = ask(front, "toy.fail", text="cats")
    assert failed["code"] == "command_failed"
    assert "cats" not in failed["error"]  # what a model raises stays in the runner's log
    *_, item, last = frames(front, "toy.half", text="h")
    assert (item["data"], last["code"]) == ("h", "command_failed")


@needs_clarifai
def test_clarifais_own_client_calls_it(front: Gateway, toy: object, tmp_path: Path) -> None:
    said = subprocess.run(
        [str(PYTHON), "-c", SDK, front.clarifai_url],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CLARIFAI_PAT": "none"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout.splitlines()[-1]) == {
        "unary": "abab",
        "default": "ab",
        "generate": [f"g{number}" for number in range(5)],
        "stream": ["a?", "b?", "c?"],
        "batch": ["a", "bb"],
        "fail": "Exception",
        "half": "Exception",
    }


def test_who_disconnects_cancels_down_to_the_model(front: Gateway, toy: subprocess.Popen[str]) -> None:
    """The model's own abort callback is called with the id that it knows the item by, and stops it."""
    for number in range(6):  # more than there are threads: none of them stays taken
        reading = frames(front, "toy.hold", name=f"call {number}")
        assert any(frame.get("data") == "begun" for frame in reading)
        reading.close()  # type: ignore[attr-defined]
        assert toy.stdout is not None
        while f"stopped call {number}" not in toy.stdout.readline():
            pass
    front.until_there(4)


def test_who_is_terminated_finishes_its_calls(tmp_path: Path) -> None:
    with gateway() as at, runner(at, threads=2) as process:
        reading = frames(at, "toy.generate", text="g", count=4_000)
        first = [next(reading)["status"] for _ in range(3)]
        assert first[-1] == "streaming"
        process.send_signal(signal.SIGTERM)
        *_, last = reading
        assert last["status"] == "completed"
        assert last["metrics"]["items"] == 4_000
        until(lambda: not any(one["state"] == "connected" for one in at.runners()))


def test_probes_are_answered_where_it_says() -> None:
    with gateway() as at, runner(at, "--health", 0, threads=1) as process:
        assert process.stdout is not None
        while (said := re.search(r"probes at (http://127\.0\.0\.1:\d+)", process.stdout.readline())) is None:
            pass
        until(lambda: httpx.get(f"{said.group(1)}/healthz/readiness").status_code == 200)


def test_a_gateway_that_is_started_again_finds_it() -> None:
    with gateway() as at:
        port = at.clarifai_url.rpartition(":")[2]
        with started("runner", TOY, "--clarifai", at.clarifai_url, *IDS, "--threads", 2) as process:
            at.until_there(2)
            assert ask(at, "toy.predict", text="before")["data"] == "before"
            at.process.kill()
            at.process.wait(PATIENCE_S)
            with started("gateway", "--port", 0, "--clarifai-port", port) as other:
                again = Gateway(other)
                again.until_there(2)
                assert ask(again, "toy.predict", text="after")["data"] == "after"
            process.kill()
