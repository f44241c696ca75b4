"""Checks of a cluster's fitness for raystack.

In: a client, and what a config asks for. Out: Checks: what was checked, what was found, what to do.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.errors import ConfigError, LaunchError, Problem
from raystack.kuberay.actions import amounts
from raystack.kuberay.actions.check import Check, unless_refused
from raystack.kuberay.actions.needs import Cluster, needed, objects
from raystack.kuberay.actions.operator import FIELDS, deployments, read_operator, read_version, served, tag
from raystack.kuberay.actions.prepare import Prepared, prepare
from raystack.kuberay.actions.rights import rights
from raystack.kuberay.api.client import Client
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.manifest import Manifest
from raystack.kuberay.manifest.asked import pods, references
from raystack.plan.kuberay import Requirement
from raystack.plan.kuberay.facts import RAY_KINDS, amount, is_accelerator, minor, newest, seen_by_kuberay
from raystack.plan.target import forms

CRDS = (
    "kubectl apply --server-side --force-conflicts -k"
    " 'github.com/ray-project/kuberay/ray-operator/config/crd?ref=v{version}'"
)


@dataclass(frozen=True)
class Wanted:
    """What a config asks of a cluster."""

    needs: tuple[Requirement, ...] = ()
    manifests: tuple[Manifest, ...] = ()
    """Of one form: no two forms run at once."""
    gpu_key: str | None = None
    """Resource by which GPUs are asked for."""

    @classmethod
    def of(cls, every: Iterable[Prepared]) -> "Wanted":
        """Return what any of several forms asks for; amounts are those of the first."""
        prepared = list(every)
        needs = list(dict.fromkeys(need for each in prepared for need in each.plan.needs))
        name = newest(need.name for need in needs if need.kind == "version")
        highest = next(need for need in needs if need.kind == "version" and need.name == name)
        key = next((key for each in prepared if (key := _gpu_key(each.manifests)) is not None), None)
        others = (need for need in needs if need.kind != "version")
        return cls((highest, *others), prepared[0].manifests, key)


def doctor(client: Client, wanted: Wanted = Wanted()) -> list[Check]:
    """Return all checks, with those of what a config asks for.

    Raises LaunchError only if the API does not answer at all.
    """
    checks = [Check("Kubernetes", True, client.version())]
    crds = unless_refused(client.crds)
    cluster = _read(client, crds)
    checks += [_crds(cluster), _operator(cluster)]
    gone = _namespace(client)
    checks += amounts.in_quotas(client, pods(wanted.manifests)) if gone is None else [gone]
    checks += _gpus(client, wanted.gpu_key)
    checks += needed(client, cluster, wanted.needs)
    checks += _of_config(client, wanted, there=gone is None)
    checks += rights(client, frozenset(each["kind"] for each in wanted.manifests))
    return checks


def refuse_missing(client: Client, prepared: Prepared) -> None:
    """Raise LaunchError with everything that is known to be missing for a config.

    What may not be read is not missing. Fields that the cluster does not know are refused when they are sent.
    """
    wanted = Wanted.of([prepared])
    gone = _namespace(client)
    needs = [need for need in wanted.needs if need.kind != "version"]
    of_operator = any(need.kind in ("gate", "scheduler") for need in needs)
    cluster = _read(client, None) if of_operator else Cluster(None, None, True, None)
    checks = [*needed(client, cluster, needs), *_of_config(client, wanted, there=gone is None)]
    checks += [gone] if gone is not None else amounts.in_quotas(client, pods(wanted.manifests))
    missing = [check for check in checks if check.ok is False and not check.passing]
    if missing:
        found = [Problem(check.name, rule=check.found, remedy=check.remedy) for check in missing]
        name = f"{prepared.plan.kind.lower()}/{prepared.plan.name}"
        last = Problem(name, rule="it was not sent", remedy="mend that, or send it all the same with --force")
        raise LaunchError([*found, last])


def wanted_by(config: RunConfig) -> tuple[KubeRay, Wanted]:
    """Return a config's target, and what its jobs, services and clusters ask for.

    Raises ConfigError if the config does not run on Kubernetes.
    """
    if not isinstance(config.target, KubeRay):
        rule = "only what runs on Kubernetes needs something there"
        raise ConfigError(Problem("target", rule=rule, got=config.target.kind, remedy="add target=kuberay"))
    return config.target, Wanted.of(prepare(config, None, form) for form in forms(config))


def _read(client: Client, crds: dict[str, Manifest] | None) -> Cluster:
    found = unless_refused(lambda: deployments(client))
    deployment = found[0] if found else None
    known = read_operator(deployment, crds) if deployment or crds else None
    return Cluster(crds, deployment, found is None, known)


def _of_config(client: Client, wanted: Wanted, *, there: bool) -> Iterator[Check]:
    """Yield the checks of objects and amounts; without the namespace only of what is in none."""
    asked, named = pods(wanted.manifests), references(wanted.manifests)
    yield from amounts.on_nodes(client, asked)
    if there:
        yield from objects(client, wanted.needs, named)
        yield from amounts.in_queues(client, named, asked)


def _namespace(client: Client) -> Check | None:
    """Return the check of a namespace that is not there: everything else in it would be missing, too."""
    name = client.namespace
    try:
        if client.get("Namespace", name) is not None:
            return None
    except LaunchError:  # it may not be read
        return None
    remedy = f"kubectl create namespace {name}, or change target.namespace"
    return Check(f"namespace {name}", False, "there is none of that name", remedy)


def _gpu_key(manifests: Sequence[Manifest]) -> str | None:
    """Return the resource by which a worker asks for GPUs."""
    keys = (key for group in pods(manifests) for key in group.amounts if is_accelerator(key))
    return next(keys, None)


def _crds(cluster: Cluster) -> Check:
    name = "KubeRay's CRDs"
    if cluster.crds is None:
        return Check(name, None, "they may not be read", "ask an administrator for the version of KubeRay")
    missing = [kind for kind in RAY_KINDS if kind not in cluster.crds]
    unserved = [kind for kind, crd in cluster.crds.items() if served(crd) is None]
    version = read_version(cluster.crds)
    install = CRDS.format(version=Operator().version)
    if [kind for kind in missing if kind != "RayCronJob"] or unserved:  # RayCronJob is there since 1.6
        return Check(name, False, f"not served: {', '.join([*missing, *unserved])}", install)
    if version is None:
        return Check(name, False, f"older than {FIELDS[-1][0]}", install)
    other = tag(cluster.deployment)
    if other is not None and minor(other) != minor(version):
        found = f"of KubeRay {version}, and the operator is {other}: Helm does not upgrade them"
        return Check(name, False, found, CRDS.format(version=other), passing=True)
    return Check(name, True, f"of KubeRay {version}")


def _operator(cluster: Cluster) -> Check:
    name = "KubeRay's operator"
    if cluster.hidden:
        return Check(
            name, None, "Deployments of all namespaces may not be listed", "ask an administrator how it runs"
        )
    if cluster.deployment is None or cluster.operator is None:
        return Check(
            name, None, "no Deployment of it is to be seen", "install it with Helm, or ask where it runs"
        )
    namespace = cluster.deployment["metadata"]["namespace"]
    where = f"{namespace}/{cluster.deployment['metadata']['name']}"
    if not (cluster.deployment.get("status") or {}).get("availableReplicas"):
        return Check(name, False, f"{where} does not run", f"see `kubectl -n {namespace} get pods`")
    gates = ", ".join(sorted(cluster.operator.gates)) or "the default ones"
    scheduler = cluster.operator.scheduler or "not known"
    version = tag(cluster.deployment) or "of a version that its image does not tell"
    return Check(name, True, f"{where} {version}; feature gates: {gates}; batch scheduler: {scheduler}")


def _gpus(client: Client, wanted: str | None) -> Iterator[Check]:
    """Check the number and resource name of the nodes' GPUs, and whether KubeRay reports them to Ray."""
    nodes = unless_refused(lambda: client.list("Node"))
    if nodes is None:
        yield Check("GPUs", None, "nodes may not be read")
        return
    counts: dict[str, float] = {}
    for node in nodes:
        for key, value in ((node.get("status") or {}).get("allocatable") or {}).items():
            if is_accelerator(key) and amount(value) > 0:
                counts[key] = counts.get(key, 0) + amount(value)
    if not counts:
        maybe = (
            f"fine where an autoscaler adds nodes; else install the device plugin of {wanted}"
            if wanted
            else None
        )
        yield Check("GPUs", None if wanted else True, "no node has any now", maybe)
    for key, count in sorted(counts.items()):
        seen = seen_by_kuberay(key)
        how = "KubeRay tells Ray of them" if seen else "KubeRay does not see them, raystack tells Ray itself"
        yield Check(f"GPUs {key}", True, f"{count:.0f}; {how}")
    if counts and wanted is not None and wanted not in counts:
        maybe = (
            "fine where an autoscaler adds nodes; else set target.gpu.key to one of"
            f" {', '.join(sorted(counts))}"
        )
        yield Check(f"GPUs {wanted}", None, "no node has any now", maybe)
