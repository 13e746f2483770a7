"""What was recorded between Clarifai's SDK, a gateway and a runner, said again; and in which order the SDK's
command line asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from clarifai_grpc.grpc.api import service_pb2 as service
from google.protobuf.json_format import ParseDict

from gateway.clarifai.callers import FakeContext, Request, Response, Site, given, raw_item
from gateway.clarifai.test_clarifai_calls import cancelled, opened
from gateway.fakes import WAIT_S, World, turns
from penstock.calls.tasks import TaskOwner
from penstock.protocol.clarifai import raw
from penstock.protocol.clarifai.statuses import name_of
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import Input

pytestmark = pytest.mark.anyio

TRACES = Path(__file__).with_name("traces")
ROWS: list[dict[str, Any]] = json.loads((TRACES / "t20_client.json").read_text())


def of(item: str, direction: str) -> list[dict[str, Any]]:
    """Return the messages of an item that went one way."""
    return [row["msg"] for row in ROWS if row.get("item") == item and row["dir"] == direction]


def outputs_of(item: str) -> list[Response]:
    """Return what the runner gave."""
    said = [row["msg"] for row in ROWS if row.get("dir") == "runner->gw"]
    return [
        ParseDict(output["multi_output_response"], Response())
        for message in said
        if message["runner_item_id"] == item
        for output in message["runner_item_outputs"]
    ]


def told(message: Response) -> Response:
    """Return what a client is told, but for the request's id, which is each gateway's own."""
    found = Response()
    found.CopyFrom(message)
    assert found.status.req_id
    found.status.req_id = ""
    return found


ASKED = [row for row in ROWS if row.get("first")]
GONE = next(row["note"].split()[-1] for row in ROWS if "client went away" in row.get("note", ""))


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


@pytest.mark.parametrize("row", ASKED, ids=lambda row: f"{row['rpc']}-{row['item'][:6]}")
async def test_a_conversation_that_was_recorded(site: Site, row: dict[str, Any]) -> None:
    rpc, item = row["rpc"], row["item"]
    requests = [ParseDict(message, Request()) for message in of(item, "client->gw")]
    runner = site.raw("r1-x", clarifai_model="r1")
    context = FakeContext(**{"x-clarifai-request-id-prefix": "sdk-python-12.5.0"})
    context.left = 9.2e18
    asked = given(*requests) if rpc.startswith("Stream") else requests[0]
    tasks = TaskOwner()
    work = tasks.start(site.rpc(rpc)(asked, context), awaited=True)
    (call,) = await opened(runner)
    assert raw.read_request(call.input) == requests[0]
    assert call.command == f"r1.{rpc}"
    with anyio.fail_after(WAIT_S):
        while len(more := [each for each in runner.heard if isinstance(each, Input)]) < len(requests) - 1:
            await runner.listen()
    assert [raw.read_request(each.item) for each in more] == requests[1:]
    expected = [ParseDict(message, Response()) for message in of(item, "gw->client")]
    for message in expected:
        message.status.req_id = ""
    outputs = outputs_of(item)
    if rpc == "PostModelOutputs":
        runner.end(call.request_id, answer=json.dumps(raw_item(outputs[0])).encode())
        with anyio.fail_after(WAIT_S):
            assert [told(await work)] == expected
        return
    runner.item(call.request_id, *map(raw_item, outputs[: len(expected)]))
    if item == GONE:
        while len(context.written) < len(expected):
            await turns()
        work.cancel()
        assert await cancelled(runner, call) is CancelReason.DISCONNECT
    else:
        runner.end(call.request_id)
        with anyio.fail_after(WAIT_S):
            await work
    assert list(map(told, context.written)) == expected


async def test_what_the_client_asks_first(site: Site) -> None:
    site.raw("r1-x", clarifai_model="r1")
    for row in ROWS:
        if row.get("dir") == "unary":
            asked = ParseDict(row["request"], getattr(service, f"{row['rpc']}Request")())
            found = await site.ask(row["rpc"], asked)
            assert name_of(found.status.code) == row["response"]["status"]["code"]


USER, APP = {"user_id": "u1"}, {"user_id": "u1", "app_id": "a1"}
CLUSTER_ID = "local-runner-compute-cluster"
CLUSTER = {"compute_cluster_id": CLUSTER_ID}
NODEPOOL = {**CLUSTER, "nodepool_id": "local-runner-nodepool"}
WORKER = {"model": {"id": "toy", "user_id": "u1", "app_id": "a1", "model_version": {"id": "v1"}}}
FIRST_RUN: list[tuple[str, dict[str, Any], bool]] = [
    ("GetComputeCluster", {"user_app_id": USER, **CLUSTER}, False),
    (
        "PostComputeClusters",
        {"user_app_id": USER, "compute_clusters": [{"id": CLUSTER["compute_cluster_id"]}]},
        True,
    ),
    ("GetComputeCluster", {"user_app_id": USER, **CLUSTER}, True),
    ("GetNodepool", {"user_app_id": USER, **NODEPOOL}, False),
    ("PostNodepools", {"user_app_id": USER, **CLUSTER, "nodepools": [{"id": NODEPOOL["nodepool_id"]}]}, True),
    ("GetApp", {"user_app_id": APP}, False),
    ("PostApps", {"user_app_id": USER, "apps": [{"id": "a1"}]}, True),
    ("GetModel", {"user_app_id": APP, "model_id": "toy"}, False),
    ("PostModels", {"user_app_id": APP, "models": [{"id": "toy"}]}, True),
    ("GetModel", {"user_app_id": APP, "model_id": "toy"}, True),
    ("PostModelVersions", {"user_app_id": APP, "model_id": "toy", "model_versions": [{"id": "v1"}]}, True),
    ("GetModel", {"user_app_id": APP, "model_id": "toy", "version_id": "v1"}, True),
    ("GetDeployment", {"user_app_id": USER, "deployment_id": "local-toy"}, False),
    ("PostRunners", {"user_app_id": USER, **NODEPOOL, "runners": [{"worker": WORKER}]}, True),
    ("GetDeployment", {"user_app_id": USER, "deployment_id": "local-toy"}, False),
    ("PostDeployments", {"user_app_id": USER, "deployments": [{"id": "local-toy", "worker": WORKER}]}, True),
]
SECOND_RUN: list[tuple[str, dict[str, Any], bool]] = [
    ("GetComputeCluster", {"user_app_id": USER, **CLUSTER}, True),
    ("GetNodepool", {"user_app_id": USER, **NODEPOOL}, True),
    ("GetApp", {"user_app_id": APP}, True),
    ("PatchApp", {"user_app_id": APP, "app": {"id": "a1"}, "action": "overwrite"}, True),
    ("GetModel", {"user_app_id": APP, "model_id": "toy"}, True),
    ("PatchModels", {"user_app_id": APP, "models": [{"id": "toy"}], "action": "overwrite"}, True),
    ("ListRunners", {"user_app_id": USER, **NODEPOOL}, True),
    ("GetDeployment", {"user_app_id": USER, "deployment_id": "local-toy"}, True),
    (
        "PatchDeployments",
        {"user_app_id": USER, "deployments": [{"id": "local-toy", "desired_worker": WORKER}]},
        True,
    ),
]


async def test_what_the_command_line_asks(site: Site) -> None:
    for rpc, asked, there in FIRST_RUN + SECOND_RUN:
        found = await site.ask(rpc, getattr(service, f"{rpc}Request")(**asked), "anna")
        assert (name_of(found.status.code) == "SUCCESS") is there, rpc
