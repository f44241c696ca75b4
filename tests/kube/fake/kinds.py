"""The kinds that the server knows: the table of those that are built in, and those that a
CustomResourceDefinition brings.

The schemas of the built-in ones are those of Kubernetes' own OpenAPI document, as the package
kubernetes-validate ships it. Kinds of other operators have an open schema: anything goes.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Object = dict[str, Any]
Schema = Mapping[str, Any]

META: Schema = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
OPEN: Schema = {
    "type": "object",
    "properties": {"metadata": META},
    "x-kubernetes-preserve-unknown-fields": True,
}


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; those with a priority are shown with `-o wide`."""

    name: str
    type: str
    path: str
    priority: int = 0


@dataclass(frozen=True)
class Kind:
    """A kind of object, in the one version in which it is served."""

    group: str
    version: str
    kind: str
    plural: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    schema: Schema = field(default_factory=lambda: OPEN, repr=False, compare=False)
    columns: tuple[Column, ...] = field(default=(), repr=False, compare=False)
    categories: tuple[str, ...] = ()
    custom: bool = True
    """Comes from a CustomResourceDefinition."""
    status: bool = True
    """Has the subresource."""

    @property
    def api_version(self) -> str:
        """As in an object: `v1`, `ray.io/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As in messages: `pods`, `rayjobs.ray.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """As on the command line."""
        return self.kind.lower()


_BUILT_IN = """
v1 Namespace namespaces ns -
v1 Node nodes no -
v1 Pod pods po
v1 Secret secrets
v1 ConfigMap configmaps cm
v1 Service services svc
v1 ServiceAccount serviceaccounts sa
v1 Event events ev
v1 PersistentVolumeClaim persistentvolumeclaims pvc
v1 ResourceQuota resourcequotas quota
apps/v1 Deployment deployments deploy
batch/v1 Job jobs
batch/v1 CronJob cronjobs cj
rbac.authorization.k8s.io/v1 Role roles
rbac.authorization.k8s.io/v1 RoleBinding rolebindings
rbac.authorization.k8s.io/v1 ClusterRole clusterroles . -
rbac.authorization.k8s.io/v1 ClusterRoleBinding clusterrolebindings . -
policy/v1 PodDisruptionBudget poddisruptionbudgets pdb
networking.k8s.io/v1 NetworkPolicy networkpolicies netpol
networking.k8s.io/v1 Ingress ingresses ing
scheduling.k8s.io/v1 PriorityClass priorityclasses pc -
resource.k8s.io/v1 ResourceClaimTemplate resourceclaimtemplates
events.k8s.io/v1 Event events ev
apiextensions.k8s.io/v1 CustomResourceDefinition customresourcedefinitions crd -
"""
_OPEN = """
monitoring.coreos.com/v1 PodMonitor podmonitors pmon
kueue.x-k8s.io/v1beta2 LocalQueue localqueues lq
kueue.x-k8s.io/v1beta2 ClusterQueue clusterqueues cq -
kueue.x-k8s.io/v1beta2 Workload workloads wl
kueue.x-k8s.io/v1beta2 ResourceFlavor resourceflavors rf -
scheduling.volcano.sh/v1beta1 Queue queues q -
scheduling.volcano.sh/v1beta1 PodGroup podgroups pg
argoproj.io/v1alpha1 Application applications app
"""


class Kinds:
    """All kinds that are served now."""

    def __init__(self) -> None:
        self._kinds = {(kind.group, kind.kind): kind for kind in (*built_in(), *rows(_OPEN))}

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._kinds.values()))

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        """By its address."""
        return next(
            (kind for kind in self if (kind.group, kind.version, kind.plural) == (group, version, plural)),
            None,
        )

    def named(self, name: str, api_version: str | None = None) -> Kind:
        """By its name as in YAML, and where two kinds share it by its apiVersion too."""
        found = [kind for kind in self if kind.kind == name and api_version in (None, kind.api_version)]
        if not found:
            raise KeyError(f"the fake cluster serves no {name} {api_version or ''}".rstrip())
        return found[0]

    def learn(self, crd: Object) -> None:
        """Serve what a CustomResourceDefinition defines, or what it now says."""
        kind = custom(crd)
        self._kinds[kind.group, kind.kind] = kind

    def forget(self, crd: Object) -> None:
        """Serve it no longer."""
        self._kinds.pop((crd["spec"]["group"], crd["spec"]["names"]["kind"]), None)


def custom(crd: Object) -> Kind:
    """The kind of a CustomResourceDefinition, in the version in which it is stored."""
    spec, names = crd["spec"], crd["spec"]["names"]
    version = next(version for version in spec["versions"] if version["storage"])
    schema = version.get("schema", {}).get("openAPIV3Schema", OPEN)
    properties = {**schema.get("properties", {}), "metadata": META}
    columns = version.get("additionalPrinterColumns") or [
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    ]
    return Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        short=tuple(names.get("shortNames", ())),
        namespaced=spec["scope"] == "Namespaced",
        schema={**schema, "properties": properties},
        columns=tuple(
            Column(column["name"], column["type"], column["jsonPath"], column.get("priority", 0))
            for column in columns
        ),
        categories=tuple(names.get("categories", ())),
        status="status" in version.get("subresources", {}),
    )


@cache
def built_in() -> tuple[Kind, ...]:
    """Kubernetes' own kinds, with their schemas."""
    by_kind: dict[tuple[str, str, str], Schema] = {}
    for schema in definitions().values():
        for named in schema.get("x-kubernetes-group-version-kind", ()):
            by_kind[named["group"], named["version"], named["kind"]] = schema
    found = []
    for row in rows(_BUILT_IN):
        schema = by_kind[row.group, row.version, row.kind]
        status = "status" in schema["properties"]
        found.append(
            Kind(
                row.group,
                row.version,
                row.kind,
                row.plural,
                row.short,
                row.namespaced,
                schema,
                status=status,
                custom=False,
                categories=row.categories,
            )
        )
    return tuple(found)


def rows(table: str) -> tuple[Kind, ...]:
    """Kinds as the tables above list them: apiVersion, kind, plural, short name; a dash at the end means that
    it has no namespace.
    """
    found = []
    for line in table.strip().splitlines():
        api_version, kind, plural, *rest = line.split()
        group, _, version = api_version.rpartition("/")
        short = tuple(word for word in rest if word not in (".", "-"))
        categories = ("all",) if kind in ("Pod", "Service", "Deployment", "Job", "CronJob") else ()
        found.append(Kind(group, version, kind, plural, short, "-" not in rest, categories=categories))
    return tuple(found)


@cache
def definitions() -> dict[str, Schema]:
    """Kubernetes' OpenAPI definitions by name, of the newest version there is."""
    spec = find_spec("kubernetes_validate")
    assert spec is not None, "pip install kubernetes-validate"
    assert spec.origin is not None
    folders = list((Path(spec.origin).parent / "kubernetes-json-schema").glob("v*-local"))
    newest = max(folders, key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.name)])
    found: dict[str, Schema] = json.loads((newest / "_definitions.json").read_text(encoding="utf-8"))["$defs"]
    closed = ("properties", "additionalProperties", "items")
    return {
        name: schema if any(key in schema for key in closed) else {**schema, **_open(schema)}
        for name, schema in found.items()
    }


def _open(schema: Schema) -> Schema:
    """A definition that lists no fields takes all of them."""
    return {"x-kubernetes-preserve-unknown-fields": True} if "object" in schema.get("type", "object") else {}
