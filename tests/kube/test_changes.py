# ruff: noqa: E501 (a table, a row a line)
"""What KubeRay makes of a change: one row for each rule."""

import copy
from typing import Any

import manifests
import pytest
import yaml

from raystack.cli.terminal import Terminal
from raystack.kuberay.actions.changes import HIDDEN, changes
from raystack.kuberay.actions.effects import Effect

Object = dict[str, Any]


def _set(obj: Object, path: str, value: Any) -> Object:
    """A copy with a field set; `None` takes it away."""
    changed = copy.deepcopy(obj)
    *steps, last = path.split("/")
    place: Any = changed
    for step in steps:
        place = place[int(step)] if step.isdigit() else place.setdefault(step, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return changed


def _with_status(obj: Object, **status: Any) -> Object:
    return {**obj, "status": status}


CLUSTER = manifests.raycluster()
SCALED = manifests.raycluster(autoscaling=True)
JOB = manifests.rayjob()
SERVICE = manifests.rayservice()
RUNNING = _with_status(JOB, jobDeploymentStatus="Running")
GROUP = "spec/workerGroupSpecs/0"
NESTED = "spec/rayClusterConfig/workerGroupSpecs"
NEW = {"groupName": "gpu", "minReplicas": 0, "maxReplicas": 1, "template": manifests.pod_template()}

ROWS: list[tuple[str, Object, str, Any, Effect]] = [
    ("replicas", CLUSTER, f"{GROUP}/replicas", 3, "in place"),
    ("replicas with the autoscaler", SCALED, f"{GROUP}/replicas", 3, "ignored"),
    ("bounds with the autoscaler", SCALED, f"{GROUP}/maxReplicas", 3, "in place"),
    ("an image", CLUSTER, f"{GROUP}/template", manifests.pod_template("ray:2.61.0"), "ignored"),
    ("an image with Recreate", _set(CLUSTER, "spec/upgradeStrategy/type", "Recreate"), "spec/rayVersion", "2.61.0", "recreate"),
    ("a new group", CLUSTER, "spec/workerGroupSpecs", [*CLUSTER["spec"]["workerGroupSpecs"], NEW], "in place"),
    ("a group less", CLUSTER, "spec/workerGroupSpecs", [], "ignored"),
    ("suspend", CLUSTER, "spec/suspend", True, "in place"),
    ("idle timeout", _set(SCALED, "spec/autoscalerOptions/version", "v2"), "spec/autoscalerOptions/idleTimeoutSeconds", 5, "in place"),
    ("managedBy", _set(CLUSTER, "spec/managedBy", "ray.io/kuberay-operator"), "spec/managedBy", "kueue.x-k8s.io/multikueue", "recreate"),
    ("a label", CLUSTER, "metadata/labels/team", "a", "in place"),
    ("the cluster of a running job", RUNNING, "spec/rayClusterSpec/rayVersion", "2.61.0", "ignored"),
    ("the cluster of a suspended job",
     _with_status(JOB, jobDeploymentStatus="Suspended"), "spec/rayClusterSpec/rayVersion", "2.61.0", "new cluster"),
    ("the entrypoint of a running job", RUNNING, "spec/entrypoint", "x", "ignored"),
    ("the entrypoint of an ended job", _with_status(JOB, jobDeploymentStatus="Complete"), "spec/entrypoint", "x", "recreate"),
    ("the ttl of an ended job", _with_status(JOB, jobDeploymentStatus="Complete"), "spec/ttlSecondsAfterFinished", 5, "in place"),
    ("an invalid job", _with_status(JOB, jobDeploymentStatus="ValidationFailed"), "spec/backoffLimit", 1, "recreate"),
    ("retries", RUNNING, "spec/backoffLimit", 2, "in place"),
    ("suspending a job", RUNNING, "spec/suspend", True, "in place"),
    ("suspending a job that keeps its cluster", _set(RUNNING, "spec/shutdownAfterJobFinishes", False), "spec/suspend", True, "recreate"),
    ("the queue of a running job", RUNNING, "metadata/labels/kueue.x-k8s.io~queue-name", "b", "recreate"),
    ("the id of a job that waits for one", _with_status(JOB, jobDeploymentStatus="Waiting"), "spec/jobId", "a", "in place"),
    ("what is served", SERVICE, "spec/serveConfigV2", "applications: [{}]\n", "in place"),
    ("replicas of a service", SERVICE, f"{NESTED}/0/maxReplicas", 9, "ignored"),
    ("tolerations of a service", SERVICE, f"{NESTED}/0/template/spec/tolerations", [{"key": "a"}], "ignored"),
    ("an image of a service", SERVICE, f"{NESTED}/0/template", manifests.pod_template("ray:2.61.0"), "new cluster"),
    ("an image with None", _set(SERVICE, "spec/upgradeStrategy/type", "None"), "spec/rayClusterConfig/rayVersion", "2.61.0", "ignored"),
    ("a group behind a service's", SERVICE, NESTED, [*SERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"], NEW], "in place"),
    ("a group before a service's", SERVICE, NESTED, [NEW, *SERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]], "new cluster"),
    ("the backend of a service's head", _set(SERVICE, "spec/rayClusterConfig/gcsFaultToleranceOptions/backend", "redis"),
     "spec/rayClusterConfig/gcsFaultToleranceOptions/backend", "rocksdb", "recreate"),
    ("a service that is given up", _with_status(SERVICE, conditions=[{"type": "Ready", "reason": "InitializingTimeout"}]),
     "spec/serveConfigV2", "x", "recreate"),
    ("a map that is immutable", {**manifests.configmap(), "immutable": True}, "data/config.yaml", "a: 2\n", "recreate"),
    ("a map", manifests.configmap(), "data/config.yaml", "a: 2\n", "in place"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("live", "path", "value", "effect"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_effect_of_one_change(live: Object, path: str, value: Any, effect: Effect) -> None:
    after = _set(live, path, value)
    if "~" in path:  # a label with a slash in it
        after["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": value}
        live = {**live, "metadata": {**live["metadata"], "labels": {"kueue.x-k8s.io/queue-name": "a"}}}
    found = changes(live, after)
    assert {change.effect for change in found} == {effect}, found
    assert all(change.why for change in found)


def test_a_change_names_the_item_of_a_list() -> None:
    (change,) = changes(CLUSTER, _set(CLUSTER, f"{GROUP}/template/spec/containers/0/image", "b"))
    assert (change.path, change.before, change.after) == (
        "spec.workerGroupSpecs[workers].template.spec.containers[ray].image",
        "ray:2.60.0",
        "b",
    )


def test_a_change_inside_of_a_text_is_found_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def serves(replicas: int) -> Object:
        options = {"name": "model", "num_replicas": replicas}
        config = {"proxy_location": "EveryNode", "applications": [{"name": "a", "deployments": [options]}]}
        return _set(SERVICE, "spec/serveConfigV2", yaml.safe_dump(config, sort_keys=False))

    (change,) = changes(serves(1), serves(2))
    path = "spec.serveConfigV2.applications[a].deployments[model].num_replicas"
    assert (change.path, change.before, change.after, change.effect) == (path, 1, 2, "in place")
    other = _set(SERVICE, "spec/serveConfigV2", "no: [yaml\n")
    assert [change.path for change in changes(serves(1), other)] == ["spec.serveConfigV2"]
    code = manifests.configmap()
    long = "x" * 200
    changed = changes(_set(code, "data/a.py", f"{long}old"), _set(code, "data/a.py", f"{long}new"))
    Terminal(as_json=False).changes({"configmap/digits-code": changed})
    assert 'xxxold" -> ...x' in capsys.readouterr().out


def test_scale_goes_along_with_a_new_cluster() -> None:
    after = _set(_set(SERVICE, f"{NESTED}/0/maxReplicas", 9), "spec/rayClusterConfig/rayVersion", "2.61.0")
    assert {change.effect for change in changes(SERVICE, after)} == {"new cluster"}


def test_nothing_changes_but_what_the_server_writes() -> None:
    live = _with_status(
        {**CLUSTER, "metadata": {**CLUSTER["metadata"], "resourceVersion": "5", "generation": 2, "uid": "u"}},
        state="ready",
    )
    assert changes(live, CLUSTER) == []


def test_what_is_in_a_secret_is_not_shown() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"token": "b2xk"}}
    (change,) = changes(secret, _set(secret, "data/token", "bmV3"))
    assert (change.before, change.after) == (HIDDEN, HIDDEN)
