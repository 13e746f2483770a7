"""Recorded conversations of Clarifai's own runner: what the server said is said to ours, which answers alike.

What is compared is what a server acts on: hellos, the ids of items, both statuses, the details that the
author's code wrote, the data of the outputs, their order, and the end of the stream.  Where ours answers
otherwise it stands in ``OTHERWISE``, with the reason.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from google.protobuf import json_format

from behaviour.checks import until
from penstock.runner.clarifai.runner import ClarifaiRunner
from penstock.runtime.app import App
from runner.clarifai.fake_server import Answer, FakeServer, Said, Visit, plain
from runner.clarifai.one_loop import anyio_backend, one_loop
from runner.clarifai.running import running
from runner.clarifai.traced import traced

__all__ = ["anyio_backend", "one_loop"]  # fixtures

pytestmark = pytest.mark.anyio

TRACES = Path(__file__).parent / "traces"
CANCELLED = [("SUCCESS", "REQUEST_CANCELED_BY_USER", "")]
MISTAKE = [("SUCCESS", "MODEL_INVALID_ARGUMENT", "")]
FAULT = [("RUNNER_PROCESSING_FAILED", "RUNNER_PROCESSING_FAILED", "")]

CANCELS = "a cancel is told before the stream ends, as an answer that was cut must not look complete"
CODES = "a caller's mistake has a code of its own, where the recorded runner has FAILURE for everything"

OTHERWISE: dict[tuple[str, int], tuple[str, list[tuple[str, str, str]]]] = {
    ("t02", 3): (CODES, [("SUCCESS", "SUCCESS", "A?"), ("SUCCESS", "SUCCESS", "B?"), *MISTAKE]),
    ("t02", 5): (CODES, [("SUCCESS", "SUCCESS", "A?"), ("SUCCESS", "SUCCESS", "B?"), *MISTAKE]),
    ("t03", 4): (CODES, MISTAKE),
    ("t03", 5): (CODES, MISTAKE),
    ("t03", 6): (CODES, MISTAKE),
    ("t03", 7): (
        "an answer is one output; the recorded runner sends each letter",
        [("SUCCESS", "SUCCESS", "AA")],
    ),
    ("t03", 13): ("what cannot be served is told; the recorded runner half-closes in silence", FAULT),
    ("t03", 14): ("what cannot be served is told; the recorded runner hangs", FAULT),
    ("t06", 1): (CANCELS, CANCELLED),
    ("t06", 3): ("what was cancelled before it came is answered; the recorded runner hangs", CANCELLED),
    ("t06", 4): (CANCELS, [*(("SUCCESS", "SUCCESS", f"x-{number}") for number in range(5)), *CANCELLED]),
    ("t20", 13): (CANCELS, [*(("SUCCESS", "SUCCESS", f"c-{number}") for number in range(3)), *CANCELLED]),
}
SERVER_ENDS = {
    ("t02", 4): "its item is still there when the next one of the same id comes, which ours refuses",
    ("t02", 9): "the recorded server ends it here",
}


class Heard(NamedTuple):
    """What a server acts on in a message."""

    item_id: str
    code: str
    inner: str
    details: str
    data: list[Any]


def heard(message: dict[str, Any]) -> Heard:
    """Return what matters of an output."""
    [output] = message["runner_item_outputs"]
    response = output["multi_output_response"]
    inner = response["status"]["code"]
    return Heard(
        message.get("runner_item_id", ""),
        message["status"]["code"],
        inner,
        response["status"].get("details", "") if inner == "FAILURE" else "",
        [_known(each["data"]) for each in response.get("outputs", ())],
    )


def _known(data: dict[str, Any]) -> Any:
    """Return the data of an output; signatures are compared as what they say."""
    text = data.get("text", {}).get("raw")
    if text is None:
        return data
    found = json.loads(text)
    for method in found.values():
        for field in (*method["inputFields"], *method["outputFields"]):
            field.pop("required", None)  # the recorded one leaves it out here and there
    mixed = found.pop("mixed")  # the recorded model says JSON and a list, and both may be null
    assert [field["name"] for field in mixed["inputFields"]] == ["a", "b"]
    return found


def short(said: Heard) -> tuple[str, str, str]:
    """Return what stands in ``OTHERWISE``."""
    texts = [part["data"]["string_value"] for data in said.data for part in data["parts"]]
    return said.code, said.inner, "".join(texts)


class Replay:
    """Says what the recorded server said, row by row, and keeps what comes back."""

    def __init__(self, name: str, server: FakeServer, runner: ClarifaiRunner) -> None:
        self.name = name
        self.server = server
        self.runner = runner
        self.rows = json.loads(next(TRACES.glob(f"{name}_*.json")).read_text())
        self.visits: dict[int, Visit] = {}
        self.ours: dict[int, list[Heard]] = defaultdict(list)
        self.theirs: dict[int, list[Heard]] = defaultdict(list)
        self.worked: set[int] = set()

    async def run(self) -> None:
        """Replay it all."""
        control = await self.server.control()
        controls = {row["stream"] for row in self.rows if _hello(row).startswith("control-")}
        for row in self.rows:
            stream, said = row.get("stream"), row.get("dir")
            if stream is None:
                continue
            if said == "gw->runner":
                await self._say(
                    control if stream in controls else await self._visit(stream), row["msg"], stream
                )
            elif said == "runner->gw" and "runner_item_outputs" in row["msg"]:
                await self._hear(stream, row["msg"])
            elif stream in self.visits and said in ("runner-half-close", "gw-abort", "rpc-termination"):
                await self._end(stream, said)

    async def _visit(self, stream: int) -> Visit:
        if stream not in self.visits:
            self.visits[stream] = await self.server.visit()
        return self.visits[stream]

    async def _say(self, visit: Visit, message: dict[str, Any], stream: int) -> None:
        answer = json_format.ParseDict(message, Answer())
        if answer.status.code == codes.SUCCESS and answer.runner_items:
            self.worked.add(stream)
        await visit.say(answer)

    async def _hear(self, stream: int, message: dict[str, Any]) -> None:
        self.theirs[stream].append(heard(message))
        _, expected = OTHERWISE.get((self.name, stream), ("", None))
        fine = None if expected is None else sum(inner == "SUCCESS" for _, inner, _ in expected)
        if fine is None or len(self.ours[stream]) < fine:
            self.ours[stream].append(self._ours(await self.visits[stream].hear()))
        if (self.name, stream) in SERVER_ENDS and len(self.theirs[stream]) == 3:
            await self._end(stream, "rpc-termination")

    async def _end(self, stream: int, said: str) -> None:
        visit, key = self.visits.pop(stream), (self.name, stream)
        if key in SERVER_ENDS or (said != "runner-half-close" and key not in OTHERWISE):
            if stream in self.worked or self.theirs[stream]:
                visit.end(grpc.StatusCode.CANCELLED if said == "gw-abort" else None)
            await visit.ended()  # what is no work the runner ends by itself
            await until(lambda: not self.runner.items, lambda: self.runner.items)
            return
        self.ours[stream] += map(self._ours, await visit.hear_all())
        visit.end()

    def _ours(self, said: Said) -> Heard:
        assert not said.runner_item_outputs[0].multi_output_response.status.stack_trace
        return heard(plain(said))

    def compare(self) -> int:
        """Compare what was said; returns how many outputs were."""
        for stream in sorted(self.theirs.keys() | self.ours.keys()):
            key = (self.name, stream)
            if key in OTHERWISE:
                why, expected = OTHERWISE[key]
                assert list(map(short, self.ours[stream])) == expected, why
            else:
                assert self.ours[stream] == self.theirs[stream], key
        return sum(map(len, self.ours.values()))


def _hello(row: dict[str, Any]) -> str:
    message = row.get("msg", {})
    is_hello = message.get("status", {}).get("code") == "RUNNER_STREAM_START"
    return message.get("runner_id", "") if is_hello else ""


@pytest.mark.parametrize(
    ("name", "outputs"), [("t00", 0), ("t01", 1), ("t02", 21), ("t03", 15), ("t06", 15), ("t20", 23)]
)
async def test_a_recorded_conversation(name: str, outputs: int) -> None:
    server = FakeServer()
    await server.start()
    async with running(server, app=App(traced()), threads=6, chance=lambda: 0.0) as runner:
        replay = Replay(name, server, runner)
        await replay.run()
        assert replay.compare() == outputs
        theirs = [row["msg"] for row in replay.rows if _hello(row) and row["dir"] == "runner->gw"]
        await server.visit()
        ours = [plain(visit.hello) for visit in server.visits]
        assert _forms(ours) == _forms(theirs)
    await server.stop()


def _forms(hellos: list[dict[str, Any]]) -> set[str]:
    """Return the hellos there are, less the id of the process, which is one for all of them."""
    assert len({hello["runner_replica_id"] for hello in hellos}) == 1
    return {json.dumps({**hello, "runner_replica_id": ""}, sort_keys=True) for hello in hellos}
