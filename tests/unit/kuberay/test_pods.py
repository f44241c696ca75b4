"""What the keys for pods promise: each is rendered for every kind of pod, and nothing is told to Ray that is
not so.
"""

import json
import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from raystack.code.bundle import Bundle
from raystack.config import dump, load
from raystack.config.pods import Container, WorkerGroup, Workers
from raystack.config.volumes import Volume
from raystack.errors import ConfigError, PlanError
from raystack.kuberay.lint import Operator, documents, lint, schema_findings
from raystack.kuberay.lint.schemas import crds
from raystack.kuberay.manifest import Manifest, render
from raystack.kuberay.manifest.cluster import START_TIMEOUT
from raystack.plan import plan_kuberay
from raystack.plan.kuberay.facts import amount

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "05_kubernetes"
KEYS_OF_PODS = ("everything", "tpu", "models")
"""Configs that have all keys for pods; those of one exclude those of another."""
CRDS = ROOT.parent / "shared" / "kuberay" / "crds"
FORMS = ("job", "service", "cluster", "cron")
SMALL = Bundle({"config.yaml": b"a: 1\n"})
GOOD = """\
experiment: {name: demo, storage: "s3://bucket/demo"}
task: {entry: "task:Demo"}
training: {steps: 10, batch: {global: 48}}
resources: {workers: 4, cpus_per_worker: 2}
tracking: {uri: "http://mlflow.ml.svc:5000"}
serving: {model: "models:/demo@champion", replicas: 3}
target: {kind: kuberay, image: "registry.example.com/raystack:1"}
"""
Rendered = Callable[..., dict[str, Any]]


@pytest.fixture
def rendered(tmp_path: Path) -> Rendered:
    """The spec of the main object of GOOD with overrides."""
    (tmp_path / "config.yaml").write_text(GOOD)

    def rendered(*overrides: str, form: Any = "job") -> dict[str, Any]:
        plan = plan_kuberay(load(tmp_path / "config.yaml", overrides), None, form)
        spec: dict[str, Any] = render(plan, SMALL)[-1]["spec"]
        return spec

    return rendered


def everything(form: Any, name: str = "everything") -> list[Manifest]:
    overrides = ["target.cron.schedule=@daily"] if form == "cron" else []
    return list(render(plan_kuberay(load(EXAMPLES / f"{name}.yaml", overrides), None, form), SMALL))


def head_of(spec: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return pod


def worker_of(spec: dict[str, Any], index: int = 0) -> dict[str, Any]:
    pod: dict[str, Any] = spec["rayClusterSpec"]["workerGroupSpecs"][index]["template"]["spec"]
    return pod


@pytest.mark.parametrize("name", KEYS_OF_PODS)
@pytest.mark.parametrize("form", FORMS)
def test_the_configs_with_all_keys_are_valid_and_lint_clean(form: str, name: str) -> None:
    operator = Operator(gates=frozenset({"RayCronJob"}))
    manifests = everything(form, name)
    assert lint(documents(manifests), operator) == []
    main = manifests[-1]
    assert schema_findings(documents([main])[0], crds()[main["kind"]]) == []


@pytest.mark.beside
@pytest.mark.parametrize("name", KEYS_OF_PODS)
@pytest.mark.parametrize("form", FORMS)
def test_kuberays_own_crds_take_the_configs_with_all_keys(form: str, name: str) -> None:
    own = [yaml.load(file.read_text(), yaml.CSafeLoader) for file in CRDS.glob("*.yaml")]
    found = {crd["spec"]["names"]["kind"]: crd for crd in own}
    main = everything(form, name)[-1]
    assert schema_findings(documents([main])[0], found[main["kind"]]) == []


def test_all_keys_for_pods_volumes_and_groups_are_in_these_configs() -> None:
    text = "\n".join((EXAMPLES / f"{name}.yaml").read_text() for name in KEYS_OF_PODS)
    used = set(re.findall(r"[a-z_]+(?=:)", text))
    assert {*WorkerGroup.model_fields, *Container.model_fields} - used == set()
    kinds = {volume.model_fields["kind"].annotation for volume in get_args(get_args(Volume)[0])}
    assert {kind for each in kinds for kind in get_args(each)} - {"gcsfuse"} <= set(
        re.findall(r"kind: ([a-z]+)", text)
    )


def test_every_kind_of_pod_has_its_volumes_hooks_and_containers() -> None:
    spec = everything("job")[-1]["spec"]
    head, worker = head_of(spec), worker_of(spec)
    submitter = spec["submitterPodTemplate"]["spec"]
    mounts = {
        name: [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
        for name, pod in (("head", head), ("worker", worker), ("submitter", submitter))
    }
    assert mounts["submitter"] == ["/etc/corp-ca", "/tmp"]
    assert {"/dev/shm", "/mnt/spill", "/mnt/nvme", "/mnt/keys"} <= set(mounts["worker"])
    assert "/mnt/spill" not in mounts["head"]
    assert worker["containers"][0]["lifecycle"]["preStop"] == {"exec": {"command": ["ray", "stop"]}}
    assert (worker["terminationGracePeriodSeconds"], head["terminationGracePeriodSeconds"]) == (120, 60)
    assert [container["name"] for container in head["containers"]] == ["ray-head", "logs"]
    assert [container["name"] for container in worker["initContainers"]] == ["warm"]
    assert "AWS_ACCESS_KEY_ID" not in str(head["containers"][1]), "a sidecar has its own environment"


MACHINES = {
    "aks-nc-a100": (24, 220, 1),
    "aks-nd-h100": (96, 1900, 8),
    "eks-g5": (8, 32, 1),
    "eks-g6": (8, 32, 1),
    "eks-p4d": (96, 1152, 8),
    "eks-p5": (192, 2048, 8),
    "gke-a2": (96, 680, 8),
    "gke-a3": (208, 1872, 8),
    "gke-g2": (8, 32, 1),
    "gke-tpu-v5e": (112, 192, 1),
    "gke-tpu-v5p": (208, 448, 1),
    "gke-tpu-v6e": (180, 720, 1),
}
"""vCPUs and GiB of each machine, and how many workers share one."""


def allocatable(cores: int, memory: float) -> tuple[float, float]:
    """Cores and GiB that GKE's kubelet leaves to pods, the least of the three providers."""
    steps = ((4, 0.25), (4, 0.2), (8, 0.1), (112, 0.06), (float("inf"), 0.02))
    left, taken = memory, 0.1
    for size, share in steps:
        taken += min(left, size) * share
        left = max(left - size, 0)
    return cores - (0.06 + 0.01 + 2 * 0.005 + max(cores - 4, 0) * 0.0025), memory - taken


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "machine").glob("*.yaml")), ids=lambda file: file.stem
)
def test_a_worker_of_each_machine_has_its_device_and_fits(file: Path, rendered: Rendered) -> None:
    spec = rendered(f"machine={file.stem}", "resources.workers=8")
    worker = worker_of(spec)
    limits = worker["containers"][0]["resources"]["limits"]
    tpu = "tpu" in file.stem
    assert limits["google.com/tpu" if tpu else "nvidia.com/gpu"] == ("4" if tpu else "1")
    assert len(worker["tolerations"]) == 1
    known = ("node.kubernetes.io/instance-type", "cloud.google.com/gke-accelerator")
    assert any(name in worker["nodeSelector"] for name in (*known, "cloud.google.com/gke-tpu-accelerator"))
    told = spec["rayClusterSpec"]["workerGroupSpecs"][0].get("resources", {})
    assert [name.partition(":")[0] for name in told] == ([] if tpu else ["accelerator_type"])
    cores, memory, shared = MACHINES[file.stem]
    most = allocatable(cores, memory)
    asked = (amount(limits["cpu"]) * shared, amount(limits["memory"]) * shared / 2**30)
    # The rest is for what runs on every node, and not worth a share of the machine.
    assert all(0.75 * some < each < 0.97 * some for each, some in zip(asked, most, strict=True))


def test_groups_have_their_size_image_and_priority() -> None:
    spec = everything("job")[-1]["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    numbers = {name: (group["minReplicas"], group["maxReplicas"]) for name, group in groups.items()}
    assert numbers == {"workers": (0, 8), "on-demand": (0, 8), "large": (1, 1)}
    assert [group["priority"] for group in groups.values()] == [10, 1, 0]
    large = groups["large"]["template"]["spec"]
    assert large["containers"][0]["image"].endswith("-cpu")
    assert "nvidia.com/mig-1g.10gb" not in large["containers"][0]["resources"]["limits"]
    assert large["hostNetwork"] is True
    spot = "eks.amazonaws.com/capacityType"
    assert [spot in str(group["template"]) for group in groups.values()] == [True, False, False]


def test_a_run_may_wait_for_workers_of_any_group(rendered: Rendered) -> None:
    fallback = "target.groups={on-demand: {workers: [0, 4], priority: 1, spot: {enabled: false}}}"
    spot = ("target.spot={enabled: true, fallback: false}", "target.worker.priority=10", fallback)
    scaling = "target.autoscaling={enabled: true, min_workers: 0, start_timeout_s: 300}"
    spec = rendered(*spot, scaling, "resources.wait_s=600")
    (variable,) = spec["rayClusterSpec"]["autoscalerOptions"]["env"]
    assert variable == {"name": START_TIMEOUT, "value": "300"}
    ray = Path(find_spec("ray").origin or "").parent  # type: ignore[union-attr]
    assert START_TIMEOUT in (ray / "autoscaler/v2/instance_manager/config.py").read_text()
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert [(group["minReplicas"], group["maxReplicas"]) for group in groups] == [(0, 4), (0, 4)]
    assert [group["priority"] for group in groups] == [10, 1]
    assert groups[0]["template"]["spec"]["containers"] == groups[1]["template"]["spec"]["containers"]


def test_a_read_only_root_has_what_ray_writes_to() -> None:
    ray = head_of(everything("job")[-1]["spec"])["containers"][0]
    assert ray["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "tmp", "mountPath": "/tmp"} in ray["volumeMounts"]
    assert {"name": "HOME", "value": "/tmp"} in ray["env"]


def test_requests_differ_from_limits_only_where_it_is_said(rendered: Rendered) -> None:
    worker = worker_of(rendered("target.worker={requests: {memory: 4Gi}, cpu_limit: false}"))
    assert worker["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"memory": "8Gi"},
    }


def test_amounts_are_exact(rendered: Rendered) -> None:
    custom = "resources.custom={memory: 8589934592, half: 0.5, small: 0.0001, many: 1234567}"
    group = rendered(custom)["rayClusterSpec"]["workerGroupSpecs"][0]
    assert group["resources"] == {
        "memory": "8589934592",
        # `ray start` takes whole numbers of a node alone.
        "half": "1",
        "small": "1",
        "many": "1234567",
    }
    packed = rendered("resources.custom={part: 0.1}", "resources.placement=STRICT_PACK")
    assert packed["rayClusterSpec"]["workerGroupSpecs"][0]["resources"] == {"part": "1"}


def test_a_resource_is_the_pods_or_rays_or_both(rendered: Rendered) -> None:
    resources = "target.worker.resources={example.com/efa: 1, example.com/key: {amount: 2, ray: key}}"
    spec = rendered(resources, "resources.custom={rack: 1}")
    assert spec["rayClusterSpec"]["workerGroupSpecs"][0]["resources"] == {"rack": "1", "key": "2"}
    limits = worker_of(spec)["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "2", "memory": "8Gi", "example.com/efa": "1", "example.com/key": "2"}


def test_names_that_end_in_gpu_become_no_gpus(rendered: Rendered) -> None:
    group = rendered("resources.custom={rack_gpu: 1, memory: 1000}", "resources.gpus_per_worker=1")
    group = group["rayClusterSpec"]["workerGroupSpecs"][0]
    params = group["rayStartParams"]
    assert "resources" not in group, "KubeRay would set num-gpus by rack_gpu"
    assert (params["num-gpus"], params["num-cpus"], params["memory"]) == ("1", "2", "1000")
    (words,) = shlex.split(params["resources"])
    assert json.loads(words) == {"rack_gpu": 1}
    nic = rendered("target.worker.resources={rdma/nic_gpu: 1}")["rayClusterSpec"]["workerGroupSpecs"][0]
    assert nic["resources"] == {"GPU": "0"}, "KubeRay would count the card as one"


def test_variables_mean_what_they_say(rendered: Rendered) -> None:
    spec = rendered("target.env={A: '$(HOME) costs $5 and $$'}", "target.pod_fields={M: limits.memory}")
    env = {each["name"]: each for each in head_of(spec)["containers"][0]["env"]}
    assert env["A"]["value"] == "$$(HOME) costs $$5 and $$$$"
    assert env["M"]["valueFrom"] == {"resourceFieldRef": {"resource": "limits.memory"}}


def test_the_submitter_has_the_annotations_of_the_head(rendered: Rendered) -> None:
    spec = rendered("target.head.annotations={sidecar.istio.io/inject: 'false'}")
    metadata = spec["submitterPodTemplate"]["metadata"]
    assert metadata["annotations"] == {"sidecar.istio.io/inject": "false"}
    own = rendered("target.head={node_selector: {pool: ray}, memory: 1Gi}", "target.submitter={cpus: 1}")
    template = own["submitterPodTemplate"]["spec"]
    assert template["nodeSelector"] == {"pool": "ray"}
    assert template["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "512Mi"}


def test_what_a_group_does_not_set_is_that_of_the_workers(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(GOOD)
    worker = "target.worker={memory: 4Gi, labels: {a: b}}"
    config = load(tmp_path / "config.yaml", [worker, "target.groups={more: {workers: 2, labels: {}}}"])
    (tmp_path / "again.yaml").write_text(dump(config))
    first, second = (plan_kuberay(each, None, "job") for each in (config, load(tmp_path / "again.yaml")))
    assert first == second
    (group,) = first.further
    assert (group.pod.memory, group.pod.labels, group.replicas) == ("4Gi", {}, 2)


def test_the_runtime_environment_is_that_of_the_job_and_of_what_is_served(rendered: Rendered) -> None:
    env = "target.runtime_env={env_vars: {A: b}}"
    assert yaml.safe_load(rendered(env)["runtimeEnvYAML"]) == {"env_vars": {"A": "b"}}
    served = yaml.safe_load(rendered(env, form="service")["serveConfigV2"])
    assert [each["runtime_env"] for each in served["applications"]] == [{"env_vars": {"A": "b"}}]


KEYS = {
    "cpus": "3",
    "memory": "9Gi",
    "ephemeral_storage": "9Gi",
    "requests": "{memory: 256Mi}",
    "cpu_limit": "false",
    "resources": "{example.com/nic: 1}",
    "capabilities": "[IPC_LOCK]",
    "ray_start": "{object-store-memory: 2000000000}",
    "ray_labels": "{a: b}",
    "node_selector": "{pool: ray}",
    "tolerations": "[{key: a}]",
    "nodes": "[{key: a, values: [b]}]",
    "neighbours": "[{labels: {a: b}}]",
    "spread": "[{key: zone}]",
    "labels": "{a: b}",
    "annotations": "{a: b}",
    "priority_class": "high",
    "runtime_class": "gvisor",
    "scheduler": "mine",
    "host_network": "true",
    "read_only_root": "true",
    "pre_stop": "[ray, stop]",
    "post_start": "[echo, a]",
    "grace_s": "60",
    "init": "{warm: {command: [a]}}",
    "sidecars": "{log: {image: a}}",
    "priority": "1",
    "idle_timeout_s": "60",
    "tpu": "{type: v5e, topology: 2x2}",
    "hosts": "2",
}
"""A value of each key for pods that none has."""
SCALED = ("resources.workers=[2,4]", "target.autoscaling.enabled=true")
OF_WORKERS = ("priority", "idle_timeout_s", "tpu", "hosts")
NONE_OF_SUBMITTER = (*OF_WORKERS, "ray_start", "ray_labels", "spread")


def test_every_key_for_pods_has_a_value_here() -> None:
    assert KEYS.keys() == Workers.model_fields.keys()


def parts(spec: dict[str, Any]) -> dict[str, Any]:
    cluster = spec["rayClusterSpec"]
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    return {"head": head, "worker": worker, "submitter": spec["submitterPodTemplate"]}


def test_each_key_reaches_every_kind_of_pod(rendered: Rendered) -> None:
    before = parts(rendered(*SCALED, "target.submitter={}"))
    without = {"head": OF_WORKERS, "submitter": NONE_OF_SUBMITTER}
    for key, value in KEYS.items():
        having = [pod for pod in before if key not in without.get(pod, ())]
        given = [f"+target.{pod}.{key}={value}" for pod in having]
        after = parts(rendered(*SCALED, "target.submitter={}", *given))
        assert [pod for pod in before if before[pod] != after[pod]] == having, key


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("resources.custom={example.com/efa: 1}",), "ask for it in target.worker.resources"),
        (("resources.custom={nvidia.com/gpu: 1}",), "set resources.gpus_per_worker"),
        (("resources.custom={google.com/tpu: 4}",), "set target.worker.tpu"),
        (("resources.custom={cpu: 1}",), "set resources.cpus_per_worker"),
        (
            ("resources.custom={memory: 9e9}",),
            "is more than the pod has, .*got 9000000000",
        ),
        (
            ("target.worker.resources={nvidia.com/gpu: 1}", "resources.gpus_per_worker=1"),
            "set resources.gpus_per_worker",
        ),
        (
            ("target.head={memory: 4Gi, ray_start: {object-store-memory: 8000000000}}",),
            "target.head.ray_start.object-store-memory: is more than the pod has, target.head.memory=4Gi",
        ),
        (
            ("target.worker.resources={aws.amazon.com/neuron: 2}",),
            "Ray of it, which calls it neuron_cores .* set resources.custom.neuron_cores",
        ),
        (
            ("target.head.resources={habana.ai/gaudi: 8}",),
            "target.head.resources: KubeRay does not tell Ray of it, which calls it HPU",
        ),
        (("target.worker.requests={memory: 9Gi}",), "target.worker.requests.memory: should be at most"),
        (("target.head.requests={ephemeral_storage: 1Gi}",), "set target.head.ephemeral_storage"),
        (("queue=volcano", "target.worker.scheduler=mine"), "volcano schedules the pods"),
        (("target.head.sidecars={autoscaler: {}}",), "another container of the pod has this name"),
        (("target.head.sidecars={log: {mounts: [/x]}}",), "is no mount of target.storage.volumes"),
        (
            ("target.storage.volumes=[{kind: emptydir, mount: /dev/shm, medium: memory, size: 9Gi}]",),
            "target.storage.volumes.0.size: its content counts as memory",
        ),
        (
            (
                "experiment.storage=/x",
                "target.storage.volumes=[{kind: emptydir, mount: /x}]",
            ),
            "experiment.storage: is a folder of the pod",
        ),
        (
            (
                "experiment.storage=/x",
                "target.storage.volumes=[{kind: pvc, name: x, mount: /x, pods: [workers]}]",
            ),
            "which the head and the workers should both have",
        ),
        (("+target.groups.workers={workers: 2}",), "target.groups.workers: this name is taken"),
        (("+target.groups.more={workers: [1, 2]}",), "takes effect only with the autoscaler"),
        (
            (
                "queue=kueue",
                "target.queue={name: team, multikueue: true}",
                "target.service_account=default",
                "target.security={network_policy: true, network_policy_by: manifest}",
            ),
            "the other cluster does not have the policies",
        ),
        (("target.autoscaling.min_workers=0",), "min_workers: takes effect only with the autoscaler"),
        (
            ("target.autoscaling={enabled: true, min_workers: 0}",),
            "starts with 4 workers, and does not wait for them .* set resources.wait_s",
        ),
        (("target.worker.priority=1",), "target.worker.priority: takes effect only with"),
        (("target.submitter={ray_labels: {a: b}}",), "this pod starts no Ray"),
        (("target.submitter={spread: [{key: zone}]}",), "there is one such pod"),
        (("target.submitter={}", "target.submission.mode=HTTPMode"), "only K8sJobMode has a pod"),
        (("target.runtime_env={env_vars: {A: '$HOME'}}",), "a shell of the submitter would expand it"),
        (("target.pod_fields={A: status.podIP}", "target.env={A: b}"), "is in target.env as well"),
    ],
)
def test_what_cannot_work_is_refused(rendered: Rendered, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        rendered(*overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("target.head.ray_start={num-cpus: 4}", "should not hold num-cpus, which is set by cpus"),
        ("target.worker.resources={efa: 1}", "should be a resource of Kubernetes"),
        ("target.storage.volumes=[{kind: secrets, mount: /x}]", "did you mean 'secret'"),
        ("target.storage.volumes=[{kind: emptydir, mount: /x, driver: y}]", "belongs to kind csi"),
        ("target.head.nodes=[{key: a}]", "the others have"),
        ("target.security={network_policy_by: manifest}", "set network_policy=true, or drop it"),
        ("target.worker.tpu={type: v5e, topology: 4by4}", "should be the chips of a slice by side"),
        ("target.pod_fields={A: podIP}", "should be a field of the pod"),
    ],
)
def test_what_is_no_value_is_refused(rendered: Rendered, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rendered(override)
