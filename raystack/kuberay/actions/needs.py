"""Checks of what a config needs: versions, gates, schedulers, components and objects.

In: a client, what is known of the operator, Requirements and References. Out: Checks.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from raystack.errors import LaunchError
from raystack.kuberay.actions.check import Check, unless_refused
from raystack.kuberay.actions.operator import read_version, tag
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import RESOURCES, Object
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.manifest.asked import Reference
from raystack.plan.kuberay import Requirement

COMPONENTS: Mapping[str, str] = {
    "Kueue": "kueue.x-k8s.io",
    "Katib": "kubeflow.org",
    "cert-manager": "cert-manager.io",
    "the Prometheus operator": "monitoring.coreos.com",
    "the Gateway API": "gateway.networking.k8s.io",
}
"""API group by which each component is recognised."""
SCHEDULERS: Mapping[str, str] = {
    "volcano": r"vc-scheduler|volcano-scheduler",
    "yunikorn": r"yunikorn",
    "kai-scheduler": r"kai-scheduler",
    "scheduler-plugins": r"scheduler-plugins",
}
"""Images and names of the Deployments of schedulers, by the operator's `batchScheduler.name`."""
YUNIKORN_QUEUE = "YuniKorn's queue"
YUNIKORN_CONFIG = "yunikorn-configs"


@dataclass(frozen=True)
class Cluster:
    """Data that all checks share."""

    crds: Mapping[str, Object] | None
    """None if they cannot be read."""
    deployment: Object | None
    hidden: bool
    """True if this user may not list Deployments."""
    operator: Operator | None


def needed(client: Client, cluster: Cluster, needs: Sequence[Requirement]) -> Iterator[Check]:
    """Yield a check for each need of a plan that is no object, two for a scheduler."""
    for need in needs:
        match need.kind:
            case "version":
                yield _version(cluster, need)
            case "gate":
                on = cluster.operator.has(need.name) if cluster.operator and cluster.deployment else None
                words = {True: "on", False: "off", None: "not known"}[on]
                remedy = f"start the operator with --feature-gates={need.name}=true, for {need.why}"
                yield Check(f"feature gate {need.name}", on, words, None if on else remedy)
            case "scheduler":
                scheduler = cluster.operator.scheduler if cluster.operator else None
                ok = None if scheduler is None else scheduler == need.name
                remedy = f"install the operator with batchScheduler.name={need.name}, for {need.why}"
                name = f"batch scheduler {need.name}"
                yield Check(name, ok, scheduler or "not known", None if ok else remedy)
                yield _scheduler(client, need)
            case "component":
                yield _component(client, need)


def objects(client: Client, needs: Sequence[Requirement], references: Sequence[Reference]) -> Iterator[Check]:
    """Yield a check for each object that a plan needs or its manifests refer to."""
    wanted: dict[str, tuple[str, frozenset[str]]] = {}
    for need in needs:
        if need.kind == "object":
            what, _, listed = need.name.partition(" with ")
            wanted[what] = need.why, frozenset(filter(None, listed.split(" and ")))
    for each in references:
        what = f"{each.kind} {each.name}"
        why, keys = wanted.get(what, (each.path, frozenset[str]()))
        wanted[what] = why, keys | each.keys
    for what, (why, keys) in wanted.items():
        kind, _, name = what.rpartition(" ")
        yield (
            _yunikorn(client, name, why) if kind == YUNIKORN_QUEUE else _object(client, kind, name, why, keys)
        )


def _version(cluster: Cluster, need: Requirement) -> Check:
    version = read_version(cluster.crds) if cluster.crds else None
    if cluster.operator is None or (version is None and tag(cluster.deployment) is None):
        return Check(f"KubeRay {need.name}", None, "not known", f"for {need.why}")
    ok = cluster.operator.at_least(need.name)
    remedy = f"upgrade the operator and its CRDs, for {need.why}"
    return Check(f"KubeRay {need.name}", ok, cluster.operator.version, None if ok else remedy)


def _scheduler(client: Client, need: Requirement) -> Check:
    """Check that the scheduler runs: pods ask for it by name, and nobody else looks at them."""
    name = f"{need.name} itself"
    deployments = unless_refused(lambda: client.list("Deployment", everywhere=True))
    if deployments is None:
        return Check(name, None, "Deployments of all namespaces may not be listed", "ask an administrator")
    found = [each for each in deployments if re.search(SCHEDULERS[need.name], _text(each))]
    where = ", ".join(f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in found)
    if not found:
        return Check(name, False, "no Deployment of it is to be seen", f"install it, for {need.why}")
    if not any((each.get("status") or {}).get("availableReplicas") for each in found):
        return Check(name, False, f"{where} does not run", "see its pods")
    return Check(name, True, where)


def _text(deployment: Object) -> str:
    """Return a Deployment's name and images."""
    containers = deployment["spec"]["template"]["spec"].get("containers") or ()
    return " ".join([deployment["metadata"]["name"], *(each.get("image", "") for each in containers)])


def _component(client: Client, need: Requirement) -> Check:
    group = next(
        (
            group
            for name, group in COMPONENTS.items()
            if need.name == name or need.name.startswith(f"{name} with")
        ),
        None,
    )
    if group is None:
        return Check(need.name, None, "cannot be seen from here", f"see to it, for {need.why}")
    found = unless_refused(lambda: client.has(group))
    words = {True: "installed", False: "not installed", None: "not known"}[found]
    return Check(need.name, found, words, None if found else f"install it, for {need.why}")


def _object(client: Client, kind: str, name: str, why: str, keys: frozenset[str]) -> Check:
    """Check that an object exists and has these keys. Values are not read into the result."""
    what = f"{kind.partition('.')[0]} {name}"
    if kind not in RESOURCES:
        return Check(what, None, "cannot be seen from here", f"see to it, for {why}")
    try:
        found = client.get(kind, name)
    except LaunchError as error:
        group, versioned, _ = RESOURCES[kind].api.partition("/")
        if versioned and unless_refused(lambda: client.has(group)) is False:
            return Check(what, False, f"{group} is not installed", f"install it, or change {why}")
        return Check(what, None, error.problems[0].rule)
    if found is None:
        place = f"not in namespace {client.namespace}" if RESOURCES[kind].namespaced else "not there"
        return Check(what, False, place, f"create it, or change {why}")
    data = {**(found.get("data") or {}), **(found.get("binaryData") or {})}
    missing = sorted(key for key in keys if key not in data)
    if missing:
        return Check(what, False, f"without {', '.join(missing)}", f"add it, or change {why}")
    return _state(what, kind, found) or Check(what, True, "there")


def _state(what: str, kind: str, found: Object) -> Check | None:
    """Return the check of a queue or a claim that is there and cannot be used."""
    status = found.get("status") or {}
    for condition in status.get("conditions") or []:
        if kind == "LocalQueue" and condition.get("type") == "Active" and condition.get("status") != "True":
            return Check(what, False, condition.get("message") or "not active", "see its ClusterQueue")
    if kind == "Queue" and status.get("state") not in (None, "", "Open"):
        return Check(what, False, f"it is {str(status['state']).lower()}", "have it opened")
    if kind == "PersistentVolumeClaim" and status.get("phase") == "Lost":
        return Check(what, False, "its volume is lost", "create it again")
    return None


def _yunikorn(client: Client, name: str, why: str) -> Check:
    """Check that a queue is in YuniKorn's configuration, which is one ConfigMap."""
    what = f"{YUNIKORN_QUEUE} {name}"
    found = unless_refused(lambda: client.list("ConfigMap", fields=_NAMED, everywhere=True))
    if not found:
        return Check(what, None, f"the ConfigMap {YUNIKORN_CONFIG} may not be read or is not there")
    text = (found[0].get("data") or {}).get("queues.yaml") or ""
    try:
        partitions = (yaml.safe_load(text) or {}).get("partitions") or []
    except (yaml.YAMLError, AttributeError):
        return Check(what, None, f"queues.yaml of {YUNIKORN_CONFIG} cannot be read")
    if any(rule.get("create") for each in partitions for rule in each.get("placementrules") or ()):
        return Check(what, None, "placement rules may make it")
    path = name.split(".") if name.startswith("root.") else ["root", *name.split(".")]
    for each in partitions:
        queues = each.get("queues") or []
        for part in path:
            queue = next((queue for queue in queues if queue.get("name") == part), None)
            if queue is None:
                break
            queues = queue.get("queues") or []
        else:
            return Check(what, True, "there")
    return Check(what, False, f"not in {YUNIKORN_CONFIG}", f"add it there, or change {why}")


_NAMED = {"metadata.name": YUNIKORN_CONFIG}
