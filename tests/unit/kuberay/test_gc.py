"""What idle clusters have cost, beside what may be deleted."""

import time
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from raystack.config.price_list import load_prices
from raystack.kuberay.actions.gc import OWN, collect
from raystack.kuberay.api.client import Client

HOUR = 3600.0


def moment(age_s: float) -> str:
    return datetime.fromtimestamp(time.time() - age_s, UTC).isoformat()


def pod(machine: str, **limits: str) -> dict[str, Any]:
    selector = {"node.kubernetes.io/instance-type": machine}
    return {"spec": {"nodeSelector": selector, "containers": [{"resources": {"limits": limits}}]}}


def cluster(name: str, **spec: Any) -> dict[str, Any]:
    workers = {"replicas": 2, "template": pod("p5.48xlarge", **{"nvidia.com/gpu": "8"})}
    made = {
        "headGroupSpec": {"template": pod("m5.2xlarge", cpu="2")},
        "workerGroupSpecs": [workers],
        **spec,
    }
    return {"kind": "RayCluster", "metadata": {"name": name, "ownerReferences": [{}]}, "spec": made}


def job(name: str, uses: str, age_s: float) -> dict[str, Any]:
    status = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": moment(age_s)}
    return {
        "kind": "RayJob",
        "metadata": {"name": name, "labels": OWN},
        "spec": {},
        "status": {**status, "rayClusterName": uses},
    }


class Held:
    """A cluster of Kubernetes that has these objects."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self._objects = objects

    def list(self, kind: str, *, everywhere: bool) -> list[dict[str, Any]]:
        return [each for each in self._objects if each["kind"] == kind]


def idle(*objects: dict[str, Any], prices: str | None = "eks") -> dict[str, str]:
    table = load_prices(prices) if prices is not None else None
    found = collect(cast(Client, Held(*objects)), HOUR, table)
    return {each.name: each.idle.line if each.idle is not None else "" for each in found}


def test_a_cluster_that_outlived_its_job_costs_from_then_on() -> None:
    # Three hours: two machines of 55.04, and a quarter of one of 0.384.
    found = idle(job("digits", "digits-x", 3 * HOUR), cluster("digits-x"))
    assert found == {"digits": f"48.00 GPU-hours, {3 * (2 * 55.04 + 0.384 / 4):.2f} USD"}
    assert found["digits"].endswith("330.53 USD")


@pytest.mark.parametrize("there", [(), (cluster("digits-x", suspend=True),)])
def test_one_that_is_gone_or_suspended_costs_nothing(there: tuple[dict[str, Any], ...]) -> None:
    assert idle(job("digits", "digits-x", 3 * HOUR), *there) == {"digits": ""}


def test_without_prices_the_gpus_are_shown() -> None:
    assert idle(job("a", "x", HOUR / 2), cluster("x"), prices=None) == {"a": "8.00 GPU-hours"}
    assert idle(job("a", "x", HOUR / 2), cluster("x"), prices="gke") == {"a": "8.00 GPU-hours"}


def test_pods_of_several_hosts_and_the_spot_market() -> None:
    template = pod("g2-standard-8", **{"nvidia.com/gpu": "1"})
    template["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] = "true"
    groups = [
        {"replicas": 2, "numOfHosts": 3, "template": template},
        {"replicas": 9, "suspend": True, "template": template},
    ]
    head = {"template": pod("n2-standard-8", cpu="8")}
    found = idle(job("a", "x", HOUR), cluster("x", headGroupSpec=head, workerGroupSpecs=groups), prices="gke")
    assert found == {"a": f"6.00 GPU-hours, {6 * 0.340572 + 0.388472:.2f} USD"}
