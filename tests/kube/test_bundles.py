"""Bundles as Argo CD and Flux apply them: kubectl builds them, and no field is fought over by the controller,
the operator and Ray's autoscaler.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake import FakeCluster
from fake.operator import take_up

from raystack.config import load
from raystack.kuberay.actions.gitops import build
from raystack.kuberay.manifest import to_yaml

pytestmark = pytest.mark.kube

EXAMPLES = Path(__file__).parents[2] / "examples" / "05_kubernetes"
SOURCE = "target.gitops.source=https://git.example.com/ml.git"
MANAGERS = {"argo": "argocd-controller", "flux": "kustomize-controller"}
MODEL = "serving.model=models:/digits/7"

Object = dict[str, Any]
Kubectl = Callable[..., Any]


def bundle(folder: Path, kubectl: Kubectl, controller: Any, name: str, form: Any, *overrides: str) -> str:
    """Write a bundle, and return what kustomize builds of it."""
    config = load(EXAMPLES / f"{name}.yaml", [SOURCE, "target.namespace=default", *overrides])
    made = build(config, [form], controller, "deploy")
    folder.mkdir()
    for file, content in made.texts.items():
        (folder / file).write_text(content, encoding="utf-8")
    listed = yaml.safe_load(made.texts["kustomization.yaml"])["resources"]
    text: str = kubectl("kustomize", str(folder)).stdout
    found = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}
    written = [yaml.safe_load(made.texts[file]) for file in listed]
    assert found == {(each["kind"], each["metadata"]["name"]): each for each in written}
    return to_yaml(written)


@pytest.mark.parametrize("controller", MANAGERS)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("elastic", "job"),
        ("service", "service"),
        ("elastic", "cluster"),
        ("everything", "job"),
        ("everything", "service"),
        ("everything", "cluster"),
    ],
)
def test_the_controller_and_the_operator_do_not_fight(
    controller: str, name: str, form: str, tmp_path: Path, cluster: FakeCluster, kubectl: Kubectl
) -> None:
    text = bundle(tmp_path / "deploy", kubectl, controller, name, form, MODEL)
    words = ("apply", "--server-side", "--field-manager", MANAGERS[controller], "-f", "-")
    kubectl(*words, stdin=text)
    *_, main = yaml.safe_load_all(text)
    kind, called = main["kind"], main["metadata"]["name"]
    taken = take_up(cluster, kind, called)
    kubectl(*words, stdin=text)
    live = cluster.get(kind, called) or {}
    assert live["metadata"]["resourceVersion"] == taken["metadata"]["resourceVersion"], "nothing to write"
    changed = text.replace("failureThreshold: 60", "failureThreshold: 90")
    kubectl(*words, stdin=changed)
    assert "90" in str(cluster.get(kind, called))


def without_numbers(cluster: Object) -> Object:
    """The spec without what the Application has Argo CD ignore."""
    spec: Object = copy.deepcopy(cluster["spec"])
    for group in spec["workerGroupSpecs"]:
        group.pop("replicas", None)
        group.get("scaleStrategy", {}).pop("workersToDelete", None)
    return spec


@pytest.mark.parametrize("controller", MANAGERS)
def test_a_cluster_that_the_autoscaler_has_scaled_is_in_sync(
    controller: str, tmp_path: Path, cluster: FakeCluster, kubectl: Kubectl
) -> None:
    """The controller compares a dry run with what lives, apart from what it is told to ignore."""
    text = bundle(tmp_path / "deploy", kubectl, controller, "elastic", "cluster")
    words = (
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager",
        MANAGERS[controller],
        "-f",
        "-",
    )
    kubectl(*words, stdin=text)
    take_up(cluster, "RayCluster", "digits-cluster")
    live = cluster.get("RayCluster", "digits-cluster") or {}
    group = live["spec"]["workerGroupSpecs"][0]
    group |= {"replicas": 5, "scaleStrategy": {"workersToDelete": ["pod-1"]}}
    live = cluster.update(live, "autoscaler")
    main = to_yaml([list(yaml.safe_load_all(text))[-1]])
    tried = json.loads(kubectl(*words, "--dry-run=server", "-o", "json", stdin=main).stdout)
    assert tried["spec"] != live["spec"], "what is ignored would be set"
    assert without_numbers(tried) == without_numbers(live)


def test_a_changed_job_is_a_second_one_and_leaves_the_first_alone(
    tmp_path: Path, cluster: FakeCluster, kubectl: Kubectl
) -> None:
    words = ("apply", "--server-side", "-f", "-")
    kubectl(*words, stdin=bundle(tmp_path / "one", kubectl, "flux", "job", "job"))
    (first,) = cluster.all("RayJob")
    kubectl(*words, stdin=bundle(tmp_path / "two", kubectl, "flux", "job", "job", "training.epochs=9"))
    jobs = {each["metadata"]["name"]: each for each in cluster.all("RayJob")}
    assert len(jobs) == 2
    assert jobs[first["metadata"]["name"]] == first
