"""Rules on what the operator has to support: fields of newer versions, and feature gates."""

from collections.abc import Iterator, Mapping

from raystack.kuberay.lint.node import Keys, Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, JobSubject, ObjectSubject, Subject
from raystack.plan.kuberay.facts import SIDECAR_SINCE, SINCE


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
    if (
        isinstance(subject, JobSubject)
        and subject.mode == "SidecarMode"
        and not operator.at_least(SIDECAR_SINCE)
    ):
        mode = subject.node["submissionMode"]
        yield Breach(
            mode,
            says=f"SidecarMode came with KubeRay {SIDECAR_SINCE}, and the operator is {operator.version}",
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


def _fields(subject: Subject) -> Mapping[str, str]:
    if isinstance(subject, ClusterSubject):
        return SINCE["cluster"]
    if isinstance(subject, JobSubject):
        return SINCE["job"]
    return {"RayService": SINCE["service"], "RayCronJob": SINCE["cron"]}.get(subject.kind, {})


def _gated(subject: Subject) -> Iterator[tuple[Node, str]]:
    """Yield the fields that need a feature gate, and the gate."""
    node = subject.node
    if isinstance(subject, ClusterSubject):
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
    elif isinstance(subject, JobSubject):
        gates = {"RayJobDeletionPolicy": [node["deletionStrategy"]]}
    else:
        upgrade = node.at("spec", "upgradeStrategy", "type")
        gates = {
            "RayServiceIncrementalUpgrade": [upgrade]
            if upgrade.text == "NewClusterWithIncrementalUpgrade"
            else [],
            "RayCronJob": [node["kind"]]
            if isinstance(subject, ObjectSubject) and subject.kind == "RayCronJob"
            else [],
        }
    yield from ((found, name) for name, places in gates.items() for found in places if found.present)
