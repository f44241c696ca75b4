"""Checks of a cluster's fitness for raystack.

In: a client, and the needs of a plan. Out: Checks: what was checked, what was found, what to do.

The operator has no API of its own: its version is inferred from the fields of its CRDs, its feature gates and
scheduler from its Deployment.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.errors import ConfigError, LaunchError, Problem
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import RESOURCES, Object
from raystack.kuberay.lint.operator import Operator
from raystack.plan import plan_kuberay
from raystack.plan.kuberay import Requirement
from raystack.plan.kuberay.facts import (
    OFF,
    RAY_KINDS,
    SINCE,
    amount,
    image_tag,
    is_accelerator,
    minor,
    newest,
    seen_by_kuberay,
)
from raystack.plan.target import forms

FIELDS: Sequence[tuple[str, str, str]] = tuple(
    (SINCE["job" if kind == "RayJob" else "cluster"][field], kind, field)
    for kind, field in (
        ("RayCluster", "tlsOptions"),
        ("RayJob", "preRunningDeadlineSeconds"),
        ("RayCluster", "authOptions"),
        ("RayJob", "deletionStrategy.deletionRules"),
        ("RayCluster", "autoscalerOptions.version"),
        ("RayCluster", "gcsFaultToleranceOptions"),
    )
)
"""Field of the spec that each version introduced, newest first."""
COMPONENTS: Mapping[str, str] = {
    "Kueue": "localqueues.kueue.x-k8s.io",
    "cert-manager": "certificates.cert-manager.io",
    "the Prometheus operator": "podmonitors.monitoring.coreos.com",
    "the Gateway API": "gateways.gateway.networking.k8s.io",
}
"""CRD by which each component is recognised."""

_CRDS = (
    "kubectl apply --server-side --force-conflicts -k"
    " 'github.com/ray-project/kuberay/ray-operator/config/crd?ref=v{version}'"
)
Found = TypeVar("Found")


@dataclass(frozen=True)
class Check:
    """One check and its result."""

    name: str
    ok: bool | None
    """None if it cannot be determined from here."""
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class _Cluster:
    """Data that all checks share."""

    crds: Mapping[str, Object] | None
    """None if they cannot be read."""
    deployment: Object | None
    hidden: bool
    """True if this user may not list Deployments."""
    operator: Operator | None


def doctor(client: Client, needs: Sequence[Requirement] = (), gpu_key: str | None = None) -> list[Check]:
    """Return all checks, with those of a plan's `needs`.

    Raises LaunchError only if the API does not answer at all.
    """
    checks = [Check("Kubernetes", True, client.version())]
    crds = _unless_refused(client.crds)
    deployments = _unless_refused(lambda: _deployments(client))
    deployment = deployments[0] if deployments else None
    cluster = _Cluster(
        crds, deployment, deployments is None, read_operator(deployment, crds) if deployment or crds else None
    )
    checks += [_crds(cluster), _operator(cluster)]
    checks += _quotas(client)
    checks += _gpus(client, gpu_key)
    checks += [_need(client, cluster, need) for need in needs]
    return checks


def needs_of(config: RunConfig) -> tuple[KubeRay, list[Requirement], str | None]:
    """Return a config's target, the needs of its jobs, services and clusters, and its GPU resource.

    Raises ConfigError if the config does not run on Kubernetes.
    """
    if not isinstance(config.target, KubeRay):
        rule = "only what runs on Kubernetes needs something there"
        raise ConfigError(Problem("target", rule=rule, got=config.target.kind, remedy="add target=kuberay"))
    plans = [plan_kuberay(config, config.experiment.name, form) for form in forms(config)]
    every = list(dict.fromkeys(need for plan in plans for need in plan.needs))
    name = newest(need.name for need in every if need.kind == "version")
    highest = next(need for need in every if need.kind == "version" and need.name == name)
    key = next((plan.group.pod.devices.key for plan in plans if plan.group.pod.devices.count), None)
    return config.target, [highest, *(need for need in every if need.kind != "version")], key


def read_version(crds: Mapping[str, Object]) -> str | None:
    """Return the newest KubeRay version whose fields the CRDs have, or None if they are older."""
    return next(
        (version for version, kind, path in FIELDS if kind in crds and _knows(crds[kind], path)), None
    )


def read_operator(deployment: Object | None, crds: Mapping[str, Object] | None) -> Operator:
    """Return gates, scheduler and settings from the operator's Deployment, and its CRDs' version."""
    version = (crds and read_version(crds)) or _tag(deployment) or Operator().version
    if deployment is None:
        return Operator(version=version)
    flags = dict(_flags(deployment))
    gates = dict(_gates(flags.get("feature-gates", "")))
    scheduler = flags.get("batch-scheduler") or (
        "volcano" if flags.get("enable-batch-scheduler") == "true" else "none"
    )
    elsewhere = "config" in flags  # a file of settings that is not read
    return Operator(
        version=version,
        gates=frozenset(gate for gate, on in gates.items() if on),
        off=frozenset(gate for gate, on in gates.items() if not on)
        | (frozenset() if elsewhere else OFF - set(gates)),
        scheduler=None if elsewhere and scheduler == "none" else scheduler,
        settings={**flags, **_environment(deployment)},
    )


def _crds(cluster: _Cluster) -> Check:
    name = "KubeRay's CRDs"
    if cluster.crds is None:
        return Check(name, None, "they may not be read", "ask an administrator for the version of KubeRay")
    missing = [kind for kind in RAY_KINDS if kind not in cluster.crds]
    unserved = [kind for kind, crd in cluster.crds.items() if _served(crd) is None]
    version = read_version(cluster.crds)
    install = _CRDS.format(version=Operator().version)
    if [kind for kind in missing if kind != "RayCronJob"] or unserved:  # RayCronJob is there since 1.6
        return Check(name, False, f"not served: {', '.join([*missing, *unserved])}", install)
    if version is None:
        return Check(name, False, f"older than {FIELDS[-1][0]}", install)
    other = _tag(cluster.deployment)
    if other is not None and minor(other) != minor(version):
        found = f"of KubeRay {version}, and the operator is {other}: Helm does not upgrade them"
        return Check(name, False, found, _CRDS.format(version=other))
    return Check(name, True, f"of KubeRay {version}")


def _operator(cluster: _Cluster) -> Check:
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
    version = _tag(cluster.deployment) or "of a version that its image does not tell"
    return Check(name, True, f"{where} {version}; feature gates: {gates}; batch scheduler: {scheduler}")


def _quotas(client: Client) -> Iterator[Check]:
    """Yield a check for each quota of the namespace."""
    quotas = _unless_refused(lambda: client.list("ResourceQuota"))
    if quotas is None:
        yield Check("quotas", None, "they may not be read", "see `kubectl auth can-i list resourcequotas`")
    for quota in quotas or []:
        status = quota.get("status") or {}
        hard, used = status.get("hard") or quota["spec"].get("hard") or {}, status.get("used") or {}
        shown = {key: f"{key} {used.get(key, '0')}/{most}" for key, most in hard.items()}
        full = [shown[key] for key, most in hard.items() if amount(used.get(key, "0")) >= amount(most)]
        name = f"quota {quota['metadata']['name']}"
        if full:
            yield Check(
                name,
                False,
                f"used up: {', '.join(full)}",
                "delete what is not used (`raystack gc`), or have it raised",
            )
        else:
            yield Check(name, True, ", ".join(shown.values()))


def _gpus(client: Client, wanted: str | None) -> Iterator[Check]:
    """Check the number and resource name of the nodes' GPUs, and whether KubeRay reports them to Ray."""
    nodes = _unless_refused(lambda: client.list("Node"))
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


def _need(client: Client, cluster: _Cluster, need: Requirement) -> Check:
    """Check one need of a plan."""
    match need.kind:
        case "version":
            return _version_need(cluster, need)
        case "gate":
            on = cluster.operator.has(need.name) if cluster.operator and cluster.deployment else None
            words = {True: "on", False: "off", None: "not known"}[on]
            remedy = f"start the operator with --feature-gates={need.name}=true, for {need.why}"
            return Check(f"feature gate {need.name}", on, words, None if on else remedy)
        case "scheduler":
            scheduler = cluster.operator.scheduler if cluster.operator else None
            ok = None if scheduler is None else scheduler == need.name
            remedy = f"install the operator with batchScheduler.name={need.name}, for {need.why}"
            return Check(f"batch scheduler {need.name}", ok, scheduler or "not known", None if ok else remedy)
        case "component":
            return _component(client, need)
        case "object":
            return _object(client, need)


def _version_need(cluster: _Cluster, need: Requirement) -> Check:
    version = read_version(cluster.crds) if cluster.crds else None
    if cluster.operator is None or (version is None and _tag(cluster.deployment) is None):
        return Check(f"KubeRay {need.name}", None, "not known", f"for {need.why}")
    ok = cluster.operator.at_least(need.name)
    return Check(
        f"KubeRay {need.name}",
        ok,
        cluster.operator.version,
        None if ok else f"upgrade the operator and its CRDs, for {need.why}",
    )


def _component(client: Client, need: Requirement) -> Check:
    crd = next(
        (
            crd
            for name, crd in COMPONENTS.items()
            if need.name == name or need.name.startswith(f"{name} with")
        ),
        None,
    )
    if crd is None:
        return Check(need.name, None, "cannot be seen from here", f"see to it, for {need.why}")
    try:
        found = client.get("CustomResourceDefinition", crd) is not None
    except LaunchError:
        return Check(need.name, None, "CRDs may not be read")
    return Check(
        need.name,
        found,
        "installed" if found else "not installed",
        None if found else f"install it, for {need.why}",
    )


def _object(client: Client, need: Requirement) -> Check:
    """Check that an object such as `Secret hugging-face with token` exists and has these keys.

    Values are not read into the result.
    """
    what, _, keys = need.name.partition(" with ")
    kind, _, name = what.partition(" ")
    if kind not in RESOURCES:
        return Check(what, None, "cannot be seen from here", f"see to it, for {need.why}")
    try:
        found = client.get(kind, name)
    except LaunchError as error:
        return Check(what, None, error.problems[0].rule)
    if found is None:
        return Check(what, False, f"not in namespace {client.namespace}", f"create it, or change {need.why}")
    missing = [key for key in keys.split(" and ") if key and key not in (found.get("data") or {})]
    if missing:
        return Check(what, False, f"without {', '.join(missing)}", f"add it, or change {need.why}")
    for condition in (found.get("status") or {}).get("conditions") or []:
        if kind == "LocalQueue" and condition.get("type") == "Active" and condition.get("status") != "True":
            return Check(what, False, condition.get("message") or "not active", "see its ClusterQueue")
    return Check(what, True, "there")


def _unless_refused(ask: Callable[[], Found]) -> Found | None:
    """Return the result, or None if the user may not see it."""
    try:
        return ask()
    except LaunchError:
        return None


def _deployments(client: Client) -> list[Object]:
    """Return the operator's Deployments in all namespaces."""
    for labels in (
        {"app.kubernetes.io/name": "kuberay-operator"},
        {"app.kubernetes.io/component": "kuberay-operator"},
    ):
        if found := client.list("Deployment", labels=labels, everywhere=True):
            return found
    return []


def _served(crd: Object) -> Object | None:
    """Return the schema of v1, if it is served."""
    for version in crd["spec"]["versions"]:
        if version["name"] == "v1" and version.get("served"):
            schema: Object = version["schema"]["openAPIV3Schema"]
            return schema
    return None


def _knows(crd: Object, path: str) -> bool:
    """Return whether the spec has a field."""
    schema = (_served(crd) or {}).get("properties", {}).get("spec", {})
    for step in path.split("."):
        schema = schema.get("properties", {}).get(step)
        if schema is None:
            return False
    return True


def _flags(deployment: Object) -> Iterator[tuple[str, str]]:
    """Parse `--name=value`, `--name value` and `--name` of the operator's container."""
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    words = [*container.get("command", []), *container.get("args", [])]
    for index, word in enumerate(words):
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            following = words[index + 1] if index + 1 < len(words) else "-"
            yield name, value if equals else ("true" if following.startswith("-") else following)


def _gates(written: str) -> Iterator[tuple[str, bool]]:
    """Parse `A=true,B=false`."""
    for each in filter(None, written.split(",")):
        gate, _, value = each.partition("=")
        yield gate.strip(), value.strip().lower() == "true"


def _environment(deployment: Object) -> dict[str, str]:
    """Return the operator's settings from plain environment variables, not those from Secrets."""
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}


def _tag(deployment: Object | None) -> str | None:
    """Return the version that the operator's image is tagged with."""
    if deployment is None:
        return None
    return image_tag(str(deployment["spec"]["template"]["spec"]["containers"][0].get("image", "")))
