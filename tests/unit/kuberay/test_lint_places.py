"""Lint sees what is wrong with a pod wherever the pod is said, and once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from objects import good, merged

from raystack.kuberay.lint import Operator, documents, lint

TABLE: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parent / "pod_cases.yaml").read_text(encoding="utf-8")
)
CASES = [(rules, case) for rules, cases in TABLE.items() for case in cases]
KNOWN = Operator(gates=frozenset({"RayCronJob"}))
Patch = Mapping[Any, Any]


def below(patch: Patch, *keys: str | int) -> Patch:
    """A patch at a path."""
    return below({keys[-1]: patch}, *keys[:-1]) if keys else patch


def objects(pod: Patch, container: Patch) -> dict[str, dict[str, Any]]:
    """Objects with the pod in each place, and the container as each kind of one."""
    first = {**pod, "containers": {0: container}}
    further = {"name": "further", "image": "mine", **container}
    submit = {
        "restartPolicy": "Never",
        "containers": [{"name": "submit", "image": "mine", **container}],
        **pod,
    }
    head, workers = ("headGroupSpec", "template", "spec"), ("workerGroupSpecs", 0, "template", "spec")
    cron = ("spec", "jobTemplate")
    patches = {
        "RayCluster": below(first, "spec", *workers),
        "RayService": below(first, "spec", "rayClusterConfig", *head),
        "RayJob": below({**pod, "initContainers": [further]}, "spec", "rayClusterSpec", *head),
        "RayCronJob": merged(
            below({**pod, "containers": {1: further}}, *cron, "rayClusterSpec", *workers),
            below(submit, *cron, "submitterPodTemplate", "spec"),
        ),
    }
    return {kind: merged(good(kind), patch) for kind, patch in patches.items()}


@pytest.mark.parametrize(("rules", "case"), CASES, ids=[f"{rules}-{case}" for rules, case in CASES])
def test_a_pod_is_looked_at_wherever_it_is(rules: str, case: dict[str, Any]) -> None:
    for kind, whole in objects(case.get("pod", {}), case.get("container", {})).items():
        found = lint(documents([whole]), KNOWN)
        # A head that lists ports is asked for the dashboard's, too.
        told = [each for each in found if each.level == "error" and each.id != "RS703"]
        assert {each.id for each in told} <= set(rules.split()), kind
        assert len(told) == (2 if kind == "RayCronJob" else 1), kind
