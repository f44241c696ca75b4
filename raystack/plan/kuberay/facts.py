"""Facts about KubeRay and Kubernetes, shared by the plan, lint and doctor.

From the source of KubeRay's operator, up to 1.7.0.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Literal, get_args

RayKind = Literal["RayCluster", "RayJob", "RayService", "RayCronJob"]
RAY_KINDS: tuple[RayKind, ...] = get_args(RayKind)
"""KubeRay's kinds."""

# Versions

Version = tuple[int, int, int]

SINCE: Mapping[str, Mapping[str, str]] = {
    "cluster": {
        "suspend": "1.2.0",
        "managedBy": "1.3.0",
        "gcsFaultToleranceOptions": "1.3.0",
        "gcsFaultToleranceOptions.backend": "1.7.0",
        "gcsFaultToleranceOptions.storage": "1.7.0",
        "autoscalerOptions.version": "1.4.0",
        "autoscalerOptions.command": "1.7.0",
        "autoscalerOptions.args": "1.7.0",
        "headGroupSpec.labels": "1.5.0",
        "headGroupSpec.resources": "1.5.0",
        "headGroupSpec.ingressOptions": "1.7.0",
        "workerGroupSpecs.*.labels": "1.5.0",
        "workerGroupSpecs.*.resources": "1.5.0",
        "workerGroupSpecs.*.priority": "1.7.0",
        "authOptions": "1.5.1",
        "authOptions.secretName": "1.6.0",
        "authOptions.enableK8sTokenAuth": "1.6.0",
        "upgradeStrategy": "1.6.0",
        "networkPolicy": "1.7.0",
        "tlsOptions": "1.7.0",
        "historyServerOptions": "1.7.0",
    },
    "job": {
        "managedBy": "1.3.0",
        "deletionStrategy": "1.4.0",
        "deletionStrategy.deletionRules": "1.5.0",
        "deletionStrategy.deletionRules.*.condition.jobDeploymentStatus": "1.6.0",
        "preRunningDeadlineSeconds": "1.6.0",
    },
    "service": {
        "spec.upgradeStrategy": "1.3.0",
        "spec.upgradeStrategy.clusterUpgradeOptions": "1.5.0",
        "spec.rayClusterDeletionDelaySeconds": "1.5.0",
        "spec.managedBy": "1.6.0",
        "spec.suspend": "1.7.0",
    },
    "cron": {"spec": "1.6.0", "spec.timeZone": "1.7.0"},
}
"""First KubeRay version of each field, for specs of RayClusters and RayJobs at any depth, RayServices and
RayCronJobs. Fields older than 1.2.0 are omitted.
"""
SIDECAR_SINCE = "1.5.0"
"""First KubeRay with `submissionMode: SidecarMode`."""
ON_SINCE: Mapping[str, str] = {
    "RayClusterStatusConditions": "1.3.0",
    "RayJobDeletionPolicy": "1.6.0",
    "RayMultiHostIndexing": "1.6.0",
    "RayServiceIncrementalUpgrade": "1.7.0",
}
"""Feature gates that are on by default, with the first such KubeRay."""
OFF = frozenset(
    {
        "GCSFaultToleranceEmbeddedStorage",
        "KubernetesWAS",
        "RayClusterHistoryServer",
        "RayClusterMTLS",
        "RayClusterNetworkPolicy",
        "RayCronJob",
        "SidecarSubmitterRestart",
    }
)
"""Feature gates that are off by default."""


def version(text: str) -> Version | None:
    """Return `2.52.0` or `2.52.0rc1` as numbers, or None if the text is no version."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def at_least(text: str, wanted: str) -> bool:
    """Return whether a version is at least another one. One that cannot be parsed counts as newest."""
    own, other = version(text), version(wanted)
    return own is None or other is None or own >= other


def newest(versions: Iterable[str]) -> str:
    """Return the highest version."""
    return max(versions, key=lambda text: version(text) or (0, 0, 0))


def minor(text: str) -> tuple[int, int] | None:
    """Return a version without its last number, which releases that belong together share."""
    return None if (found := version(text)) is None else found[:2]


def image_tag(image: str) -> str | None:
    """Return the version of an image's tag, e.g. `1.7.0` of `registry/operator:v1.7.0`, or None."""
    found = re.search(r":v?(\d+\.\d+\.\d+)(?=[-@]|$)", image.rpartition("/")[2])
    return found[1] if found else None


def ray_of(image: str) -> str | None:
    """Return Ray's version of an official image, e.g. `rayproject/ray:2.60.0-py311-gpu`, or None.

    A mirror keeps the owner's name; the tag of an image of any other owner is a version of its own.
    """
    return image_tag(image) if re.search(r"(^|/)rayproject/ray[a-z-]*(:|@|$)", image) else None


METADATA_RAY = "2.6.0"
"""First Ray whose jobs have metadata."""
TOKEN_RAY = "2.52.0"
"""First Ray with token authentication."""
KUBERNETES_TOKEN_RAY = "2.55.0"
"""First Ray that accepts tokens of Kubernetes."""
PRIORITY_RAY = "2.56.0"
"""First Ray whose autoscaler supports priorities of groups."""

# Names and ports

NAME_LIMITS: Mapping[RayKind, int] = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}
"""Length limits of names, to which KubeRay appends suffixes."""
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
"""Value of a label that is not empty."""
_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL_KEY = re.compile(rf"((?=.{{1,253}}/){_PART}(\.{_PART})*/)?{LABEL.pattern}")
"""`prefix/name` of a label; the prefix is a domain."""
PORTS: Mapping[str, int] = {
    "gcs-server": 6379,
    "dashboard": 8265,
    "client": 10001,
    "serve": 8000,
    "metrics": 8080,
    "as-metrics": 44217,
    "dash-metrics": 44227,
}
"""Ports of the head by KubeRay's names; every pod has `metrics`."""

# Amounts and devices

_UNITS: Mapping[str, float] = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    **{unit: 1e3**power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)},
}
_AMOUNT = re.compile(rf"([+-]?(?:\d+\.?\d*|\.\d+))({'|'.join(filter(None, _UNITS))}|[eE][+-]?\d+)?")

_COUNTED = re.compile(r"gpu$|nvidia\.com/mig-\d+g\.\d+gb$")
_ACCELERATOR = re.compile(r"gpu|nvidia\.com/|amd\.com/|habana\.ai/|neuron|tpu|npu|ascend", re.IGNORECASE)
GPU = "GPU"
NAMES: tuple[tuple[str, str], ...] = (
    ("aws.amazon.com/neuron", "neuron_cores"),
    ("habana.ai/gaudi", "HPU"),
    ("google.com/tpu", "TPU"),
    ("huawei.com/", "NPU"),
)
"""Ray's names of accelerators that are no GPU, by the beginning of Kubernetes' name."""
TOLD: Mapping[str, str] = {"aws.amazon.com/neuroncore": "neuron_cores", "google.com/tpu": "TPU"}
"""Resources that KubeRay reports to Ray under another name than GPU."""


def amount(quantity: object) -> float:
    """Return a Kubernetes quantity as a number: `500m` is 0.5, `2Gi` 2147483648; 0 if it is none."""
    found = _AMOUNT.fullmatch(str(quantity))
    if found is None:
        return 0.0
    number, unit = found[1], found[2] or ""
    return float(number) * _UNITS[unit] if unit in _UNITS else float(number + unit)


def exact(number: float) -> str:
    """Return an amount without an exponent and without rounding: 8589934592.0 is `8589934592`."""
    text = format(Decimal(str(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_accelerator(key: str) -> bool:
    """Return whether a device plugin's resource is an accelerator, by its name."""
    return "/" in key and _ACCELERATOR.search(key) is not None


def ray_name(key: str) -> str:
    """Return Ray's name of an accelerator."""
    return next((name for start, name in NAMES if key.startswith(start)), GPU)


def counted_as_gpu(key: str) -> bool:
    """Return whether KubeRay sets Ray's `num-gpus` from a resource of Kubernetes."""
    return _COUNTED.search(key) is not None


def seen_by_kuberay(key: str) -> bool:
    """Return whether KubeRay reports a resource to Ray at all."""
    return counted_as_gpu(key) or key in TOLD


# Queues

KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
KUEUE_ELASTIC = "kueue.x-k8s.io/elastic-job"
MULTIKUEUE = "kueue.x-k8s.io/multikueue"
VOLCANO_QUEUE = "volcano.sh/queue-name"
VOLCANO_MODE = "volcano.sh/network-topology-mode"
VOLCANO_TIER = "volcano.sh/network-topology-highest-tier-allowed"
VOLCANO_PRIORITY = "ray.io/priority-class-name"
YUNIKORN_QUEUE = "yunikorn.apache.org/queue"
YUNIKORN_APP = "yunikorn.apache.org/app-id"
KAI_QUEUE = "kai.scheduler/queue"
GANG = "ray.io/gang-scheduling-enabled"
"""Label that enables gangs in yunikorn and scheduler-plugins, whatever its value."""

QUEUES = (KUEUE_QUEUE, VOLCANO_QUEUE, YUNIKORN_QUEUE, KAI_QUEUE)
"""Labels that name a queue."""
READ_BY: Mapping[str, str] = {
    VOLCANO_QUEUE: "volcano",
    VOLCANO_MODE: "volcano",
    VOLCANO_TIER: "volcano",
    VOLCANO_PRIORITY: "volcano",
    YUNIKORN_QUEUE: "yunikorn",
    YUNIKORN_APP: "yunikorn",
    KAI_QUEUE: "kai-scheduler",
}
"""Labels with the only scheduler that reads them, by its `batchScheduler.name`."""
KAI_REFUSES = "K8sJobMode"
"""Submission mode in which the operator rejects a RayJob for KAI: the submitter's pod is not in the gang.
SidecarMode, HTTPMode and InteractiveMode are accepted.
"""
KAI_MODE = "HTTPMode"
"""Mode to suggest instead: a sidecar ends with the head, and allows no clusterSelector."""
