"""Submitting, scaling, keeping, connecting and tidying up, against the fake cluster."""

import base64
import math
from pathlib import Path

import manifests
import pytest
from fake import FakeCluster

from raystack.errors import LaunchError
from raystack.launch.kuberay.client import Client
from raystack.launch.kuberay.connect import connect
from raystack.launch.kuberay.gc import OWN, collect, idle, sweep
from raystack.launch.kuberay.keep import keep
from raystack.launch.kuberay.scale import operations, scale
from raystack.launch.kuberay.submit import preview, submit

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
    sent = [request for request in cluster.requests if request.startswith("PATCH") and "dryRun" not in request]
    assert ["rayjobs" in request for request in sent] == [False, True, False]


def test_nothing_is_written_where_one_is_refused(cluster: FakeCluster, client: Client) -> None:
    with pytest.raises(LaunchError, match="entrypiont"):
        submit(client, [manifests.configmap(), manifests.rayjob(entrypiont="x")])
    assert cluster.get("ConfigMap", "digits-code") is None


def test_what_the_operator_finds_invalid_is_told_and_deleted(cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = client.apply

    def and_the_operator_answers(obj: manifests.Object, *, dry_run: bool = False, force: bool = False) -> manifests.Object:
        made = apply(obj, dry_run=dry_run, force=force)
        if obj["kind"] == "RayCluster" and not dry_run:
            cluster.event("RayCluster", "one", "InvalidRayClusterSpec", "the head has no container")
        return made

    monkeypatch.setattr(client, "apply", and_the_operator_answers)
    with pytest.raises(LaunchError, match="the head has no container"):
        submit(client, [manifests.raycluster()])
    assert cluster.get("RayCluster", "one") is None


def test_applying_again_leaves_the_autoscalers_numbers(cluster: FakeCluster, client: Client) -> None:
    asked = manifests.raycluster(replicas=None, autoscaling=True)
    submit(client, [asked], wait_s=0)
    now = [{"op": "replace", "path": "/spec/workerGroupSpecs/0/replicas", "value": 5}]
    client.patch("RayCluster", "one", now, manager="ray-autoscaler")
    asked["spec"]["workerGroupSpecs"][0]["maxReplicas"] = 9
    (change,) = preview(client, [asked])["raycluster/one"]
    assert (change.path, change.after, change.effect) == ("spec.workerGroupSpecs[workers].maxReplicas", 9, "in place")
    submit(client, [asked], wait_s=0)
    live = cluster.get("RayCluster", "one")
    assert live is not None
    assert [live["spec"]["workerGroupSpecs"][0][key] for key in ("replicas", "maxReplicas")] == [5, 9]


def test_scale_patches_one_number_and_its_bounds(cluster: FakeCluster, client: Client) -> None:
    client.apply(manifests.raycluster())
    scale(client, "one", 12)
    live = cluster.get("RayCluster", "one")
    assert live is not None
    assert [live["spec"]["workerGroupSpecs"][0][key] for key in ("minReplicas", "replicas", "maxReplicas")] == [0, 12, 12]
    with pytest.raises(LaunchError, match="change minReplicas and maxReplicas"):
        operations(manifests.raycluster(autoscaling=True), 2)
    with pytest.raises(LaunchError, match="no such group"):
        operations(manifests.raycluster(), 2, "gpu")


def test_keeps_logs_and_events(cluster: FakeCluster, client: Client, tmp_path: Path) -> None:
    pod = cluster.put(manifests.pod("head"))
    cluster.log("head", "ray", "one\ntwo")
    cluster.event("Pod", "head", "BackOff", "it fell")
    keep(client, [pod], client.events("Pod", "head"), tmp_path)
    assert (tmp_path / "head" / "ray.log").read_text() == "one\ntwo\n"
    assert "pod/head BackOff: it fell" in (tmp_path / "events.txt").read_text()


def test_connects_with_the_clusters_token(cluster: FakeCluster, client: Client) -> None:
    job = manifests.raycluster()
    job["spec"]["authOptions"] = {"mode": "token", "secretName": "ours"}
    client.apply(job)
    secret = {"auth_token": base64.b64encode(b"sesame").decode()}
    cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ours"}, "data": secret})
    with pytest.raises(LaunchError, match="no pod runs behind its dashboard"), connect(client, "raycluster", "one"):
        pass
    cluster.put(manifests.pod("head", labels={"ray.io/cluster": "one", "ray.io/node-type": "head"}))
    with connect(client, "raycluster", "one", ("dashboard", "serve")) as (dashboard, serve):
        assert (dashboard.token, serve.token) == ("sesame", None)
        assert dashboard.url.startswith("http://127.0.0.1:")
        assert "sesame" not in repr(dashboard)


def test_idle_is_what_has_ended_or_was_not_used() -> None:
    hour = "2026-01-01T00:00:00Z"
    now = 1767225600.0 + 3600
    ended = {**manifests.rayjob("ended"), "status": {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": hour}}
    borrows = {**manifests.rayjob("borrows", clusterSelector={"ray.io/cluster": "lent"}), "status": {"jobDeploymentStatus": "Running"}}
    child = manifests.raycluster("child")
    child["metadata"]["ownerReferences"] = [{"kind": "RayJob"}]
    kept = manifests.raycluster("kept")
    kept["metadata"]["annotations"] = {"raystack/keep": "true"}
    clusters = [manifests.raycluster(name) for name in ("old", "busy", "unknown", "lent")]
    used = {"default/old": now - 1800, "default/busy": math.inf, "default/lent": 0.0, "default/kept": 0.0, "default/child": 0.0}
    objects = [ended, borrows, child, kept, *clusters]
    assert [(each.name, each.why) for each in idle(objects, now, 1000, used)] == [
        ("ended", "succeeded 1 h ago"),
        ("old", "last used 30 min ago"),
    ]
    assert [each.name for each in idle(objects, now, 3000, used)] == ["ended"]


def test_sweep_deletes_what_was_shown(cluster: FakeCluster, client: Client, tmp_path: Path) -> None:
    ended = manifests.rayjob()
    ended["metadata"]["labels"] = OWN
    client.apply(ended)
    client.apply(manifests.rayjob("not-ours"))
    for name in ("digits", "not-ours"):
        status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "endTime": "2026-01-01T00:00:00Z"}
        cluster.set_status("RayJob", name, status)
    found = collect(client, 0.0)
    assert [each.name for each in found] == ["digits"]
    assert cluster.get("RayJob", "digits") is not None
    sweep(client, found, tmp_path)
    assert cluster.get("RayJob", "digits") is None
