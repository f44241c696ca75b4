"""The real kubectl applies every object of every shipped config, and finds nothing to change when it does so
again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake import FakeCluster
from fake.operator import take_up

from raystack.code.bundle import bundle
from raystack.config import load
from raystack.kuberay.manifest import kustomize, render, to_yaml
from raystack.plan import plan_kuberay

pytestmark = pytest.mark.kube

EXAMPLES = Path(__file__).parents[2] / "examples" / "05_kubernetes"
SHIPPED = Path(__file__).parents[2] / "kuberay" / "manifests"
FORMS: dict[str, Any] = {
    "cron": "cron",
    "service": "service",
    "eks_trainium": "cluster",
    "gke_tpu": "cluster",
}


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda file: file.stem)
def test_kubectl_applies_what_is_rendered(
    file: Path, cluster: FakeCluster, kubectl: Callable[..., Any]
) -> None:
    config = load(file)
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}})
    manifests = render(plan_kuberay(config, "digits-1", FORMS.get(file.stem, "job")), bundle(config))
    applied = kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=to_yaml(manifests))
    assert applied.stdout.count("serverside-applied") == len(manifests)
    again = kubectl("diff", "--server-side", "-f", "-", stdin=to_yaml(manifests))
    assert again.stdout == ""


@pytest.mark.parametrize("form", ["job", "tune", "service", "cluster"])
def test_what_the_operator_writes_back_is_applied_again_without_force(
    form: Any, cluster: FakeCluster, kubectl: Callable[..., Any]
) -> None:
    """By kubectl, Argo or Flux: a list without the operator's empty field would be the operator's from then
    on.
    """
    text = (SHIPPED / f"{form}.yaml").read_text(encoding="utf-8")
    words = ("apply", "--server-side", "-f", "-")
    kubectl(*words, stdin=text)
    (kind,) = {each["kind"] for each in yaml.safe_load_all(text)} & {"RayJob", "RayService", "RayCluster"}
    (thing,) = cluster.all(kind)
    take_up(cluster, kind, thing["metadata"]["name"])
    kubectl(*words, stdin=text.replace("failureThreshold: 60", "failureThreshold: 90"))
    assert "90" in str(cluster.get(kind, thing["metadata"]["name"]))


def test_kustomize_builds_what_is_rendered(tmp_path: Path, kubectl: Callable[..., Any]) -> None:
    config = load(EXAMPLES / "hardened.yaml")
    manifests = render(plan_kuberay(config, None, "job"), bundle(config))
    for name, text in kustomize(manifests).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    built = list(yaml.safe_load_all(kubectl("kustomize", str(tmp_path)).stdout))
    assert {(each["kind"], each["metadata"]["name"]): each for each in built} == {
        (each["kind"], each["metadata"]["name"]): each for each in manifests
    }
