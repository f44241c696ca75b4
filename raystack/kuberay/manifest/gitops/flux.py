"""Flux: manifests, the source with them, and the Kustomization that applies them."""

from typing import Any

from raystack.kuberay.manifest.gitops.health import CEL
from raystack.kuberay.manifest.gitops.objects import Bundled, autoscaled, key
from raystack.kuberay.manifest.parts import Manifest
from raystack.kuberay.manifest.text import kustomize, to_yaml

KUSTOMIZATION = "flux-kustomization.yaml"
"""File beside the bundle, which is applied once."""
OCI = "oci://"
_PRUNE = {"kustomize.toolkit.fluxcd.io/prune": "disabled"}


def flux(bundle: Bundled) -> dict[str, str]:
    """Return the bundle with its kustomization.yaml, and Flux's own objects."""
    lasting = {key(each) for each in bundle.main("Namespace")} | bundle.kept
    manifests = bundle.annotated(dict.fromkeys(lasting, _PRUNE))
    return {**kustomize(manifests), KUSTOMIZATION: to_yaml([_source(bundle), _kustomization(bundle)])}


def _source(bundle: Bundled) -> Manifest:
    config = bundle.config
    oci = (config.source or "").startswith(OCI)
    reference = {"tag" if oci else "branch": config.revision}
    return {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "OCIRepository" if oci else "GitRepository",
        "metadata": _metadata(bundle),
        "spec": {"interval": "1m", "url": config.source, "ref": reference},
    }


def _kustomization(bundle: Bundled) -> Manifest:
    checked = bundle.main(*CEL)
    kinds = sorted({each["kind"] for each in checked})
    ignored = [_ignored(each) for each in bundle.manifests if autoscaled(each)]
    return {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": _metadata(bundle),
        "spec": {
            "interval": bundle.config.interval,
            "timeout": "30m",
            "retryInterval": "2m",
            "path": f"./{bundle.path}",
            "prune": True,
            "sourceRef": {"kind": _source(bundle)["kind"], "name": bundle.name},
            **({"ignore": ignored} if ignored else {}),
            **({"healthChecks": [_reference(each) for each in checked]} if checked else {}),
            **(
                {
                    "healthCheckExprs": [
                        {"apiVersion": "ray.io/v1", "kind": kind, **CEL[kind]} for kind in kinds
                    ]
                }
                if kinds
                else {}
            ),
        },
    }


def _ignored(cluster: Manifest) -> dict[str, Any]:
    """Return the paths that Ray's autoscaler writes; JSON pointers have no wildcards."""
    kind, name = key(cluster)
    groups = [f"/spec/workerGroupSpecs/{at}" for at in range(len(autoscaled(cluster)))]
    paths = [
        f"{group}/{field}" for group in groups for field in ("replicas", "scaleStrategy/workersToDelete")
    ]
    return {"paths": paths, "target": {"group": "ray.io", "kind": kind, "name": f"^{name}$"}}


def _reference(each: Manifest) -> dict[str, str]:
    kind, name = key(each)
    namespace = each["metadata"]["namespace"]
    return {"apiVersion": each["apiVersion"], "kind": kind, "name": name, "namespace": namespace}


def _metadata(bundle: Bundled) -> dict[str, str]:
    return {"name": bundle.name, "namespace": bundle.config.controller_namespace or "flux-system"}
