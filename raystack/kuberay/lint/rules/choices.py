"""Rules of the API server on labels, and on fields of pods that are one of a few words."""

from collections.abc import Iterator, Mapping

from raystack.errors import nearest
from raystack.kuberay.lint.forms import misfit
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import NO_PODS, REFUSED, Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, ObjectSubject, PodSubject, Subject
from raystack.plan.kuberay.facts import LABEL, LABEL_KEY

EXPRESSIONS = ("In", "NotIn", "Exists", "DoesNotExist")
RULE_OF_VALUES = "at most 63 letters, digits, dashes, dots and underscores"
SERVICES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
TERMS = {
    f"affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms.*",
    f"affinity.nodeAffinity.{PREFERRED}.*.preference",
}
SELECTORS = {
    *(f"affinity.{kind}.{REQUIRED}.*.labelSelector" for kind in ("podAffinity", "podAntiAffinity")),
    *(
        f"affinity.{kind}.{PREFERRED}.*.podAffinityTerm.labelSelector"
        for kind in ("podAffinity", "podAntiAffinity")
    ),
    "topologySpreadConstraints.*.labelSelector",
}
OF_PODS: Mapping[str, tuple[str, ...]] = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "preemptionPolicy": ("PreemptLowerPriority", "Never"),
    "os.name": ("linux", "windows"),
    "securityContext.fsGroupChangePolicy": ("OnRootMismatch", "Always"),
    "securityContext.seccompProfile.type": ("RuntimeDefault", "Unconfined", "Localhost"),
    "tolerations.*.operator": ("Exists", "Equal", "Lt", "Gt"),
    "tolerations.*.effect": EFFECTS,
    "topologySpreadConstraints.*.whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
    "volumes.*.hostPath.type": (
        *("DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"),
    ),
    **{f"{term}.matchExpressions.*.operator": (*EXPRESSIONS, "Gt", "Lt") for term in sorted(TERMS)},
    **{f"{selector}.matchExpressions.*.operator": EXPRESSIONS for selector in sorted(SELECTORS)},
}
OF_CONTAINERS: Mapping[str, tuple[str, ...]] = {
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "ports.*.protocol": ("TCP", "UDP", "SCTP"),
    "volumeMounts.*.mountPropagation": ("None", "HostToContainer", "Bidirectional"),
    "securityContext.seccompProfile.type": ("RuntimeDefault", "Unconfined", "Localhost"),
}


@rule(
    "RS146",
    on=Subject,
    says="labels have at most 63 letters, digits, dashes, dots and underscores",
    why=REFUSED + ", or the pods",
    remedy="rename the label or its value",
)
def labels(subject: Subject, operator: Operator) -> Iterator[Breach]:
    if isinstance(subject, PodSubject):
        own = subject.node["metadata"]
        places = [own["labels"], subject.spec["nodeSelector"]]
        places += [node for path in sorted(SELECTORS) for node in subject.spec.find(f"{path}.matchLabels")]
    elif isinstance(subject, ObjectSubject):
        own = subject.node["metadata"]
        places = [own["labels"]]
    else:
        return
    for place in places:
        for key, value in place.fields.items():
            if not LABEL_KEY.fullmatch(key):
                yield Breach(value, says=f"{key} is no name of a label")
            elif misfit(value, LABEL):
                yield Breach(value, says=f"{value.text!r} is no value of a label: {RULE_OF_VALUES}")
    for key, value in own["annotations"].fields.items():
        if not LABEL_KEY.fullmatch(key.lower()):
            yield Breach(value, says=f"{key} is no name of an annotation", remedy="rename it")


@rule(
    "RS147",
    on=PodSubject,
    says="a field of a pod is one of the words that Kubernetes knows",
    why=NO_PODS,
    remedy="choose one of them",
)
def words(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    yield from _choices(pod.spec, OF_PODS)
    for container in [*pod.containers, *pod.further]:
        yield from _choices(container, OF_CONTAINERS)
    for medium in pod.spec.find("volumes.*.emptyDir.medium"):
        if medium.text not in ("", "Memory", "HugePages") and not medium.text.startswith("HugePages-"):
            yield _breach(medium, ("Memory", "HugePages"))
    for toleration in pod.spec["tolerations"].items:
        exists = toleration["operator"].text == "Exists"
        if exists and toleration["value"].text:
            yield Breach(toleration["value"], says="a toleration with Exists has no value", remedy="drop it")
        if not toleration["key"].text and not exists:
            yield Breach(
                toleration, says="a toleration without a key has the operator Exists", remedy="add it"
            )
        if toleration["tolerationSeconds"].present and toleration["effect"].text != "NoExecute":
            says = "tolerationSeconds is for the effect NoExecute"
            yield Breach(toleration["tolerationSeconds"], says=says, remedy="drop it")


@rule(
    "RS150",
    on=Subject,
    says=f"a service's type is one of {', '.join(SERVICES)}",
    why="the API server refuses the service, and nothing is reached",
    remedy="choose one of them",
)
def service_types(subject: Subject, operator: Operator) -> Iterator[Breach]:
    of_cluster = ("headGroupSpec.serviceType", "headGroupSpec.headService.spec.type")
    paths = of_cluster if isinstance(subject, ClusterSubject) else ("spec.serveService.spec.type",)
    for path in paths:
        for kind in subject.node.find(path):
            if kind.text not in ("", *SERVICES):
                yield _breach(kind, SERVICES)


def _choices(node: Node, table: Mapping[str, tuple[str, ...]]) -> Iterator[Breach]:
    for pattern, known in table.items():
        # An empty word stands for the default.
        yield from (_breach(each, known) for each in node.find(pattern) if each.text not in ("", *known))


def _breach(node: Node, known: tuple[str, ...]) -> Breach:
    meant = nearest(node.text, known)
    says = f"{node.keys[-1]} is one of {', '.join(known)} (got {node.text})"
    return Breach(node, says=says, remedy=f"did you mean {meant}?" if meant else None)
