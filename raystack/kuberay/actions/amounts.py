"""Checks of amounts: what pods ask for, compared with nodes, quotas and queues.

In: a client, and the pods that manifests ask for. Out: Checks. An amount that no node, quota or queue has is
missing for good; one that is only in use at the moment is not.
"""

from collections.abc import Iterator, Mapping, Sequence

from raystack.errors import LaunchError
from raystack.kuberay.actions.check import Check, unless_refused
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.manifest.asked import PodGroup, Reference
from raystack.kuberay.observe.causes.containers import PLACES
from raystack.kuberay.observe.causes.scheduling import keys_of
from raystack.kuberay.observe.snapshot import at
from raystack.plan.kuberay.facts import amount, is_accelerator

POOLS = (
    "cloud.google.com/gke-nodepool",
    "eks.amazonaws.com/nodegroup",
    "karpenter.sh/nodepool",
    "kubernetes.azure.com/agentpool",
)
"""Labels of nodes that come and go with what pods ask for."""
AUTOSCALER = "cluster-autoscaler-status"
"""ConfigMap of kube-system in which the cluster autoscaler says how it is."""
SHOWN = ("memory", "ephemeral-storage")


def on_nodes(client: Client, pods: Sequence[PodGroup]) -> Iterator[Check]:
    """Yield a check for each kind of pod that no node can take, however empty."""
    nodes = unless_refused(lambda: client.list("Node")) if pods else None
    if not nodes:  # none may be seen, or none is there yet
        return
    elastic = None
    for group in pods:
        found = _unfit(nodes, group)
        if found is None:
            continue
        elastic = _grows(client, nodes) if elastic is None else elastic
        rule, remedy = found
        maybe = "fine where an autoscaler adds such nodes; else "
        yield Check(
            f"nodes for {group.name}", None if elastic else False, rule, f"{maybe if elastic else ''}{remedy}"
        )


def in_quotas(client: Client, pods: Sequence[PodGroup]) -> Iterator[Check]:
    """Yield a check for each quota of the namespace."""
    quotas = unless_refused(lambda: client.list("ResourceQuota"))
    if quotas is None:
        yield Check("quotas", None, "they may not be read", "see `kubectl auth can-i list resourcequotas`")
    total = {**totals(pods), "pods": float(sum(group.count for group in pods))}
    for quota in quotas or []:
        status = quota.get("status") or {}
        hard, used = status.get("hard") or quota["spec"].get("hard") or {}, status.get("used") or {}
        name = f"quota {quota['metadata']['name']}"
        # A quota with scopes counts only some of the pods.
        scoped = quota["spec"].get("scopes") or quota["spec"].get("scopeSelector")
        short = (
            {}
            if scoped
            else _short(total, {key.removeprefix("requests."): most for key, most in hard.items()})
        )
        shown = {key: f"{key} {used.get(key, '0')}/{value}" for key, value in hard.items()}
        full = [shown[key] for key, value in hard.items() if amount(used.get(key, "0")) >= amount(value)]
        if short:
            yield Check(name, False, _asked(short), _less(short, pods, "have it raised"))
        elif full:
            remedy = "delete what is not used (`raystack gc`), or have it raised"
            yield Check(name, False, f"used up: {', '.join(full)}", remedy, passing=True)
        else:
            yield Check(name, True, ", ".join(shown.values()))


def in_queues(client: Client, wanted: Sequence[Reference], pods: Sequence[PodGroup]) -> Iterator[Check]:
    """Yield a check for each queue that can never hold all the pods at once."""
    for reference in wanted:
        read = _LIMITS.get(reference.kind)
        if read is None:
            continue
        try:
            name, limits = read(client, reference.name)
        except LaunchError:
            continue  # its own check says so
        wanted_of_all = totals(pods)
        if reference.kind == "LocalQueue" and limits:
            # Kueue never gives what no flavor of the queue has, unless its settings leave it out.
            counted = [key for key in wanted_of_all if key in ("cpu", "memory") or is_accelerator(key)]
            limits = {**dict.fromkeys(counted, 0.0), **limits}
        short = _short(wanted_of_all, limits)
        if short:
            yield Check(f"room in {name}", False, _asked(short), _less(short, pods, "have it raised"))


def totals(pods: Sequence[PodGroup]) -> dict[str, float]:
    """Return the amounts of all pods together."""
    total: dict[str, float] = {}
    for group in pods:
        for key, value in group.amounts.items():
            total[key] = total.get(key, 0.0) + group.count * value
    return total


def _unfit(nodes: Sequence[Object], group: PodGroup) -> tuple[str, str] | None:
    """Return why no node fits and what to do, or None if one does."""
    matching = [node for node in nodes if _matches(node, group.spec)]
    place = PLACES[group.role]
    if not matching:
        return (
            "no node has the labels it asks for",
            f"label nodes accordingly, or change {place}.node_selector, target.gpu.model and target.spot",
        )
    open_ = [node for node in matching if _tolerated(node, group.spec)]
    if not open_:
        return "no node is without a taint that it does not tolerate", f"add it to {place}.tolerations"
    if any(all(_amount_of(node, key) >= value for key, value in group.amounts.items()) for node in open_):
        return None
    most = {key: max(_amount_of(node, key) for node in open_) for key in group.amounts}
    short = {key: (value, most[key]) for key, value in group.amounts.items() if value > most[key]}
    lower = " and ".join(dict.fromkeys(keys_of(key, group.role) for key in short or group.amounts))
    if short:
        return f"{_asked(short)} on a node", f"add larger nodes, or lower {lower}"
    whole = " and ".join(f"{key} {written(key, value)}" for key, value in group.amounts.items())
    return f"no node has {whole} together", f"add larger nodes, or lower {lower}"


def _matches(node: Object, spec: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    affinity = at(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    terms = at(affinity, "nodeSelectorTerms")
    return not terms or any(
        all(_holds(labels, each) for each in term.get("matchExpressions") or ()) for term in terms
    )


def _holds(labels: Mapping[str, str], expression: Object) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" if value is not None:
            return amount(value) > amount(values[0])
        case "Lt" if value is not None:
            return amount(value) < amount(values[0])
    return False


def _tolerated(node: Object, spec: Object) -> bool:
    """Return whether a pod tolerates the lasting taints of a node."""
    tolerations = spec.get("tolerations") or []
    taints = (node.get("spec") or {}).get("taints") or ()
    # Kubernetes itself sets and removes those of a node that is not ready or is full.
    lasting = [taint for taint in taints if not taint["key"].startswith("node.kubernetes.io/")]
    return all(
        taint.get("effect") == "PreferNoSchedule" or any(_tolerates(each, taint) for each in tolerations)
        for taint in lasting
    )


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    exists = toleration.get("operator", "Equal") == "Exists"
    return exists or bool(toleration.get("value", "") == taint.get("value", ""))


def _amount_of(node: Object, key: str) -> float:
    # A resource that a node does not name is one that it does not have.
    return amount((at(node, "status", "allocatable") or {}).get(key, "0"))


def _grows(client: Client, nodes: Sequence[Object]) -> bool:
    """Return whether nodes seem to be added on demand."""
    if any(label in (node["metadata"].get("labels") or {}) for node in nodes for label in POOLS):
        return True
    found = unless_refused(lambda: client.within("kube-system").get("ConfigMap", AUTOSCALER))
    return found is not None


Short = dict[str, tuple[float, float]]
"""What is asked for and what there is at most, by resource."""


def _short(wanted: Mapping[str, float], limits: Mapping[str, object]) -> Short:
    most = {
        key: float(limit) if isinstance(limit := limits[key], int | float) else amount(limit)
        for key in wanted
        if key in limits
    }
    return {key: (wanted[key], limit) for key, limit in most.items() if wanted[key] > limit * (1 + 1e-9)}


def _asked(short: Short) -> str:
    return "; ".join(
        f"asks for {key} {written(key, value)}, and there is {written(key, most)} at most"
        for key, (value, most) in short.items()
    )


def _less(short: Short, pods: Sequence[PodGroup], otherwise: str) -> str:
    roles = dict.fromkeys(group.role for group in pods)
    keys = ["resources.workers", *(keys_of(key, role) for key in short for role in roles)]
    return f"lower {', '.join(dict.fromkeys(keys))}, or {otherwise}"


def written(key: str, value: float) -> str:
    """Return an amount for people: `8Gi` of memory, `2` or `0.5` of anything else."""
    if key in SHOWN:
        for unit, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
            if value >= size:
                return f"{value / size:.6g}{unit}"
    return f"{value:.6g}"


def _of_kueue(client: Client, name: str) -> tuple[str, Mapping[str, object]]:
    """Return the sum of a ClusterQueue's quotas, infinite for what may be borrowed without a limit."""
    of = at(client.get("LocalQueue", name), "spec", "clusterQueue")
    spec = at(client.get("ClusterQueue", of), "spec") if of else None
    if spec is None:
        return f"queue {name}", {}
    cohort = spec.get("cohortName") or spec.get("cohort")
    limits: dict[str, float] = {}
    for flavor in (flavor for group in spec.get("resourceGroups") or () for flavor in group["flavors"]):
        for resource in flavor["resources"]:
            borrowed = resource.get("borrowingLimit")
            more = amount(borrowed) if borrowed is not None else float("inf") if cohort else 0.0
            key = resource["name"]
            limits[key] = limits.get(key, 0.0) + amount(resource["nominalQuota"]) + more
    return f"queue {name}", limits


def _of_volcano(client: Client, name: str) -> tuple[str, Mapping[str, object]]:
    queue = client.get("Queue", name) or {}
    return f"queue {name}", (queue.get("spec") or {}).get("capability") or {}


def _of_kai(client: Client, name: str) -> tuple[str, Mapping[str, object]]:
    """Return a queue's limits; KAI counts CPUs in thousandths and memory in MB, and -1 is no limit."""
    queue = client.get("Queue.scheduling.run.ai", name) or {}
    limits = (queue.get("spec") or {}).get("resources") or {}
    units = {"cpu": ("cpu", 1e-3), "memory": ("memory", 1e6), "gpu": ("nvidia.com/gpu", 1.0)}
    return f"queue {name}", {
        key: each["limit"] * size
        for of, (key, size) in units.items()
        if isinstance(each := limits.get(of), dict) and each.get("limit", -1) >= 0
    }


_LIMITS = {"LocalQueue": _of_kueue, "Queue": _of_volcano, "Queue.scheduling.run.ai": _of_kai}
