"""The operator of a cluster, as its CRDs and its Deployment show it.

In: a client, or what it has read. Out: versions, feature gates, scheduler and settings. The operator has
no API of its own.
"""

from collections.abc import Iterator, Mapping, Sequence

from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.lint.operator import Operator
from raystack.plan.kuberay.facts import OFF, SINCE, image_tag

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


def read_version(crds: Mapping[str, Object]) -> str | None:
    """Return the newest KubeRay version whose fields the CRDs have, or None if they are older."""
    return next(
        (version for version, kind, path in FIELDS if kind in crds and _knows(crds[kind], path)), None
    )


def read_operator(deployment: Object | None, crds: Mapping[str, Object] | None) -> Operator:
    """Return gates, scheduler and settings from the operator's Deployment, and its CRDs' version."""
    version = (crds and read_version(crds)) or tag(deployment) or Operator().version
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


def deployments(client: Client) -> list[Object]:
    """Return the operator's Deployments in all namespaces."""
    for labels in (
        {"app.kubernetes.io/name": "kuberay-operator"},
        {"app.kubernetes.io/component": "kuberay-operator"},
    ):
        if found := client.list("Deployment", labels=labels, everywhere=True):
            return found
    return []


def served(crd: Object) -> Object | None:
    """Return the schema of v1, if it is served."""
    for version in crd["spec"]["versions"]:
        if version["name"] == "v1" and version.get("served"):
            schema: Object = version["schema"]["openAPIV3Schema"]
            return schema
    return None


def _knows(crd: Object, path: str) -> bool:
    """Return whether the spec has a field."""
    schema = (served(crd) or {}).get("properties", {}).get("spec", {})
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


def tag(deployment: Object | None) -> str | None:
    """Return the version that the operator's image is tagged with."""
    if deployment is None:
        return None
    return image_tag(str(deployment["spec"]["template"]["spec"]["containers"][0].get("image", "")))
