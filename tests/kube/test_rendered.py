"""The real kubectl applies every object of every shipped config, and finds nothing to change when it does so again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake import FakeCluster

from raystack.config import load
from raystack.launch.bundle import bundle
from raystack.launch.kuberay.manifest import kustomize, render, to_yaml
from raystack.plan import plan_kuberay

pytestmark = pytest.mark.kube

EXAMPLES = Path(__file__).parents[2] / "examples" / "05_kubernetes"
FORMS: dict[str, Any] = {"cron": "cron", "service": "service"}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_kubectl_applies_what_is_rendered(file: Path, cluster: FakeCluster, kubectl: Callable[..., Any]) -> None:
    config = load(file)
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}})
    manifests = render(plan_kuberay(config, "digits-1", FORMS.get(file.stem, "job")), bundle(config))
    applied = kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=to_yaml(manifests))
    assert applied.stdout.count("serverside-applied") == len(manifests)
    again = kubectl("diff", "--server-side", "-f", "-", stdin=to_yaml(manifests))
    assert again.stdout == ""


def test_kustomize_builds_what_is_rendered(tmp_path: Path, kubectl: Callable[..., Any]) -> None:
    config = load(EXAMPLES / "hardened.yaml")
    manifests = render(plan_kuberay(config, None, "job"), bundle(config))
    for name, text in kustomize(manifests).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    built = list(yaml.safe_load_all(kubectl("kustomize", str(tmp_path)).stdout))
    assert {(each["kind"], each["metadata"]["name"]): each for each in built} == {
        (each["kind"], each["metadata"]["name"]): each for each in manifests
    }
