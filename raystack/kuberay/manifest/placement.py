"""Where pods run: labels and taints of nodes, neighbours, and how they are spread."""

from typing import Any

from raystack.config.placement import Neighbour, NodeMatch
from raystack.kuberay.manifest.parts import given
from raystack.plan import KubePlan
from raystack.plan.kuberay.shape import Match, PodPlan

HOST = "kubernetes.io/hostname"
HEAD_GROUP = "headgroup"
"""KubeRay's name of the head's group, in the label `ray.io/group`."""


def placed(plan: KubePlan, pod: PodPlan, group: str | None) -> dict[str, Any]:
    """Return the fields of a pod that choose its node; `group` is Ray's, None for a pod outside of it."""
    config = pod.config
    return given(
        priorityClassName=pod.priority_class,
        runtimeClassName=config.runtime_class,
        schedulerName=config.scheduler,
        # In the node's network names of the cluster are resolved only with this policy.
        hostNetwork=True if config.host_network else None,
        dnsPolicy="ClusterFirstWithHostNet" if config.host_network else None,
        nodeSelector=dict(pod.node_selector),
        tolerations=_tolerations(pod),
        affinity=_affinity(plan, pod, group),
        topologySpreadConstraints=_spread(plan, pod, group) if group is not None else None,
    )


def _tolerations(pod: PodPlan) -> list[dict[str, Any]]:
    return [
        {
            **toleration.model_dump(exclude_none=True, exclude={"seconds"}),
            **given(tolerationSeconds=toleration.seconds),
        }
        for toleration in pod.tolerations
    ]


def _affinity(plan: KubePlan, pod: PodPlan, group: str | None) -> dict[str, Any]:
    needed = [
        *map(_expression, pod.required),
        *(_expression(each) for each in pod.config.nodes if each.required),
    ]
    required = {"nodeSelectorTerms": [{"matchExpressions": needed}]} if needed else None
    wanted: list[tuple[int, Match | NodeMatch]] = [
        *((100, each) for each in pod.preferred),
        *((each.weight, each) for each in pod.config.nodes if not each.required),
    ]
    preferred = [
        {"weight": weight, "preference": {"matchExpressions": [_expression(each)]}} for weight, each in wanted
    ]
    nodes = given(
        requiredDuringSchedulingIgnoredDuringExecution=required,
        preferredDuringSchedulingIgnoredDuringExecution=preferred,
    )
    return given(
        nodeAffinity=nodes,
        podAffinity=_pods(plan, pod, group, apart=False),
        podAntiAffinity=_pods(plan, pod, group, apart=True),
    )


def _pods(plan: KubePlan, pod: PodPlan, group: str | None, *, apart: bool) -> dict[str, Any]:
    """Return the pods to run beside, or apart from."""
    required: list[dict[str, Any]] = []
    preferred: list[dict[str, Any]] = []
    if group is not None:
        term = {"labelSelector": {"matchLabels": _fellows(plan, group)}, "topologyKey": HOST}
        if apart and pod.together == "STRICT_SPREAD":
            required.append(term)
        if not apart and pod.together == "PACK":
            preferred.append({"weight": 50, "podAffinityTerm": term})
    for each in pod.config.neighbours:
        if each.apart == apart:
            other = _term(each)
            if each.required:
                required.append(other)
            else:
                preferred.append({"weight": each.weight, "podAffinityTerm": other})
    return given(
        requiredDuringSchedulingIgnoredDuringExecution=required,
        preferredDuringSchedulingIgnoredDuringExecution=preferred,
    )


def _term(neighbour: Neighbour) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": dict(neighbour.labels)}, "topologyKey": neighbour.key}


def _expression(match: Match | NodeMatch) -> dict[str, Any]:
    return {"key": match.key, "operator": match.operator, **given(values=list(match.values))}


def _spread(plan: KubePlan, pod: PodPlan, group: str) -> list[dict[str, Any]]:
    wanted = {(each.key, each.required): each.skew for each in pod.config.spread}
    if pod.together == "SPREAD":
        wanted.setdefault((HOST, False), 1)
    return [
        {
            "maxSkew": skew,
            "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule" if required else "ScheduleAnyway",
            "labelSelector": {"matchLabels": _fellows(plan, group)},
        }
        for (key, required), skew in wanted.items()
    ]


def _fellows(plan: KubePlan, group: str) -> dict[str, str]:
    """Return the labels that select the pods of a group; KubeRay sets the second one."""
    return {"app.kubernetes.io/instance": plan.name, "ray.io/group": group}
