"""A Clarifai model folder with `penstock runner --gateway`: over our own link."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cli.processes import PATIENCE_S, Penstock, Server, started
from gateway.clarifai.real_parts import TOY, until


@contextmanager
def runner(at: Server, folder: Path, *flags: object) -> Iterator[subprocess.Popen[str]]:
    """A runner of a folder, which the gateway has taken in; it ends well."""
    url = at.url.replace("http", "ws")
    with started("runner", folder, "--gateway", url, "--name", "one", *flags) as process:
        until(lambda: httpx.get(f"{at.url}/readyz").status_code == 200)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.fixture
def front() -> Iterator[Server]:
    with started("gateway", "--port", 0) as process:
        at = Server(process)
        yield at
        assert at.stop() == 0


def frames(at: Server, command: str, **given: object) -> Iterator[dict[str, object]]:
    """Yield the frames of a command; whoever leaves disconnects."""
    body = {"command": command, "input": given, "is_stream": True}
    with httpx.stream("POST", f"{at.url}/v2/execute", json=body, timeout=PATIENCE_S) as response:
        for line in response.iter_lines():
            yield json.loads(line)


def items(at: Server, command: str, **given: object) -> list[object]:
    """Return the items of a command."""
    return [frame["data"] for frame in frames(at, command, **given) if frame["status"] == "streaming"]


def test_its_methods_are_commands_of_the_gateway(front: Server, penstock: Penstock) -> None:
    with runner(front, TOY) as process:
        said = penstock("call", "predict", "text=ab", "times:=2", "--url", front.url)
        assert (said.returncode, said.stdout.strip()) == (0, '"abab"')
        assert items(front, "generate", text="g", count=5) == [f"g{number}" for number in range(5)]
        assert items(front, "stream", texts=["a", "b"], mark="?") == ["a?", "b?"]
        *_, item, last = frames(front, "half", text="h")
        assert (item["data"], last["code"]) == ("h", "command_failed")
        shown = httpx.get(f"{front.url}/v2/commands").json()["commands"]
        assert shown["stream"]["input_schema"]["properties"]["texts"]["x-stream"] is True
        for number in range(3):
            reading = frames(front, "hold", name=f"call {number}")
            assert any(frame.get("data") == "begun" for frame in reading)
            reading.close()  # type: ignore[attr-defined]
            assert process.stdout is not None
            while f"stopped call {number}" not in process.stdout.readline():
                pass


def test_a_folder_with_a_mistake_is_told_of_before_anything_is_dialled(
    penstock: Penstock, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("model:\n  id: bad\nnum_threads: many\n")
    (tmp_path / "model.py").write_text("")
    for link in (("--gateway", "ws://127.0.0.1:1"), ("--clarifai", "http://127.0.0.1:1")):
        said = penstock("runner", tmp_path, *link)
        assert said.returncode == 1
        assert "num_threads: should be a number from 1 on" in said.stderr
