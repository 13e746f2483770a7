"""Clarifai's own runner process behind a gateway: what it does well, and what is done to it."""

from __future__ import annotations

import base64
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from cli.processes import PATIENCE_S
from gateway.clarifai.real_parts import Gateway, RealRunner, gateway, needs_clarifai, runner, until
from penstock import AsyncClient

pytestmark = needs_clarifai
SOON = {"PENSTOCK_CLARIFAI_KEEPALIVE_S": "1"}


@pytest.fixture(scope="module")
def front() -> Iterator[Gateway]:
    with gateway() as found:
        yield found
        assert found.stop() == 0


@pytest.fixture(scope="module")
def toy(front: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRunner]:
    with runner(front.clarifai_url, tmp_path_factory.mktemp("home")) as found:
        front.until_there(4)
        yield found


def run(at: Gateway, command: str, **given: Any) -> dict[str, Any]:
    """Return the answer of a command, or why there is none."""
    body = {"command": command, "input": given}
    return dict(httpx.post(f"{at.url}/v2/execute", json=body, timeout=PATIENCE_S).json())


def stream(at: Gateway, command: str, **given: Any) -> Iterator[dict[str, Any]]:
    """Yield the frames of a command; whoever leaves disconnects."""
    body = {"command": command, "input": given, "is_stream": True}
    with httpx.stream("POST", f"{at.url}/v2/execute", json=body, timeout=PATIENCE_S) as response:
        for line in response.iter_lines():
            yield json.loads(line)


def data_of(at: Gateway, command: str, **given: Any) -> list[Any]:
    """Return the items of a command."""
    return [frame["data"] for frame in stream(at, command, **given) if frame["status"] == "streaming"]


def last_of(at: Gateway, command: str, **given: Any) -> dict[str, Any]:
    """Return the last frame of a command."""
    return list(stream(at, command, **given))[-1]


def test_methods_of_all_kinds_are_commands(front: Gateway, toy: RealRunner) -> None:
    assert run(front, "toy.predict", text="ab", times=2)["data"] == "abab"
    assert run(front, "toy.predict", text="ab")["data"] == "ab"
    assert data_of(front, "toy.generate", text="g", count=20) == [f"g{number}" for number in range(20)]
    assert data_of(front, "toy.generate", text="g", count=0) == []
    assert data_of(front, "toy.stream", texts=["a", "b", "c"], mark="?") == ["a?", "b?", "c?"]


def test_what_a_model_fails_with_is_told(front: Gateway, toy: RealRunner) -> None:
    failed = run(front, "toy.fail", text="cats")
    assert (failed["code"], failed["error"]) == ("command_failed", "no cats")
    *_, item, last = stream(front, "toy.half", text="h")
    assert item["data"] == "h"
    assert (last["status"], last["code"], last["error"]) == ("error", "command_failed", "half way")
    assert run(front, "toy.predict", text=7)["code"] == "invalid_argument"


def test_a_batch_is_answered_as_one(front: Gateway, toy: RealRunner) -> None:
    request = service_pb2.PostModelOutputsRequest(model_id="toy")
    for text in ("a", "b", "c"):
        data = request.inputs.add().data
        data.metadata.update({"_method_name": "predict"})
        data.parts.add(id="text", data=resources_pb2.Data(string_value=text))
    said = run(front, "toy.PostModelOutputs", request=base64.b64encode(request.SerializeToString()).decode())
    response = service_pb2.MultiOutputResponse.FromString(base64.b64decode(said["data"]["response"]))
    assert response.status.code == codes.SUCCESS
    assert [output.data.parts[0].data.string_value for output in response.outputs] == ["a", "b", "c"]


def test_its_threads_work_at_once(front: Gateway, toy: RealRunner) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(run(front, "toy.meet"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(each["data"] for each in found) == [0, 1, 2, 3]


def test_who_disconnects_cancels_down_to_the_model(front: Gateway, toy: RealRunner) -> None:
    frames = stream(front, "toy.hold", name="by disconnecting")
    assert any(frame.get("data") == "begun" for frame in frames)
    frames.close()  # type: ignore[attr-defined]
    toy.until_printed("stopped by disconnecting")
    frames = stream(front, "toy.hold", name="by task")
    first = next(frames)
    assert any(frame.get("data") == "begun" for frame in frames)
    assert httpx.post(f"{front.url}/tasks/{first['request_id']}/cancel").status_code == 200
    assert list(frames)[-1]["status"] == "cancelled"
    toy.until_printed("stopped by task")


def test_hundreds_of_calls_one_after_the_other(front: Gateway, toy: RealRunner) -> None:
    with httpx.Client(base_url=front.url) as client:
        for number in range(200):
            body = {"command": "toy.predict", "input": {"text": str(number)}}
            assert client.post("/v2/execute", json=body).json()["data"] == str(number)
    front.until_there(4)


@pytest.mark.anyio
async def test_nothing_is_cut_off_of_many_streams_at_once(front: Gateway, toy: RealRunner) -> None:
    """A thread that goes on to its next item cuts off what was not read of the last."""

    async def read(client: AsyncClient, number: int, count: int) -> None:
        async with client.stream("toy.generate", text=f"{number}-", count=count) as stream:
            assert [item async for item in stream] == [f"{number}-{each}" for each in range(count)]

    async with AsyncClient(front.url) as client:
        for calls, count in ((24, 300), (60, 10)):
            async with anyio.create_task_group() as group:
                for number in range(calls):
                    group.start_soon(read, client, number, count)


def begun(at: Gateway) -> Iterator[dict[str, Any]]:
    """Begin a call that does not end by itself."""
    frames = stream(at, "toy.hold", name="lost")
    assert any(frame.get("data") == "begun" for frame in frames)
    return frames


def test_a_runner_that_is_killed_frozen_or_stopped_loses_its_calls(tmp_path: Path) -> None:
    with gateway(**SOON) as at:
        with runner(at.clarifai_url, tmp_path, threads=2) as real:
            at.until_there(2)
            frames = begun(at)
            real.process.send_signal(signal.SIGSTOP)
            assert list(frames)[-1]["code"] == "unavailable"
            real.process.send_signal(signal.SIGCONT)
            assert run(at, "toy.predict", text="again")["data"] == "again"
            frames = begun(at)
            real.process.terminate()
            assert list(frames)[-1]["code"] == "unavailable"
        with runner(at.clarifai_url, tmp_path, threads=2) as real:
            at.until_there(2)
            frames = begun(at)
            real.process.kill()
            assert list(frames)[-1]["code"] == "unavailable"
        assert at.stop() == 0


def test_a_gateway_that_comes_back_is_found_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with gateway("--clarifai-port", port) as at, runner(f"http://127.0.0.1:{port}", tmp_path) as real:
        at.until_there(4)
        assert run(at, "toy.predict", text="one")["data"] == "one"
        at.process.kill()
        at.process.wait(PATIENCE_S)
        with gateway("--clarifai-port", port) as again:
            again.until_there(4)
            assert run(again, "toy.predict", text="two")["data"] == "two"
            until(lambda: any("econnect" in line for line in real.printed))
            frames = stream(again, "toy.hold", name="at the second")
            assert any(frame.get("data") == "begun" for frame in frames)
            frames.close()  # type: ignore[attr-defined]
            real.until_printed("stopped at the second")
            assert real.process.poll() is None
            assert again.stop() == 0
