"""What the doctor finds in a cluster, and says to do."""

from typing import Any

import manifests
import pytest
from fake import FakeCluster

from raystack.kuberay.actions.check import Check
from raystack.kuberay.actions.doctor import Wanted, doctor
from raystack.kuberay.actions.operator import read_operator, read_version
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
    return {check.name: check for check in doctor(client, Wanted(needs, gpu_key=gpu_key))}


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
        "volcano itself",
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
        "rights for doctor",
    }
    assert "may not be listed" in found["KubeRay's operator"].found


def _pods(role: str, count: int = 1, /, **requests: str) -> Object:
    """A RayCluster with a head and two workers, the one kind with these requests."""
    made = manifests.raycluster(replicas=count)
    spec = made["spec"]
    group = spec["headGroupSpec"] if role == "head" else spec["workerGroupSpecs"][0]
    group["template"]["spec"]["containers"][0]["resources"] = {"requests": requests}
    return made


def _node(name: str, taints: list[Object] | None = None, **allocatable: str) -> Object:
    metadata = {"name": name, "labels": {"kind": name}}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": {"taints": taints or []},
        "status": {"allocatable": {key.replace("_", "/"): value for key, value in allocatable.items()}},
    }


def test_an_amount_that_no_node_has(cluster: FakeCluster) -> None:
    """Also where each amount is there, and not together, or only behind a taint."""
    cluster.put(_node("wide", cpu="64", memory="8Gi"))
    cluster.put(_node("tall", cpu="4", memory="256Gi"))
    taint = {"key": "team", "value": "b", "effect": "NoSchedule"}
    cluster.put(_node("taken", [taint], cpu="96", memory="512Gi"))
    client = Client(kubeconfig=str(cluster.kubeconfig))

    def found(**requests: str) -> Check | None:
        checks = doctor(client, Wanted(manifests=(_pods("worker", **requests),)))
        return next((check for check in checks if check.name == "nodes for a worker of group workers"), None)

    assert found(cpu="60", memory="4Gi") is None
    wide = found(cpu="80", memory="4Gi")
    assert wide is not None
    assert wide.ok is False
    assert wide.found == "asks for cpu 80, and there is 64 at most on a node"
    assert wide.remedy == "add larger nodes, or lower resources.cpus_per_worker"
    both = found(cpu="32", memory="64Gi")
    assert both is not None
    assert both.found == "no node has cpu 32 and memory 64Gi together"
    cluster.put(
        {**_node("wide", cpu="64"), "metadata": {"name": "wide", "labels": {"karpenter.sh/nodepool": "a"}}}
    )
    grows = found(cpu="80", memory="4Gi")
    assert grows is not None
    assert grows.ok is None
    assert (grows.remedy or "").startswith("fine where an autoscaler adds such nodes")


def test_an_amount_that_no_queue_or_quota_has(cluster: FakeCluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}}
    cluster.put({**quota, "spec": {"hard": {"requests.cpu": "12", "pods": "3"}}})
    kueue = "kueue.x-k8s.io/v1beta2"
    local = {"metadata": {"name": "team"}, "spec": {"clusterQueue": "all"}}
    cluster.put({"apiVersion": kueue, "kind": "LocalQueue", **local})
    quotas = [{"name": "cpu", "nominalQuota": "10"}, {"name": "memory", "nominalQuota": "1Ti"}]
    flavor = {"name": "any", "resources": quotas}
    spec = {"resourceGroups": [{"coveredResources": ["cpu"], "flavors": [flavor]}]}
    cluster.put({"apiVersion": kueue, "kind": "ClusterQueue", "metadata": {"name": "all"}, "spec": spec})
    cluster.put(
        {
            "apiVersion": "scheduling.volcano.sh/v1beta1",
            "kind": "Queue",
            "metadata": {"name": "team"},
            "spec": {"capability": {"cpu": "10"}},
        }
    )
    client = Client(kubeconfig=str(cluster.kubeconfig))

    def wrong(label: str | None = None, **amounts: str) -> dict[str, str]:
        """What four workers with these amounts do not find, in the queue `team` that a label names."""
        made = _pods("worker", 4, **{key.replace("_", "/"): value for key, value in amounts.items()})
        made["metadata"]["labels"] = {label: "team"} if label else {}
        checks = doctor(client, Wanted(manifests=(made,)))
        return {check.name: check.found for check in checks if check.ok is False and not check.passing}

    of_kueue, of_volcano = "kueue.x-k8s.io/queue-name", "volcano.sh/queue-name"
    asked = "asks for cpu 16, and there is {} at most"
    kept = {"quota team": "asks for pods 5, and there is 3 at most"}
    assert wrong(cpu="1") == wrong(of_kueue, cpu="2") == kept
    both = f"{asked.format(12)}; {kept['quota team']}"
    room = {"quota team": both, "room in queue team": asked.format(10)}
    assert wrong(of_kueue, cpu="4") == wrong(of_volcano, cpu="4") == room
    gpus = wrong(of_kueue, cpu="2", **{"nvidia.com_gpu": "1"})
    assert gpus["room in queue team"] == "asks for nvidia.com/gpu 4, and there is 0 at most"


def test_rights_are_asked_for_by_verb(cluster: FakeCluster) -> None:
    cluster.forbid("create", "rayjobs", "pods/portforward")
    cluster.forbid("list", "nodes")
    found = _found(cluster)
    rights = {name: check for name, check in found.items() if name.startswith("rights")}
    assert {name: check.ok for name, check in rights.items()} == {
        "rights for status, diagnose, logs": True,
        "rights for connect, logs of services, gc of clusters": False,
        "rights for train, tune, serve, render --diff": False,
        "rights for suspend, resume, scale, cancel, gc": True,
        "rights for doctor": None,
    }
    said = rights["rights for train, tune, serve, render --diff"]
    assert said.found == "may not create rayjobs in namespace default"
    assert "raystack render config.yaml --as role" in (said.remedy or "")


def test_a_namespace_that_is_not_there_is_one_cause(cluster: FakeCluster) -> None:
    needs = (
        Requirement("object", "Secret hf with token", "x"),
        Requirement("object", "LocalQueue team", "x"),
    )
    checks = doctor(Client(kubeconfig=str(cluster.kubeconfig), namespace="none"), Wanted(needs))
    assert [check.name for check in checks if check.ok is False] == ["namespace none"]


def test_a_scheduler_that_nobody_is_and_a_queue_that_is_not_there(cluster: FakeCluster) -> None:
    """The operator knows Volcano, and Volcano does not run."""
    cluster.put(_operator("--batch-scheduler=volcano"))
    needs = (
        Requirement("scheduler", "volcano", "target.queue.scheduler"),
        Requirement("object", "Queue team", "target.queue.name"),
        Requirement("object", "Queue.scheduling.run.ai team", "target.queue.name"),
    )
    found = _found(cluster, *needs)
    assert found["batch scheduler volcano"].ok is True
    assert found["volcano itself"].found == "no Deployment of it is to be seen"
    assert found["Queue team"].found in ("not there", "scheduling.run.ai is not installed")
    runs = _operator(image="registry.example.com/volcanosh/vc-scheduler:v1.15.0")
    runs["metadata"] = {"name": "volcano-scheduler", "namespace": "volcano-system"}
    cluster.put(runs)
    assert _found(cluster, *needs)["volcano itself"].found == "volcano-system/volcano-scheduler"


def test_a_queue_without_kueue_is_told(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "has", lambda self, group: group != "kueue.x-k8s.io")
    needs = Requirement("component", "Kueue", "target.queue.scheduler")
    found = _found(cluster, needs)["Kueue"]
    assert (found.ok, found.found, found.remedy) == (
        False,
        "not installed",
        "install it, for target.queue.scheduler",
    )


def test_a_queue_of_yunikorn_is_looked_for_in_its_config(cluster: FakeCluster) -> None:
    text = "partitions:\n- name: default\n  queues:\n  - name: root\n    queues:\n    - name: team\n"
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "yunikorn-configs", "namespace": "y"},
    }
    cluster.put({**config, "data": {"queues.yaml": text}})
    needs = [Requirement("object", f"YuniKorn's queue {name}", "x") for name in ("root.team", "root.other")]
    found = _found(cluster, *needs)
    assert found["YuniKorn's queue root.team"].ok is True
    assert found["YuniKorn's queue root.other"].ok is False


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
