"""Submitting, scaling, keeping, connecting and tidying up, against the fake cluster."""

import base64
import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import manifests
import pytest
import yaml
from fake import FakeCluster
from fake.operator import take_up

from raystack.errors import LaunchError
from raystack.kuberay.actions.gc import OWN, collect, idle, sweep
from raystack.kuberay.actions.scale import operations, scale, scale_service
from raystack.kuberay.actions.submit import preview, submit
from raystack.kuberay.api.client import Client
from raystack.kuberay.observe.archive import archive_logs
from raystack.kuberay.observe.connect import connect

pytestmark = pytest.mark.kube


@pytest.fixture
def client(cluster: FakeCluster) -> Client:
    return Client(kubeconfig=str(cluster.kubeconfig))


def test_helpers_come_first_and_belong_to_the_job(cluster: FakeCluster, client: Client) -> None:
    assert submit(client, [manifests.rayjob(), manifests.configmap()], wait_s=0) == "digits"
    job, code = cluster.get("RayJob", "digits"), cluster.get("ConfigMap", "digits-code")
    assert job is not None
    assert code is not None
    assert [owner["uid"] for owner in code["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]
    sent = [
        request for request in cluster.requests if request.startswith("PATCH") and "dryRun" not in request
    ]
    assert ["rayjobs" in request for request in sent] == [False, True, False]


def test_nothing_is_written_where_one_is_refused(cluster: FakeCluster, client: Client) -> None:
    with pytest.raises(LaunchError, match="entrypiont"):
        submit(client, [manifests.configmap(), manifests.rayjob(entrypiont="x")])
    assert cluster.get("ConfigMap", "digits-code") is None


def test_what_the_operator_finds_invalid_is_told_and_deleted(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = client.apply

    def and_the_operator_answers(
        obj: manifests.Object, *, dry_run: bool = False, force: bool = False
    ) -> manifests.Object:
        made = apply(obj, dry_run=dry_run, force=force)
        if obj["kind"] == "RayCluster" and not dry_run:
            cluster.event("RayCluster", "one", "InvalidRayClusterSpec", "the head has no container")
        return made

    monkeypatch.setattr(client, "apply", and_the_operator_answers)
    with pytest.raises(LaunchError, match="the head has no container"):
        submit(client, [manifests.raycluster()])
    assert cluster.get("RayCluster", "one") is None


def test_what_was_invalid_once_may_be_mended(cluster: FakeCluster, client: Client) -> None:
    submit(client, [manifests.rayservice()], wait_s=0)
    cluster.event("RayService", "model", "InvalidRayServiceSpec", "the head has no container")
    submit(client, [manifests.rayservice(serveConfigV2="applications: [{}]\n")], wait_s=0)
    assert (cluster.get("RayService", "model") or {})["spec"]["serveConfigV2"] == "applications: [{}]\n"


def test_a_change_is_listened_to_until_the_operator_has_seen_it(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had said of the version before is no answer to this one."""
    submit(client, [manifests.raycluster()], wait_s=0)
    cluster.set_status("RayCluster", "one", {"state": "ready", "observedGeneration": 1})
    apply = client.apply

    def and_the_operator_answers_late(
        obj: manifests.Object, *, dry_run: bool = False, force: bool = False
    ) -> manifests.Object:
        made = apply(obj, dry_run=dry_run, force=force)
        if not dry_run:
            threading.Timer(
                0.5,
                cluster.event,
                ("RayCluster", "one", "InvalidRayClusterSpec", "the head has no container"),
            ).start()
        return made

    monkeypatch.setattr(client, "apply", and_the_operator_answers_late)
    with pytest.raises(LaunchError, match="the head has no container; apply what was there before"):
        submit(client, [manifests.raycluster(replicas=2)], wait_s=20)


def test_applying_again_leaves_the_autoscalers_numbers(cluster: FakeCluster, client: Client) -> None:
    config = manifests.raycluster(replicas=None, autoscaling=True)
    submit(client, [config], wait_s=0)
    now = [{"op": "replace", "path": "/spec/workerGroupSpecs/0/replicas", "value": 5}]
    client.patch("RayCluster", "one", now, manager="ray-autoscaler")
    config["spec"]["workerGroupSpecs"][0]["maxReplicas"] = 9
    (change,) = preview(client, [config])["raycluster/one"]
    assert (change.path, change.after, change.effect) == (
        "spec.workerGroupSpecs[workers].maxReplicas",
        9,
        "in place",
    )
    submit(client, [config], wait_s=0)
    live = cluster.get("RayCluster", "one")
    assert live is not None
    assert [live["spec"]["workerGroupSpecs"][0][key] for key in ("replicas", "maxReplicas")] == [5, 9]


WITH_CLUSTER = {
    "RayCluster": (manifests.raycluster, "one"),
    "RayJob": (manifests.rayjob, "digits"),
    "RayService": (manifests.rayservice, "model"),
}


def groups_of(obj: Any) -> Any:
    spec = obj["spec"]
    return (spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec)["workerGroupSpecs"]


@pytest.mark.parametrize("kind", WITH_CLUSTER)
def test_what_the_operator_merely_wrote_back_is_taken_over(
    cluster: FakeCluster, client: Client, kind: str
) -> None:
    make, name = WITH_CLUSTER[kind]
    manifest = make()
    groups_of(manifest)[0]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "0.5"}}
    for image in ("ray:1", "ray:2", "ray:3"):
        groups_of(manifest)[0]["template"]["spec"]["containers"][0]["image"] = image
        submit(client, [manifest], wait_s=0)
        take_up(cluster, kind, name)
        live = cluster.get(kind, name)
        assert groups_of(live)[0]["template"]["spec"]["containers"][0]["image"] == image


def test_the_same_again_changes_nothing_that_runs(cluster: FakeCluster, client: Client) -> None:
    submit(client, [manifests.rayservice()], wait_s=0)
    taken = take_up(cluster, "RayService", "model")
    assert preview(client, [manifests.rayservice()]) == {"rayservice/model": []}
    submit(client, [manifests.rayservice()], wait_s=0)
    live = cluster.get("RayService", "model") or {}
    assert groups_of(live) == [
        {key: value for key, value in group.items() if key != "scaleStrategy"} for group in groups_of(taken)
    ]
    submit(client, [manifests.rayservice()], wait_s=0)
    assert cluster.get("RayService", "model") == live


def test_what_belongs_to_the_main_object_still_does(cluster: FakeCluster, client: Client) -> None:
    sent = [manifests.configmap(), manifests.rayservice()]
    submit(client, sent, wait_s=0)
    take_up(cluster, "RayService", "model")
    assert preview(client, sent) == {"configmap/digits-code": [], "rayservice/model": []}


def test_an_edit_of_somebody_is_told_before_and_refused_after(cluster: FakeCluster, client: Client) -> None:
    submit(client, [manifests.rayservice()], wait_s=0)
    take_up(cluster, "RayService", "model")
    edit = [{"op": "replace", "path": "/spec/rayClusterConfig/workerGroupSpecs/0/replicas", "value": 3}]
    edited = client.patch("RayService", "model", edit, manager="kubectl-edit")
    changed = manifests.rayservice(serveConfigV2="applications: [{}]\n")
    expected = [
        ("spec.rayClusterConfig.workerGroupSpecs[workers].replicas", "refused", "it is set by kubectl-edit"),
        ("spec.serveConfigV2", "in place", "Serve updates its applications"),
    ]
    found = preview(client, [changed])["rayservice/model"]
    assert sorted((change.path, change.effect, change.why) for change in found) == expected
    with pytest.raises(LaunchError, match=r"workerGroupSpecs is set by kubectl-edit") as raised:
        submit(client, [changed], wait_s=0)
    assert len(raised.value.problems) == 1
    assert cluster.get("RayService", "model") == edited
    submit(client, [changed], force=True, wait_s=0)
    assert preview(client, [changed]) == {"rayservice/model": []}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("manager", "refused"), [(None, False), ("kubectl-edit", True), ("argocd-controller", True)]
)
def test_what_a_preview_promises_is_what_a_submission_does(
    cluster: FakeCluster, client: Client, manager: str | None, refused: bool, force: bool
) -> None:
    """`render --diff` and the submission go by one policy: the operator's write-back is taken over, what
    somebody else has set is refused, unless it is forced.
    """
    submit(client, [manifests.rayservice()], wait_s=0)
    take_up(cluster, "RayService", "model")
    if manager is not None:
        edit = [{"op": "replace", "path": "/spec/rayClusterConfig/workerGroupSpecs/0/replicas", "value": 3}]
        client.patch("RayService", "model", edit, manager=manager)
    changed = manifests.rayservice(rayClusterConfig=manifests.cluster_spec(replicas=2))
    promised = preview(client, [changed], force=force)["rayservice/model"]
    assert any(change.effect == "refused" for change in promised) == (refused and not force)
    if refused and not force:
        with pytest.raises(LaunchError, match=f"is set by {manager}"):
            submit(client, [changed], wait_s=0)
    else:
        submit(client, [changed], force=force, wait_s=0)
        assert groups_of(cluster.get("RayService", "model"))[0]["replicas"] == 2


def test_an_edit_is_taken_over_by_applying_as_raystack_by_force(
    cluster: FakeCluster, client: Client, kubectl: Callable[..., Any]
) -> None:
    submit(client, [manifests.rayservice()], wait_s=0)
    edit = [{"op": "replace", "path": "/spec/rayClusterConfig/workerGroupSpecs/0/replicas", "value": 3}]
    client.patch("RayService", "model", edit, manager="kubectl-edit")
    words = ("apply", "--server-side", "--field-manager=raystack", "--force-conflicts", "-f", "-")
    kubectl(*words, stdin=json.dumps(manifests.rayservice()))
    take_up(cluster, "RayService", "model")
    changed = manifests.rayservice(rayClusterConfig=manifests.cluster_spec(replicas=2))
    submit(client, [changed], wait_s=0)
    assert groups_of(cluster.get("RayService", "model"))[0]["replicas"] == 2


def test_what_is_invalid_and_may_not_be_deleted_is_said_to_be_there(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.forbid("delete", "rayjobs")
    threading.Thread(target=_refuse, args=(cluster,), daemon=True).start()
    with pytest.raises(
        LaunchError,
        match=(
            r"backoffLimit is negative; it is still there, as it cannot be deleted: .*cannot delete resource"
        ),
    ):
        submit(client, [manifests.rayjob()], wait_s=20)
    assert cluster.get("RayJob", "digits") is not None


def _refuse(cluster: FakeCluster) -> None:
    """As the operator refuses the RayJob `digits`, once it is there."""
    while cluster.get("RayJob", "digits") is None:
        time.sleep(0.02)
    cluster.set_status(
        "RayJob", "digits", {"jobDeploymentStatus": "ValidationFailed", "message": "backoffLimit is negative"}
    )


def test_an_edit_that_the_operator_wrote_back_is_still_an_edit(cluster: FakeCluster, client: Client) -> None:
    """The operator owns the list then, and nothing in managedFields says that somebody has changed it."""
    submit(client, [manifests.rayservice()], wait_s=0)
    groups = groups_of(manifests.rayservice(rayClusterConfig=manifests.cluster_spec(replicas=3)))
    client.patch(
        "RayService",
        "model",
        {"spec": {"rayClusterConfig": {"workerGroupSpecs": groups}}},
        manager="kubectl-edit",
    )
    edited = take_up(cluster, "RayService", "model")
    assert "kubectl-edit" not in str(edited["metadata"]["managedFields"])
    with pytest.raises(
        LaunchError, match=r"workerGroupSpecs was changed by somebody after raystack had applied it"
    ):
        submit(client, [manifests.rayservice()], wait_s=0)
    assert cluster.get("RayService", "model") == edited


def test_what_others_apply_too_is_theirs_to_give_up(
    cluster: FakeCluster, client: Client, kubectl: Callable[..., Any]
) -> None:
    submit(client, [manifests.rayservice()], wait_s=0)
    words = ("apply", "--server-side", "--field-manager=argocd-controller", "-f", "-")
    refused = kubectl(*words, stdin=json.dumps(manifests.rayservice()), fails=True).stderr
    assert 'conflict with "raystack": .spec.rayClusterConfig.workerGroupSpecs' in refused
    kubectl(*words, "--force-conflicts", stdin=json.dumps(manifests.rayservice()))
    with pytest.raises(LaunchError, match=r"serveConfigV2 is set by argocd-controller"):
        submit(client, [manifests.rayservice(serveConfigV2="applications: [{}]\n")], wait_s=0)


def test_a_number_that_the_autoscaler_sets_hides_no_edit(cluster: FakeCluster, client: Client) -> None:
    config = manifests.raycluster(replicas=None, autoscaling=True)
    submit(client, [config], wait_s=0)
    take_up(cluster, "RayCluster", "one")

    def patch(field: str, value: int, manager: str) -> None:
        client.patch(
            "RayCluster",
            "one",
            [{"op": "replace", "path": f"/spec/workerGroupSpecs/0/{field}", "value": value}],
            manager=manager,
        )

    patch("replicas", 5, "python-requests")
    config["spec"]["workerGroupSpecs"][0]["maxReplicas"] = 9
    submit(client, [config], wait_s=0)
    patch("maxReplicas", 7, "kubectl-edit")
    with pytest.raises(LaunchError, match=r"workerGroupSpecs is set by kubectl-edit"):
        submit(client, [config], wait_s=0)


def test_an_apply_that_the_operator_was_quicker_than_is_tried_again(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(client, [manifests.rayservice()], wait_s=0)
    take_up(cluster, "RayService", "model")
    apply, quick = client.apply, iter(range(2))

    def and_the_operator_is_quick(
        obj: manifests.Object, *, dry_run: bool = False, force: bool = False
    ) -> manifests.Object:
        if force and not dry_run and (count := next(quick, None)) is not None:
            cluster.set_status("RayService", "model", {"observedGeneration": count})
        return apply(obj, dry_run=dry_run, force=force)

    monkeypatch.setattr(client, "apply", and_the_operator_is_quick)
    submit(client, [manifests.rayservice(serveConfigV2="applications: [{}]\n")], wait_s=0)
    assert (cluster.get("RayService", "model") or {})["spec"]["serveConfigV2"] == "applications: [{}]\n"
    assert next(quick, None) is None


def test_scale_patches_one_number_and_its_bounds(cluster: FakeCluster, client: Client) -> None:
    client.apply(manifests.raycluster())
    scale(client, "one", 12)
    live = cluster.get("RayCluster", "one")
    assert live is not None
    assert [
        live["spec"]["workerGroupSpecs"][0][key] for key in ("minReplicas", "replicas", "maxReplicas")
    ] == [0, 12, 12]
    with pytest.raises(LaunchError, match="change minReplicas and maxReplicas"):
        operations(manifests.raycluster(autoscaling=True), 2)
    with pytest.raises(LaunchError, match="no such group"):
        operations(manifests.raycluster(), 2, "gpu")


def serves(replicas: int, memory: str = "1Gi", **deployment: Any) -> Any:
    """A RayService with a worker for each replica, as it is rendered."""
    options = {"name": "model", "num_replicas": replicas, **deployment}
    config = {"applications": [{"name": "model", "deployments": [options]}]}
    made = manifests.rayservice(serveConfigV2=yaml.safe_dump(config, sort_keys=False, width=1000))
    group = groups_of(made)[0]
    group.update(replicas=replicas, minReplicas=replicas, maxReplicas=replicas)
    group["template"]["spec"]["containers"][0]["resources"] = {"limits": {"memory": memory}}
    return made


def numbers(service: Any) -> tuple[int, int]:
    """Its workers and replicas."""
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (deployment,) = config["applications"][0]["deployments"]
    return groups_of(service)[0]["replicas"], deployment["num_replicas"]


def test_a_service_is_scaled_with_its_replicas_and_an_update_keeps_that(
    cluster: FakeCluster, client: Client
) -> None:
    submit(client, [serves(1)], wait_s=0)
    take_up(cluster, "RayService", "model")
    cluster.put(manifests.raycluster("model-x"))
    cluster.set_status("RayService", "model", {"activeServiceStatus": {"rayClusterName": "model-x"}})

    def live() -> Any:
        return cluster.get("RayService", "model")

    scale_service(client, live(), 3)
    assert numbers(live()) == (3, 3)
    assert groups_of(live())[0]["maxReplicas"] == 3
    assert groups_of(cluster.get("RayCluster", "model-x"))[0]["replicas"] == 3
    assert preview(client, [serves(1)]) == {"rayservice/model": []}
    (change,) = preview(client, [serves(1, "2Gi")])["rayservice/model"]
    assert (change.effect, change.after) == ("new cluster", "2Gi")
    submit(client, [serves(1, "2Gi")], wait_s=0)
    assert numbers(live()) == (3, 3)
    scale_service(client, live(), 2)
    submit(client, [serves(1)], wait_s=0)
    assert numbers(live()) == (2, 2)
    submit(client, [serves(4)], wait_s=0)  # another number in the config is a decision of its own
    assert numbers(live()) == (4, 4)
    submit(client, [serves(1)], wait_s=0)
    assert numbers(live()) == (1, 1)
    with pytest.raises(LaunchError, match="a service needs a worker"):
        scale_service(client, live(), 0)
    with pytest.raises(LaunchError, match="Serve sets the number of the replicas of model by their load"):
        scale_service(client, serves(1, autoscaling_config={"max_replicas": 2}), 2)


def several() -> Any:
    """A RayService of two models with two replicas each, one that Serve scales, and what answers for all."""
    options: dict[str, dict[str, Any]] = {"a": {"num_replicas": 2}, "b": {"num_replicas": 2}}
    options |= {"c": {"autoscaling_config": {"max_replicas": 2}}}
    needs = {"cpus_per_replica": 1, "gpus_per_replica": 0}
    nothing = {"cpus_per_replica": 0, "gpus_per_replica": 0}
    apps = [{"name": name, "args": needs, "deployments": [each]} for name, each in options.items()]
    apps.append({"name": "_server", "args": nothing, "deployments": [{"num_replicas": 1}]})
    made = serves(6)
    made["spec"]["serveConfigV2"] = yaml.safe_dump({"applications": apps}, sort_keys=False, width=1000)
    return made


def test_one_of_several_models_is_scaled_and_an_update_keeps_that(
    cluster: FakeCluster, client: Client
) -> None:
    submit(client, [several()], wait_s=0)

    def replicas() -> list[int | None]:
        config = yaml.safe_load((cluster.get("RayService", "model") or {})["spec"]["serveConfigV2"])
        return [each["deployments"][0].get("num_replicas") for each in config["applications"]]

    def scaled(workers: int, model: str | None = None) -> None:
        scale_service(client, cluster.get("RayService", "model") or {}, workers, model=model)

    scaled(9, "b")
    assert replicas() == [2, 5, None, 1]
    submit(client, [several()], wait_s=0)
    assert replicas() == [2, 5, None, 1]
    scaled(8, "a")
    assert replicas() == [1, 5, None, 1]
    with pytest.raises(LaunchError, match=r"3 models, .* say which one: --model a or b or c"):
        scaled(9)
    with pytest.raises(LaunchError, match=r"no such model .* it has a, b, c"):
        scaled(9, "mode")
    with pytest.raises(LaunchError, match="replicas of c by their load"):
        scaled(9, "c")
    with pytest.raises(
        LaunchError, match=r"a has 1 replicas, and would have none \(got 7\); leave at least 8"
    ):
        scaled(7, "a")


def test_a_group_of_a_service_is_scaled(cluster: FakeCluster, client: Client) -> None:
    two = serves(2)
    groups_of(two).append({**groups_of(two)[0], "groupName": "spot"})
    submit(client, [two], wait_s=0)
    with pytest.raises(LaunchError, match="say which one: --group NAME"):
        scale_service(client, two, 4)
    scale_service(client, cluster.get("RayService", "model") or {}, 4, "spot")
    live = cluster.get("RayService", "model") or {}
    assert [group["replicas"] for group in groups_of(live)] == [2, 4]
    assert numbers(live) == (2, 3)
    assert preview(client, [two]) == {"rayservice/model": []}


def test_scaling_hides_no_edit(cluster: FakeCluster, client: Client) -> None:
    submit(client, [serves(1)], wait_s=0)
    edit = [{"op": "replace", "path": "/spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas", "value": 9}]
    client.patch("RayService", "model", edit, manager="kubectl-edit")
    scale_service(client, cluster.get("RayService", "model") or {}, 2)
    with pytest.raises(LaunchError, match="workerGroupSpecs"):
        submit(client, [serves(1, "2Gi")], wait_s=0)


def test_keeps_logs_and_events(cluster: FakeCluster, client: Client, tmp_path: Path) -> None:
    pod = cluster.put(manifests.pod("head"))
    cluster.log("head", "ray", "one\ntwo")
    cluster.event("Pod", "head", "BackOff", "it fell")
    archive_logs(client, [pod], client.events("Pod", "head"), tmp_path)
    assert (tmp_path / "head" / "ray.log").read_text() == "one\ntwo\n"
    assert "pod/head BackOff: it fell" in (tmp_path / "events.txt").read_text()


def test_connects_with_the_clusters_token(cluster: FakeCluster, client: Client) -> None:
    job = manifests.raycluster()
    job["spec"]["authOptions"] = {"mode": "token", "secretName": "ours"}
    client.apply(job)
    secret = {"auth_token": base64.b64encode(b"sesame").decode()}
    cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ours"}, "data": secret})
    with (
        pytest.raises(LaunchError, match="no pod runs behind its dashboard"),
        connect(client, "raycluster", "one"),
    ):
        pass
    cluster.put(manifests.pod("head", labels={"ray.io/cluster": "one", "ray.io/node-type": "head"}))
    with connect(client, "raycluster", "one", ("dashboard", "serve")) as (dashboard, serve):
        assert (dashboard.token, serve.token) == ("sesame", None)
        assert dashboard.url.startswith("http://127.0.0.1:")
        assert "sesame" not in repr(dashboard)


def test_idle_is_what_has_ended_or_was_not_used() -> None:
    hour = "2026-01-01T00:00:00Z"
    now = 1767225600.0 + 3600
    ended = {
        **manifests.rayjob("ended"),
        "status": {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": hour},
    }
    borrows = {
        **manifests.rayjob("borrows", clusterSelector={"ray.io/cluster": "lent"}),
        "status": {"jobDeploymentStatus": "Running"},
    }
    child = manifests.raycluster("child")
    child["metadata"]["ownerReferences"] = [{"kind": "RayJob"}]
    kept = manifests.raycluster("kept")
    kept["metadata"]["annotations"] = {"raystack/keep": "true"}
    clusters = [manifests.raycluster(name) for name in ("old", "busy", "unknown", "lent")]
    used = {
        "default/old": now - 1800,
        "default/busy": math.inf,
        "default/lent": 0.0,
        "default/kept": 0.0,
        "default/child": 0.0,
    }
    objects = [ended, borrows, child, kept, *clusters]
    found = idle(objects, now, 1000, used)
    assert [(each.name, each.why) for each in found if each.kept is None] == [
        ("ended", "succeeded 1 h ago"),
        ("old", "last used 30 min ago"),
    ]
    assert {each.name: each.kept for each in found if each.kept is not None} == {
        "kept": "its annotation raystack/keep says so",
        "busy": "it is in use",
        "unknown": "its dashboard does not say when it was last used",
        "lent": "rayjob/borrows is to run on it",
    }
    later = {each.name: each.kept for each in idle(objects, now, 3000, used)}
    assert (later["ended"], later["old"]) == (None, "it is not yet as old as --older 3000")


def test_what_a_bundle_still_has_is_kept() -> None:
    """A controller would make it again, and a job would train again; what it has replaced may go."""
    jobs = []
    for day, name in enumerate(("digits-job-11111111", "digits-job-22222222", "other-job-33333333"), 1):
        job = manifests.rayjob(name)
        job["metadata"] |= {"uid": name, "creationTimestamp": f"2026-01-0{day}T00:00:00Z"}
        job["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": f"train:ray.io/RayJob:ml/{name}"}
        jobs.append({**job, "status": {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}})
    cluster = manifests.raycluster("shared")
    cluster["metadata"] |= {"uid": "c", "labels": {"kustomize.toolkit.fluxcd.io/name": "shared"}}
    found = {each.name: each.kept for each in idle([*jobs, cluster], 2e9, 0, {"default/shared": 0.0})}
    assert found == {
        "digits-job-11111111": None,
        "digits-job-22222222": "Argo CD's train would make it again: take it out of the bundle",
        "other-job-33333333": "Argo CD's train would make it again: take it out of the bundle",
        "shared": "Flux's shared would make it again: take it out of the bundle",
    }


def test_sweep_deletes_what_was_shown(cluster: FakeCluster, client: Client, tmp_path: Path) -> None:
    ended = manifests.rayjob()
    ended["metadata"]["labels"] = OWN
    client.apply(ended)
    client.apply(manifests.rayjob("not-ours"))
    for name in ("digits", "not-ours"):
        status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "endTime": "2026-01-01T00:00:00Z"}
        cluster.set_status("RayJob", name, status)
    found = collect(client, 0.0)
    assert {each.name: each.kept for each in found} == {
        "digits": None,
        "not-ours": "raystack has not made it: --foreign",
    }
    assert cluster.get("RayJob", "digits") is not None
    sweep(client, found, tmp_path)
    assert cluster.get("RayJob", "digits") is None
    assert cluster.get("RayJob", "not-ours") is not None
