"""What the doctor finds in a cluster, and says to do."""

from typing import Any

import manifests
import pytest
from fake import FakeCluster

from raystack.kuberay.actions.doctor import Check, doctor, read_operator, read_version
from raystack.kuberay.api.client import Client
from raystack.plan.kuberay import Requirement
from raystack.plan.kuberay.facts import amount

Object = dict[str, Any]

pytestmark = pytest.mark.kube


def _operator(*args: str, image: str = "quay.io/kuberay/operator:v1.7.0") -> Object:
    container = {
        "name": "operator",
        "image": image,
        "args": list(args),
        "env": [{"name": "ENABLE_WEBHOOKS", "value": "true"}],
    }
    metadata = {
        "name": "kuberay-operator",
        "namespace": "kuberay-system",
        "labels": {"app.kubernetes.io/name": "kuberay-operator"},
    }
    spec = {"selector": {}, "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": spec,
        "status": {"availableReplicas": 1},
    }


def _found(cluster: FakeCluster, *needs: Requirement, gpu_key: str | None = None) -> dict[str, Check]:
    client = Client(kubeconfig=str(cluster.kubeconfig))
    return {check.name: check for check in doctor(client, needs, gpu_key)}


def test_version_is_read_from_the_fields() -> None:
    def crd(*fields: str) -> Object:
        schema: Object = {"properties": {"spec": {"properties": {field: {} for field in fields}}}}
        return {"spec": {"versions": [{"name": "v1", "served": True, "schema": {"openAPIV3Schema": schema}}]}}

    assert read_version({"RayCluster": crd("authOptions", "tlsOptions")}) == "1.7.0"
    assert (
        read_version({"RayCluster": crd("authOptions"), "RayJob": crd("preRunningDeadlineSeconds")})
        == "1.6.0"
    )
    assert read_version({"RayCluster": crd("authOptions")}) == "1.5.1"
    assert read_version({"RayCluster": crd()}) is None


def test_gates_and_scheduler_are_read_from_the_flags() -> None:
    operator = read_operator(
        _operator(
            "--feature-gates=RayCronJob=true,RayMultiHostIndexing=false", "--batch-scheduler", "volcano"
        ),
        None,
    )
    assert [
        operator.has(gate)
        for gate in ("RayCronJob", "RayMultiHostIndexing", "RayClusterMTLS", "RayJobDeletionPolicy")
    ] == [
        True,
        False,
        False,
        True,
    ]
    assert (operator.scheduler, operator.settings["ENABLE_WEBHOOKS"]) == ("volcano", "true")
    assert read_operator(_operator(), None).scheduler == "none"
    assert read_operator(_operator("--config=/etc/kuberay.yaml"), None).scheduler is None


def test_a_cluster_that_is_fit(cluster: FakeCluster) -> None:
    cluster.put(_operator("--feature-gates=RayCronJob=true"))
    cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf"}, "data": {"token": "eA=="}})
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "a"},
            "status": {"allocatable": {"nvidia.com/gpu": "8", "cpu": "4"}},
        }
    )
    needs = (
        Requirement("version", "1.7.0", "x"),
        Requirement("gate", "RayCronJob", "x"),
        Requirement("object", "Secret hf with token", "x"),
    )
    found = _found(cluster, *needs, gpu_key="nvidia.com/gpu")
    assert [check for check in found.values() if check.ok is not True] == []
    assert found["KubeRay's CRDs"].found == "of KubeRay 1.7.0"
    assert found["GPUs nvidia.com/gpu"].found.startswith("8; KubeRay tells Ray")


def test_a_cluster_that_is_not(cluster: FakeCluster) -> None:
    cluster.put(_operator(image="quay.io/kuberay/operator:v1.6.0"))
    cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf"}, "data": {"other": "eA=="}})
    quota = {"hard": {"requests.cpu": "4", "pods": "10"}, "used": {"requests.cpu": "4000m", "pods": "1"}}
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "team"},
            "spec": {"hard": quota["hard"]},
            "status": quota,
        }
    )
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "a"},
            "status": {"allocatable": {"nvidia.com/gpu.shared": "8"}},
        }
    )
    needs = (
        Requirement("gate", "RayClusterMTLS", "target.security.tls"),
        Requirement("scheduler", "volcano", "target.queue.scheduler"),
        Requirement("object", "Secret hf with token", "target.secrets.HF"),
        Requirement("object", "LocalQueue team", "target.queue.name"),
        Requirement("component", "cert-manager", "target.security.tls"),
    )
    found = _found(cluster, *needs, gpu_key="nvidia.com/gpu")
    wrong = {name for name, check in found.items() if check.ok is False}
    assert wrong == {
        "KubeRay's CRDs",  # of 1.7.0, beside an operator of 1.6.0
        "quota team",
        "feature gate RayClusterMTLS",
        "batch scheduler volcano",
        "Secret hf",
        "LocalQueue team",
        "cert-manager",
    }
    assert found["quota team"].found == "used up: requests.cpu 4000m/4"
    assert all(found[name].remedy for name in wrong)


def test_what_may_not_be_read_is_not_known(cluster: FakeCluster) -> None:
    cluster.forbid("get", "customresourcedefinitions")
    cluster.forbid("list", "deployments")
    cluster.forbid("list", "nodes")
    cluster.forbid("list", "resourcequotas")
    found = _found(cluster, Requirement("gate", "RayCronJob", "x"))
    assert {name for name, check in found.items() if check.ok is None} == {
        "KubeRay's CRDs",
        "KubeRay's operator",
        "quotas",
        "GPUs",
        "feature gate RayCronJob",
    }
    assert "may not be listed" in found["KubeRay's operator"].found


@pytest.mark.parametrize(
    ("quantity", "number"), [("500m", 0.5), ("2", 2.0), ("1Ki", 1024.0), ("3k", 3000.0), ("1e3", 1000.0)]
)
def test_quantities(quantity: str, number: float) -> None:
    assert amount(quantity) == number


def test_manifests_are_what_the_schemas_accept(cluster: FakeCluster) -> None:
    """So that the other tests of this folder test what they say."""
    client = Client(kubeconfig=str(cluster.kubeconfig))
    for manifest in (
        manifests.raycluster(),
        manifests.rayjob(),
        manifests.rayservice(),
        manifests.configmap(),
    ):
        client.apply(manifest, dry_run=True)
