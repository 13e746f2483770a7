"""What the SDK's command line asks for, without a socket."""

from __future__ import annotations

from typing import Any

import pytest
from clarifai_grpc.grpc.api import resources_pb2 as proto
from clarifai_grpc.grpc.api import service_pb2 as service
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from gateway.clarifai.callers import CHAT, ECHO, FakeContext, Site, given, request
from gateway.fakes import World
from penstock.gateway.clarifai import records
from penstock.protocol.clarifai.statuses import name_of

pytestmark = pytest.mark.anyio

USER = proto.UserAppIDSet(user_id="u1")
APP = proto.UserAppIDSet(user_id="u1", app_id="a1")
MODEL = proto.Model(id="toy", user_id="u1", app_id="a1")


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def code(answer: Any) -> str:
    return name_of(answer.status.code)


async def announce(site: Site, key: str = "anna") -> tuple[str, str]:
    """Announce a model as the command line does; return the ids of its version and runner."""
    for name, asked in (
        (
            "PostComputeClusters",
            service.PostComputeClustersRequest(user_app_id=USER, compute_clusters=[{"id": "cc1"}]),
        ),
        (
            "PostNodepools",
            service.PostNodepoolsRequest(
                user_app_id=USER, compute_cluster_id="cc1", nodepools=[{"id": "np1"}]
            ),
        ),
        ("PostApps", service.PostAppsRequest(user_app_id=USER, apps=[{"id": "a1"}])),
        ("PostModels", service.PostModelsRequest(user_app_id=APP, models=[{"id": "toy"}])),
    ):
        assert code(await site.ask(name, asked, key)) == "SUCCESS"
    asked = service.PostModelVersionsRequest(
        user_app_id=APP, model_id="toy", model_versions=[{"num_threads": 3}]
    )
    version = (await site.ask("PostModelVersions", asked, key)).model.model_version.id
    worker = proto.Worker(
        model={"id": "toy", "user_id": "u1", "app_id": "a1", "model_version": {"id": version}}
    )
    where = {"user_app_id": USER, "compute_cluster_id": "cc1", "nodepool_id": "np1"}
    posted = await site.ask(
        "PostRunners", service.PostRunnersRequest(runners=[{"worker": worker}], **where), key
    )
    nodepool = proto.Nodepool(id="np1", compute_cluster={"id": "cc1", "user_id": "u1"})
    deployment = proto.Deployment(id="local-toy", worker=worker, nodepools=[nodepool])
    asked = service.PostDeploymentsRequest(user_app_id=USER, deployments=[deployment])
    assert code(await site.ask("PostDeployments", asked, key)) == "SUCCESS"
    return version, posted.runners[0].id


MISSES = {
    "GetComputeCluster": (
        service.GetComputeClusterRequest(compute_cluster_id="x"),
        "COMPUTE_CLUSTER_DOES_NOT_EXIST",
    ),
    "GetNodepool": (service.GetNodepoolRequest(nodepool_id="x"), "NODEPOOL_DOES_NOT_EXIST"),
    "GetRunner": (service.GetRunnerRequest(runner_id="x"), "RUNNER_DOES_NOT_EXIST"),
    "GetDeployment": (service.GetDeploymentRequest(deployment_id="x"), "DEPLOYMENT_DOES_NOT_EXIST"),
    "GetApp": (service.GetAppRequest(user_app_id=APP), "CONN_DOES_NOT_EXIST"),
    "GetModel": (service.GetModelRequest(model_id="x"), "MODEL_DOES_NOT_EXIST"),
    "GetModelVersion": (service.GetModelVersionRequest(model_id="x"), "MODEL_DOES_NOT_EXIST"),
    "PostModelVersions": (service.PostModelVersionsRequest(model_id="x"), "MODEL_DOES_NOT_EXIST"),
    "PatchModels": (service.PatchModelsRequest(models=[{"id": "x"}]), "MODEL_DOES_NOT_EXIST"),
    "PatchApp": (service.PatchAppRequest(app={"id": "x"}), "CONN_DOES_NOT_EXIST"),
    "PatchDeployments": (
        service.PatchDeploymentsRequest(deployments=[{"id": "x"}]),
        "DEPLOYMENT_DOES_NOT_EXIST",
    ),
    "DeleteModel": (service.DeleteModelRequest(model_id="x"), "MODEL_DOES_NOT_EXIST"),
    "DeleteModelVersion": (service.DeleteModelVersionRequest(model_id="x"), "MODEL_DOES_NOT_EXIST"),
    "DeleteRunners": (service.DeleteRunnersRequest(ids=["x"]), "RUNNER_DOES_NOT_EXIST"),
    "PostRunners": (service.PostRunnersRequest(), "MODEL_INVALID_ARGUMENT"),
    "PostApps": (service.PostAppsRequest(user_app_id=USER, apps=[{}]), "MODEL_INVALID_ARGUMENT"),
    "PostComputeClusters": (
        service.PostComputeClustersRequest(user_app_id=USER, compute_clusters=[{"id": "x" * 300}]),
        "MODEL_INVALID_ARGUMENT",
    ),
}


@pytest.mark.parametrize("rpc", MISSES)
async def test_what_is_not_there_is_said_so(site: Site, rpc: str) -> None:
    asked, status = MISSES[rpc]
    assert code(await site.ask(rpc, asked)) == status


async def test_a_model_is_announced(site: Site) -> None:
    version, runner = await announce(site)
    model = (await site.ask("GetModel", service.GetModelRequest(user_app_id=APP, model_id="toy"))).model
    assert (model.user_id, model.app_id, model.model_version.id) == ("u1", "a1", version)
    assert model.model_version.num_threads == 3
    asked = service.GetModelVersionRequest(user_app_id=APP, model_id="toy", version_id=version)
    assert (await site.ask("GetModelVersion", asked)).model_version.id == version
    asked.version_id = "other"
    assert code(await site.ask("GetModelVersion", asked)) == "MODEL_DOES_NOT_EXIST"
    where = {"user_app_id": USER, "compute_cluster_id": "cc1", "nodepool_id": "np1"}
    found = (await site.ask("GetRunner", service.GetRunnerRequest(runner_id=runner, **where))).runner
    assert (found.nodepool.id, found.nodepool.compute_cluster.user_id) == ("np1", "u1")
    bound = site.clients.bindings.model_of("u1", runner)
    assert bound is not None
    assert (bound.model_id, bound.app_id, bound.version_id, bound.deployment_id) == (
        "toy",
        "a1",
        version,
        "local-toy",
    )
    assert site.clients.bindings.model_of("u2", runner) is None
    assert site.clients.bindings.model_of("u1", "other") is None


async def test_lists(site: Site) -> None:
    version, runner = await announce(site)
    where = {"user_app_id": USER, "compute_cluster_id": "cc1"}
    runners = (await site.ask("ListRunners", service.ListRunnersRequest(nodepool_id="np1", **where))).runners
    assert [each.id for each in runners] == [runner]
    listed = await site.ask("ListNodepools", service.ListNodepoolsRequest(**where))
    assert [each.id for each in listed.nodepools] == ["np1"]
    assert not (await site.ask("ListRunners", service.ListRunnersRequest(nodepool_id="np2", **where))).runners
    asked = service.ListModelVersionsRequest(user_app_id=APP, model_id="toy", per_page=1)
    assert [each.id for each in (await site.ask("ListModelVersions", asked)).model_versions] == [version]
    asked.page = 2
    assert not (await site.ask("ListModelVersions", asked)).model_versions
    models = await site.ask("ListModels", service.ListModelsRequest(user_app_id=APP))
    assert [each.id for each in models.models] == ["toy"]


async def test_patches_take_the_place_of_what_they_name(site: Site) -> None:
    version, _ = await announce(site)
    worker = proto.Worker(model={"id": "toy", "model_version": {"id": "v2"}})
    asked = service.PatchDeploymentsRequest(
        user_app_id=USER, deployments=[{"id": "local-toy", "desired_worker": worker}], action="overwrite"
    )
    (found,) = (await site.ask("PatchDeployments", asked, "anna")).deployments
    assert (found.worker.model.model_version.id, found.nodepools[0].id) == ("v2", "np1")
    asked = service.PatchModelsRequest(user_app_id=APP, models=[{"id": "toy", "description": "new"}])
    assert (await site.ask("PatchModels", asked, "anna")).models[0].description == "new"
    asked = service.PatchAppRequest(user_app_id=APP, app={"id": "a1", "description": "new"})
    assert (await site.ask("PatchApp", asked, "anna")).app.description == "new"
    asked = service.PatchModelVersionsRequest(
        user_app_id=APP, model_id="toy", model_versions=[{"id": version, "description": "new"}]
    )
    (patched,) = (await site.ask("PatchModelVersions", asked, "anna")).model_versions
    assert (patched.description, patched.num_threads) == ("new", 3)


async def test_what_is_deleted_takes_along_what_stands_in_it(site: Site) -> None:
    version, runner = await announce(site)
    asked = service.DeleteModelVersionRequest(user_app_id=APP, model_id="toy", version_id=version)
    assert code(await site.ask("DeleteModelVersion", asked, "anna")) == "SUCCESS"
    model = (await site.ask("GetModel", service.GetModelRequest(user_app_id=APP, model_id="toy"))).model
    assert not model.HasField("model_version")
    await announce(site)
    assert (
        code(
            await site.ask("DeleteModel", service.DeleteModelRequest(user_app_id=APP, model_id="toy"), "anna")
        )
        == "SUCCESS"
    )
    asked = service.ListModelVersionsRequest(user_app_id=APP, model_id="toy")
    assert not (await site.ask("ListModelVersions", asked)).model_versions
    asked = service.DeleteComputeClustersRequest(user_app_id=USER, ids=["cc1"])
    assert code(await site.ask("DeleteComputeClusters", asked, "anna")) == "SUCCESS"
    assert site.clients.bindings.model_of("u1", runner) is None
    asked = service.DeleteDeploymentsRequest(user_app_id=USER, ids=["local-toy"])
    assert code(await site.ask("DeleteDeployments", asked, "anna")) == "SUCCESS"


async def test_only_who_made_it_may_change_it(site: Site) -> None:
    await announce(site, "anna")
    for rpc, asked in {
        "PostModels": service.PostModelsRequest(user_app_id=APP, models=[{"id": "toy"}]),
        "PatchModels": service.PatchModelsRequest(user_app_id=APP, models=[{"id": "toy"}]),
        "DeleteModel": service.DeleteModelRequest(user_app_id=APP, model_id="toy"),
        "DeleteDeployments": service.DeleteDeploymentsRequest(user_app_id=USER, ids=["local-toy"]),
    }.items():
        assert code(await site.ask(rpc, asked, "ben")) == "CONN_INSUFFICIENT_SCOPES"
        assert code(await site.ask(rpc, asked, "admin")) == "SUCCESS"
        await announce(site, "anna")
    found = await site.ask("GetModel", service.GetModelRequest(user_app_id=APP, model_id="toy"), "ben")
    assert code(found) == "SUCCESS"


async def test_who_may_ask(site: Site) -> None:
    asked = service.GetUserRequest(user_app_id={"user_id": "me"})
    assert code(await site.ask("GetUser", asked, "stranger")) == "CONN_KEY_INVALID"
    assert code(await site.ask("GetUser", asked, "runner-1")) == "SUCCESS"


async def test_me_is_whom_the_key_has_made_things_for(site: Site) -> None:
    asked = service.GetUserRequest(user_app_id={"user_id": "me"})
    assert (await site.ask("GetUser", asked, "anna")).user.id == "me"
    await announce(site, "anna")
    assert (await site.ask("GetUser", asked, "anna")).user.id == "u1"
    assert (await site.ask("GetUser", asked, "ben")).user.id == "me"
    mine = service.GetDeploymentRequest(user_app_id={"user_id": "me"}, deployment_id="local-toy")
    assert code(await site.ask("GetDeployment", mine, "anna")) == "SUCCESS"


async def test_the_key_of_a_cluster_is_not_kept(site: Site) -> None:
    asked = service.PostComputeClustersRequest(
        user_app_id=USER, compute_clusters=[{"id": "cc1", "key": {"id": "secret"}}]
    )
    await site.ask("PostComputeClusters", asked, "anna")
    asked = service.GetComputeClusterRequest(user_app_id=USER, compute_cluster_id="cc1")
    assert b"secret" not in (await site.ask("GetComputeCluster", asked)).SerializeToString()


async def test_there_is_room_for_so_many(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORDS_OF_KEY", 3)
    monkeypatch.setattr(records, "MAX_RECORDS", 4)

    async def post(key: str, *names: str) -> str:
        asked = service.PostAppsRequest(user_app_id=USER, apps=[{"id": name} for name in names])
        return code(await site.ask("PostApps", asked, key))

    assert await post("anna", "a", "b", "c") == "SUCCESS"
    assert await post("anna", "d") == "CONN_EXCEEDS_LIMITS"
    assert await post("anna", "a") == "SUCCESS"  # in the place of the one there is
    assert await post("ben", "d") == "SUCCESS"
    assert await post("ben", "e") == "CONN_EXCEEDS_LIMITS"
    monkeypatch.setattr(records, "MAX_RECORDS", 9)
    monkeypatch.setattr(records, "MAX_BYTES_OF_KEY", 1000)
    assert await post("ben", "e" * 200) == "SUCCESS"
    large = service.PostAppsRequest(user_app_id=USER, apps=[{"id": "f", "description": "x" * 1000}])
    assert code(await site.ask("PostApps", large, "ben")) == "CONN_EXCEEDS_LIMITS"
    monkeypatch.setattr(records, "MAX_BYTES", 1000)
    assert code(await site.ask("PostApps", large, "carl")) == "CONN_EXCEEDS_LIMITS"


# -- models that runners have --------------------------------------------------------------------------


async def test_a_model_that_only_a_runner_knows(site: Site) -> None:
    site.native("one", ECHO, CHAT, clarifai_model="toy")
    asked = service.GetModelVersionRequest(user_app_id=APP, model_id="toy")
    version = (await site.ask("GetModelVersion", asked)).model_version
    assert [method.name for method in version.method_signatures] == ["echo", "chat"]
    found = (await site.ask("GetModel", service.GetModelRequest(user_app_id=APP, model_id="toy"))).model
    assert (found.id, found.user_id) == ("toy", "u1")


async def test_a_model_of_clarifais_says_itself_what_its_methods_are(site: Site) -> None:
    site.raw()
    asked = service.GetModelVersionRequest(user_app_id=APP, model_id="toy")
    found = await site.ask("GetModelVersion", asked)
    assert code(found) == "SUCCESS"
    assert not found.model_version.method_signatures


async def test_a_deployment_is_where_its_nodepool_is(site: Site) -> None:
    await announce(site)
    there = site.raw("there", clarifai_nodepool="np1", clarifai_runner="r1")
    site.raw("elsewhere", clarifai_nodepool="np2", clarifai_runner="r2")
    asked = request("toy", "generate", {"text": ""})
    asked.runner_selector.deployment.id = "local-toy"
    asked.runner_selector.deployment.user_id = "u1"
    target = site.clients.services[0]._target(asked)  # type: ignore[attr-defined]
    assert target.route.labels["clarifai_nodepool"] == there.hello.labels["clarifai_nodepool"]
    asked.runner_selector.deployment.id = "other"
    context = FakeContext()
    await site.rpc("StreamModelOutputs")(given(asked), context)
    assert [name_of(each.status.code) for each in context.written] == ["DEPLOYMENT_DOES_NOT_EXIST"]


async def test_a_model_that_was_announced_is_waited_for(site: Site) -> None:
    await announce(site)
    found = await site.ask("PostModelOutputs", request("toy", "predict", {"text": "hi"}))
    assert found.status.code == codes.MODEL_BUSY_PLEASE_RETRY


async def test_the_nodepool_of_a_runner_is_there_though_nobody_has_announced_it(site: Site) -> None:
    site.raw()
    cluster = service.GetComputeClusterRequest(user_app_id=USER, compute_cluster_id="cc1")
    assert (await site.ask("GetComputeCluster", cluster)).compute_cluster.user_id == "u1"
    nodepool = service.GetNodepoolRequest(user_app_id=USER, compute_cluster_id="cc1", nodepool_id="np1")
    assert (await site.ask("GetNodepool", nodepool)).nodepool.compute_cluster.id == "cc1"
    nodepool.user_app_id.user_id = "me"
    assert code(await site.ask("GetNodepool", nodepool)) == "SUCCESS"
    for wrong in ({"nodepool_id": "np2"}, {"compute_cluster_id": "cc2"}, {"user_app_id": {"user_id": "u2"}}):
        asked = service.GetNodepoolRequest(user_app_id=USER, compute_cluster_id="cc1", nodepool_id="np1")
        asked.ClearField(next(iter(wrong)))  # type: ignore[arg-type]
        asked.MergeFrom(service.GetNodepoolRequest(**wrong))  # type: ignore[arg-type]
        assert code(await site.ask("GetNodepool", asked)) == "NODEPOOL_DOES_NOT_EXIST"


async def test_models_are_deleted_together(site: Site) -> None:
    await announce(site)
    asked = service.DeleteModelsRequest(user_app_id=APP, ids=["toy"])
    assert code(await site.ask("DeleteModels", asked, "anna")) == "SUCCESS"
    assert code(await site.ask("DeleteModels", asked, "anna")) == "MODEL_DOES_NOT_EXIST"


SERVED = [
    method
    for method in service.DESCRIPTOR.services_by_name["V2"].methods
    if not method.client_streaming and not method.server_streaming
]


async def test_nothing_that_is_empty_breaks_anything(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    served = [method for method in SERVED if any(hasattr(one, method.name) for one in site.clients.services)]
    assert len(served) == 46
    for method in served:
        found = await site.ask(method.name, getattr(service, method.input_type.name)())
        assert found.DESCRIPTOR is method.output_type
        assert found.status.code != 0
    assert not caplog.records


async def test_what_is_not_served_is_not_there(site: Site) -> None:
    for name in ("PostWorkflows", "GetNothing"):
        assert not any(hasattr(one, name) for one in site.clients.services[1:])
