"""What is known of KubeRay and Kubernetes: one fact for the plan, for lint and for doctor."""

from typing import Any

import pytest

from raystack.config import load
from raystack.config.kuberay import KubeRay
from raystack.config.resources import Resources
from raystack.errors import PlanError
from raystack.kuberay.actions.operator import FIELDS
from raystack.kuberay.lint import RULES, Operator, documents, lint
from raystack.kuberay.lint.schemas import crds
from raystack.plan import plan_kuberay
from raystack.plan.accelerators import ACCELERATORS, peak_flops
from raystack.plan.kuberay.facts import (
    KAI_MODE,
    SINCE,
    amount,
    image_tag,
    is_accelerator,
    minor,
    newest,
    ray_of,
    seen_by_kuberay,
    version,
)
from raystack.plan.kuberay.schedule import schedule_mistake
from raystack.plan.scale import device_memory

CONFIG = "examples/05_kubernetes/job.yaml"
CRON: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayCronJob",
    "metadata": {"name": "nightly"},
}


@pytest.mark.parametrize(
    ("schedule", "fits"),
    [
        ("0 3 * * *", True),
        ("*/15 0-6 1,15 jan-mar MON", True),
        ("5/10 * ? * *", True),
        ("@hourly", True),
        ("@every 1h30m", True),
        ("@every .5h", True),
        ("@every hour", False),
        ("@every -1h", False),
        ("@fortnightly", False),
        ("@Daily", False),
        ("* * * *", False),
        ("60 * * * *", False),
        ("* * 0 * *", False),
        ("* * * 13 *", False),
        ("* * * * 7", False),
        ("5-1 * * * *", False),
        ("1-2-3 * * * *", False),
        ("*/0 * * * *", False),
        ("a * * * *", False),
        ("TZ=Europe/Berlin 0 3 * * *", False),
    ],
)
def test_the_plan_and_lint_accept_the_same_schedules(schedule: str, fits: bool) -> None:
    assert (schedule_mistake(schedule) is None) is fits
    cron = {**CRON, "spec": {"schedule": schedule, "jobTemplate": {}}}
    broken = {each.id for each in lint(documents([cron]))} & {"RS602", "RS603"}
    assert (not broken) is fits
    try:
        plan_kuberay(load(CONFIG, [f"target.cron.schedule='{schedule}'"]), None, "cron")
        planned = True
    except PlanError as error:
        planned = not any(each.where == "target.cron.schedule" for each in error.problems)
    assert planned is fits


@pytest.mark.parametrize(
    ("key", "fits"), [("team", True), ("example.com/team", True), ("-a./team", False), (".a/team", False)]
)
def test_the_plan_and_lint_accept_the_same_labels(key: str, fits: bool) -> None:
    head = {"labels": {key: "vision"}, "template": {"spec": {"containers": [{"name": "ray"}]}}}
    cluster = {**CRON, "kind": "RayCluster", "spec": {"headGroupSpec": head}}
    broken = {each.id for each in lint(documents([cluster]))} & {"RS305"}
    assert (not broken) is fits
    config = load(CONFIG)
    assert isinstance(config.target, KubeRay)
    labelled = config.target.model_copy(update={"labels": {key: "vision"}})
    try:
        plan_kuberay(config.model_copy(update={"target": labelled}), None, "job")
        planned = True
    except PlanError as error:
        planned = not any(each.where == "target.labels" for each in error.problems)
    assert planned is fits


def test_the_plan_and_lint_name_one_mode_for_kai() -> None:
    overrides = ["target.queue={scheduler: kai, name: team}", "target.submission.mode=K8sJobMode"]
    with pytest.raises(PlanError) as raised:
        plan_kuberay(load(CONFIG, overrides), None, "job")
    (problem,) = raised.value.problems
    assert problem.remedy == f"set target.submission.mode={KAI_MODE}"
    assert RULES["RS805"].remedy == f"set submissionMode: {KAI_MODE}"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2.52.0", (2, 52, 0)),
        ("v1.7.0", (1, 7, 0)),
        ("2.60.0rc1", (2, 60, 0)),
        ("2.60", (2, 60, 0)),
        ("newest", None),
    ],
)
def test_versions(text: str, numbers: tuple[int, int, int] | None) -> None:
    assert version(text) == numbers
    assert minor(text) == (numbers and numbers[:2])


def test_versions_compare_as_numbers() -> None:
    assert newest(["1.9.0", "1.10.0", "1.2.0"]) == "1.10.0"
    assert Operator("1.10.0").at_least("1.9.9")
    assert not Operator("1.9.9").at_least("1.10.0")
    assert Operator("nightly").at_least("1.10.0"), "what cannot be read is taken for the newest"


@pytest.mark.parametrize(
    ("image", "tag", "ray"),
    [
        ("rayproject/ray:2.60.0-py311-gpu", "2.60.0", "2.60.0"),
        ("rayproject/ray-ml:2.60.0@sha256:abc", "2.60.0", "2.60.0"),
        ("registry:5000/rayproject/ray:2.60.0", "2.60.0", "2.60.0"),
        ("registry:5000/ml/ray:1.4.2", "1.4.2", None),
        ("rayproject/ray:2.60.0rc1-py311", None, None),
        ("rayproject/ray:nightly", None, None),
        ("rayproject/ray", None, None),
        ("quay.io/kuberay/operator:v1.7.0", "1.7.0", None),
        ("registry:5000/mine", None, None),
    ],
)
def test_what_an_image_is_tagged_with(image: str, tag: str | None, ray: str | None) -> None:
    assert image_tag(image) == tag
    assert ray_of(image) == ray


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("500m", 0.5),
        ("2Gi", 2.0**31),
        ("1k", 1e3),
        ("1E", 1e18),
        ("1Ei", 2.0**60),
        ("100n", 1e-7),
        ("5u", 5e-6),
        ("1e3", 1e3),
        ("1E3", 1e3),
        (".5", 0.5),
        (4, 4.0),
        ("4GB", 0.0),
        ("many", 0.0),
    ],
)
def test_amounts(quantity: str | int, number: float) -> None:
    assert amount(quantity) == pytest.approx(number)


@pytest.mark.parametrize(
    ("key", "accelerator", "seen"),
    [
        ("nvidia.com/gpu", True, True),
        ("nvidia.com/mig-1g.5gb", True, True),
        ("nvidia.com/gpu.shared", True, False),
        ("nvidia.com/mig-1g.5gb.me", True, False),
        ("amd.com/gpu", True, True),
        ("gpu.intel.com/i915", True, False),
        ("habana.ai/gaudi", True, False),
        ("huawei.com/Ascend910", True, False),
        ("aws.amazon.com/neuroncore", True, True),
        ("google.com/tpu", True, True),
        ("cpu", False, False),
        ("rdma/hca", False, False),
    ],
)
def test_accelerators_by_their_resource(key: str, accelerator: bool, seen: bool) -> None:
    assert is_accelerator(key) is accelerator
    assert seen_by_kuberay(key) is seen


def test_fields_that_came_with_a_version_are_in_the_schema() -> None:
    """A field that is spelled wrong here would never be found."""
    roots = {
        "cluster": ("RayCluster", "spec."),
        "job": ("RayJob", "spec."),
        "service": ("RayService", ""),
        "cron": ("RayCronJob", ""),
    }
    for part, fields in SINCE.items():
        kind, prefix = roots[part]
        for path in fields:
            schema = crds()[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            for key in f"{prefix}{path}".split("."):
                schema = schema["items"] if key == "*" else schema["properties"][key]
    assert [since for since, _, _ in FIELDS] == sorted((since for since, _, _ in FIELDS), reverse=True)


def test_an_accelerator_has_memory_peaks_and_nodes() -> None:
    for name, known in ACCELERATORS.items():
        workers = Resources(accelerator_type=name, gpus_per_worker=1)
        assert device_memory(workers) == int(known.memory_gib * 2**30)
        for product in known.products:
            device = product.replace("-", " ")
            assert peak_flops(device, "fp32") in {
                known.peaks["fp32"],
                *(peaks["fp32"] for peaks in known.variants.values()),
            }, device
