"""Slices of several hosts: workers are counted as pods, and only KubeRay counts replicas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raystack.code.bundle import Bundle
from raystack.config import load
from raystack.errors import PlanError
from raystack.kuberay.manifest import Manifest, render
from raystack.kuberay.manifest.asked import pods
from raystack.plan import plan_kuberay, plan_training
from raystack.plan.describe import rows

GOOD = """\
experiment: {name: demo, storage: "s3://bucket/demo"}
task: {entry: "task:Demo"}
training: {steps: 10, batch: {global: 48}}
resources: {workers: 8, cpus_per_worker: 2}
tuning:
  {metric: eval/loss, mode: min, trials: 6, parallel: 2, space: {training.optimizer.lr: {uniform: [1, 2]}}}
tracking: {uri: "http://mlflow.ml.svc:5000"}
serving: {model: "models:/demo@champion", replicas: 3}
target: {kind: kuberay, image: "registry.example.com/raystack:1"}
"""
TPU = "target.worker.tpu={type: v5e, topology: 4x4}"
Config = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config.yaml").write_text(GOOD)
    return lambda *overrides: load(tmp_path / "config.yaml", overrides)


def rendered(config: Any, form: Any = "job") -> tuple[Manifest, ...]:
    return render(plan_kuberay(config, None, form), Bundle({"config.yaml": b"a: 1\n"}))


def group_of(manifests: tuple[Manifest, ...], index: int = 0) -> dict[str, Any]:
    spec = manifests[-1]["spec"]
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    found: dict[str, Any] = cluster["workerGroupSpecs"][index]
    return found


def numbers(group: dict[str, Any]) -> tuple[int | None, int, int, int]:
    names = ("replicas", "minReplicas", "maxReplicas", "numOfHosts")
    replicas, least, most, hosts = (group.get(name) for name in names)
    return replicas, least or 0, most or 0, hosts or 1


def test_a_training_on_eight_hosts_has_two_slices_and_eight_workers(config: Config) -> None:
    asked = config(TPU)
    made = rendered(asked)
    assert numbers(group_of(made)) == (2, 2, 2, 4)
    assert plan_training(asked, "run").workers.count == 8
    (workers,) = (each for each in pods(made) if each.role == "worker")
    assert (workers.count, workers.amounts["google.com/tpu"]) == (8, 4.0)
    table = dict(rows(plan_training(asked, "run"), plan_kuberay(asked, None, "job")))
    assert table["worker pods"] == "8 in slices of 4 hosts, 2 CPU, 8Gi, 4 google.com/tpu each"


def test_a_slice_is_asked_of_its_nodes(config: Config) -> None:
    pod = group_of(rendered(config(TPU, "target.worker.node_selector={pool: tpu}")))["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "pool": "tpu",
    }
    assert pod["tolerations"] == [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("tpu", "hosts", "chips"),
    [
        ("{type: v5e, topology: 1x1}", 1, "1"),
        ("{type: v6e, topology: 2x4}", 1, "8"),
        ("{type: v6e, topology: 2x4, chips: 4}", 2, "4"),
        ("{type: v6e, topology: 4x8}", 8, "4"),
        ("{type: v4, topology: 2x2x4}", 4, "4"),
        ("{type: v5p, topology: 2x2x2}", 2, "4"),
        ("{type: v7x, topology: 2x2x1}", 1, "4"),
    ],
)
def test_a_topology_says_the_hosts_and_their_chips(config: Config, tpu: str, hosts: int, chips: str) -> None:
    group = group_of(rendered(config(f"target.worker.tpu={tpu}")))
    (container,) = group["template"]["spec"]["containers"]
    assert numbers(group) == (8 // hosts, 8 // hosts, 8 // hosts, hosts)
    assert container["resources"]["limits"]["google.com/tpu"] == chips


def test_elastic_workers_come_by_the_slice(config: Config) -> None:
    scaled = config("target.worker.hosts=2", "resources.workers=[2,8]", "target.autoscaling.enabled=true")
    assert numbers(group_of(rendered(scaled))) == (None, 1, 4, 2)
    study = config("target.worker.hosts=4")
    assert numbers(group_of(rendered(study, "tune"))) == (None, 2, 4, 4)


def test_a_service_has_slices_enough_for_its_replicas(config: Config) -> None:
    assert numbers(group_of(rendered(config("target.worker.hosts=2"), "service"))) == (2, 2, 2, 2)


def test_a_further_group_has_slices_of_its_own(config: Config) -> None:
    more = "target.groups={tpu: {workers: 8, hosts: 4}, more: {workers: 2, tpu: {type: v6e, topology: 2x4}}}"
    made = rendered(config(more, "resources.gpus_per_worker=1"))
    assert numbers(group_of(made, 1)) == (2, 2, 2, 4)
    (container,) = group_of(made, 2)["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "8Gi", "google.com/tpu": "8"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((TPU, "resources.workers=6"), r"slices of 4 hosts \(got 6\); set it to 8"),
        (
            ("target.worker.hosts=4", "resources.workers=[2,8]", "target.autoscaling.enabled=true"),
            r"got \[2, 8\]\); set it to \[4,8\]",
        ),
        ((TPU, "target.worker.hosts=2"), r"target.worker.hosts: a slice 4x4 .* has 4"),
        (("target.worker.tpu={type: v5p, topology: 4x4}",), "a slice of v5p has 3 sides"),
        (("target.worker.tpu={type: v5e, topology: 2x5}",), "are not whole hosts of 4"),
        ((TPU, "resources.gpus_per_worker=1"), "a machine has GPUs or TPUs"),
        ((TPU, "target.worker.resources={google.com/tpu: 4}"), "which tpu says"),
        (("resources.custom={TPU: 4}",), "set target.worker.tpu"),
        ((TPU, "resources.placement=STRICT_PACK"), "a slice has 4"),
        (("target.groups={tpu: {workers: 3, hosts: 2}}",), r"target.groups.tpu.workers: .* set it to 4"),
        (
            ("target.overlay={workerGroupSpecs: [{groupName: workers, numOfHosts: 3}]}",),
            "workers come in slices of 3 hosts",
        ),
    ],
)
def test_what_is_no_whole_slice_is_refused(config: Config, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        rendered(config(*overrides))
