"""Argo CD: manifests in waves, the Application that leads to them, and the health of KubeRay's kinds."""

from collections.abc import Mapping
from typing import Any

from raystack.kuberay.manifest.gitops.health import LUA
from raystack.kuberay.manifest.gitops.objects import ONCE, Bundled, autoscaled, key
from raystack.kuberay.manifest.parts import Manifest
from raystack.kuberay.manifest.text import kustomize, to_yaml

APPLICATION, HEALTH = "argo-application.yaml", "argo-health.yaml"
"""Files beside the bundle, which are applied once, by whoever installs Argo CD's applications."""
WAVES: Mapping[str, int] = {
    "Namespace": 0,
    "ServiceAccount": 1,
    "Role": 1,
    "RoleBinding": 1,
    "NetworkPolicy": 2,
    "RayCluster": 4,
    "RayJob": 4,
    "RayService": 4,
    "RayCronJob": 4,
    "CronJob": 4,
    "Experiment": 4,
    "HTTPRoute": 5,
    "GRPCRoute": 5,
    "VirtualService": 5,
}
_BETWEEN = 3
"""Wave of all other kinds, such as ConfigMaps."""
_PREFIX = "argocd.argoproj.io"
_RETRY = {"limit": 5, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "5m"}}
"""Argo CD tries a commit once unless told otherwise, and the namespace or KubeRay's CRDs may come later, with
another Application.
"""
_NUMBERS = (
    ".spec.workerGroupSpecs[].replicas",
    ".spec.workerGroupSpecs[].scaleStrategy.workersToDelete",
)
"""What Ray's autoscaler writes into a RayCluster."""


def argo(bundle: Bundled) -> dict[str, str]:
    """Return the bundle with its kustomization.yaml, the Application, and the health checks."""
    manifests = bundle.annotated({key(each): _notes(bundle, each) for each in bundle.manifests})
    return {
        **kustomize([each for each in manifests if each["kind"] != "Namespace" or not _is_early(bundle)]),
        APPLICATION: to_yaml([_application(bundle)]),
        HEALTH: to_yaml([_health(bundle)]),
    }


def _notes(bundle: Bundled, each: Manifest) -> dict[str, str]:
    notes = {f"{_PREFIX}/sync-wave": str(WAVES.get(each["kind"], _BETWEEN))}
    hook, kind = bundle.config.hook, each["kind"]
    # What a job needs before the sync has to be there before it as well.
    if hook != "none" and (kind in ONCE or (hook == "PreSync" and key(each) in bundle.of_jobs)):
        return {**notes, f"{_PREFIX}/hook": hook, f"{_PREFIX}/hook-delete-policy": "BeforeHookCreation"}
    if kind == "Namespace":
        return {**notes, f"{_PREFIX}/sync-options": "Prune=false"}
    if key(each) in bundle.kept:
        notes[f"{_PREFIX}/sync-options"] = "Prune=false"
        notes[f"{_PREFIX}/compare-options"] = "IgnoreExtraneous"
    return notes


def _application(bundle: Bundled) -> Manifest:
    config = bundle.config
    ignored = [_ignored(each) for each in bundle.manifests if autoscaled(each)]
    options = ["ServerSideApply=true", "ApplyOutOfSyncOnly=true"]
    if _is_early(bundle) and bundle.main("Namespace"):
        options.append("CreateNamespace=true")
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": bundle.name, "namespace": _own_namespace(bundle)},
        "spec": {
            "project": config.project,
            "source": {
                "repoURL": config.source,
                "targetRevision": config.revision,
                "path": bundle.path,
            },
            "destination": {"server": config.server, "namespace": bundle.namespace},
            **({"ignoreDifferences": ignored} if ignored else {}),
            "syncPolicy": {
                "automated": {"prune": True, "selfHeal": True},
                # A hook that has failed would train again with each try.
                **({"retry": _RETRY} if config.hook == "none" else {}),
                # To apply a cluster is to set the numbers of its workers, so what has not changed is left
                # alone. RespectIgnoreDifferences would leave out every change of the groups: Argo CD merges
                # lists of other kinds than Kubernetes' own as a whole.
                "syncOptions": options,
            },
        },
    }


def _is_early(bundle: Bundled) -> bool:
    """Return whether a hook needs the namespace before the sync.

    Argo CD itself creates it then: as an object of the sync it would come too late, and as a hook it would be
    deleted before each sync.
    """
    return bundle.config.hook == "PreSync"


def _ignored(cluster: Manifest) -> dict[str, Any]:
    kind, name = key(cluster)
    return {"group": "ray.io", "kind": kind, "name": name, "jqPathExpressions": [*_NUMBERS]}


def _health(bundle: Bundled) -> Manifest:
    checks = {f"resource.customizations.health.ray.io_{kind}": text for kind, text in LUA.items()}
    metadata = {
        "name": "argocd-cm",
        "namespace": _own_namespace(bundle),
        "labels": {"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"},
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": checks}


def _own_namespace(bundle: Bundled) -> str:
    return bundle.config.controller_namespace or "argocd"
