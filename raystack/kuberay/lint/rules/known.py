"""What the operator has to know for a manifest to mean what it says: fields that came with a version, and
feature gates.
"""

from collections.abc import Iterator

from raystack.kuberay.lint.node import Keys, Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import Cluster, Job, Resource, Subject

CLUSTER_FIELDS = {
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
}
JOB_FIELDS = {
    "managedBy": "1.3.0",
    "deletionStrategy": "1.3.0",
    "deletionStrategy.deletionRules": "1.5.0",
    "deletionStrategy.deletionRules.*.condition.jobDeploymentStatus": "1.6.0",
    "preRunningDeadlineSeconds": "1.6.0",
}
SERVICE_FIELDS = {
    "spec.upgradeStrategy": "1.3.0",
    "spec.upgradeStrategy.clusterUpgradeOptions": "1.5.0",
    "spec.rayClusterDeletionDelaySeconds": "1.5.0",
    "spec.managedBy": "1.6.0",
    "spec.suspend": "1.7.0",
}
CRON_FIELDS = {"spec": "1.6.0", "spec.timeZone": "1.7.0"}


@rule(
    "RS130",
    on=Subject,
    says="the operator knows the field",
    why="an older CRD drops it without a word",
    remedy="upgrade KubeRay and its CRDs, or drop the field",
)
def newer(subject: Subject, operator: Operator) -> Iterator[Breach]:
    dropped: list[Keys] = []
    for pattern, since in _fields(subject).items():
        for node in [] if operator.at_least(since) else subject.node.find(pattern):
            if not any(node.keys[: len(above)] == above for above in dropped):
                dropped.append(node.keys)
                yield Breach(
                    node, says=f"the field came with KubeRay {since}, and the operator is {operator.version}"
                )
    if isinstance(subject, Job) and subject.mode == "SidecarMode" and not operator.at_least("1.5.0"):
        mode = subject.node["submissionMode"]
        yield Breach(
            mode, says=f"SidecarMode came with KubeRay 1.5.0, and the operator is {operator.version}"
        )


@rule(
    "RS131",
    on=Subject,
    says="the feature gate is on",
    why="without it the operator refuses the object or leaves it alone",
    remedy="start the operator with it, Helm's featureGates",
)
def gate(subject: Subject, operator: Operator) -> Iterator[Breach]:
    for node, name in _gated(subject):
        on = operator.has(name)
        if on:
            continue
        known = "off" if on is False else "not known to be on"
        remedy = f"start the operator with --feature-gates={name}=true, Helm's featureGates"
        yield Breach(
            node,
            f"it needs the feature gate {name}, which is {known}",
            remedy,
            level="error" if on is False else "warning",
        )


def _fields(subject: Subject) -> dict[str, str]:
    if isinstance(subject, Cluster):
        return CLUSTER_FIELDS
    if isinstance(subject, Job):
        return JOB_FIELDS
    return {"RayService": SERVICE_FIELDS, "RayCronJob": CRON_FIELDS}.get(subject.kind, {})


def _gated(subject: Subject) -> Iterator[tuple[Node, str]]:
    """What needs a gate, and which."""
    node = subject.node
    if isinstance(subject, Cluster):
        backend = node.at("gcsFaultToleranceOptions", "backend")
        gates = {
            "GCSFaultToleranceEmbeddedStorage": [backend] if backend.text == "rocksdb" else [],
            "RayClusterHistoryServer": [node["historyServerOptions"]],
            "RayClusterNetworkPolicy": [node["networkPolicy"]],
            "RayClusterMTLS": [node["tlsOptions"]],
            "RayJobDeletionPolicy": [
                group.node["suspend"] for group in subject.workers if group.node["suspend"].true
            ],
        }
    elif isinstance(subject, Job):
        gates = {"RayJobDeletionPolicy": [node["deletionStrategy"]]}
    else:
        upgrade = node.at("spec", "upgradeStrategy", "type")
        gates = {
            "RayServiceIncrementalUpgrade": [upgrade]
            if upgrade.text == "NewClusterWithIncrementalUpgrade"
            else [],
            "RayCronJob": [node["kind"]]
            if isinstance(subject, Resource) and subject.kind == "RayCronJob"
            else [],
        }
    yield from ((found, name) for name, places in gates.items() for found in places if found.present)
