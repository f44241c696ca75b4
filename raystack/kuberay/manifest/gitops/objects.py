"""What all bundles have in common: the namespace, names by content, and who may delete what."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raystack.config.gitops import GitOps
from raystack.kuberay.manifest.parts import Manifest

ONCE = ("RayJob", "Experiment")
"""Kinds whose objects run once: their operators ignore a changed spec."""
_FOLLOWED = (
    "activeDeadlineSeconds",
    "backoffLimit",
    "deletionStrategy",
    "preRunningDeadlineSeconds",
    "shutdownAfterJobFinishes",
    "suspend",
    "ttlSecondsAfterFinished",
)
"""Fields of a RayJob that KubeRay follows while it runs: they need no other job."""
_OF_CLUSTER = ("default", "kube-system", "kube-public")
"""Namespaces that no bundle creates."""


@dataclass(frozen=True)
class Bundled:
    """Objects of a bundle."""

    name: str
    """Name of the bundle."""
    namespace: str
    path: str
    """Folder of the bundle in its repository."""
    config: GitOps
    manifests: tuple[Manifest, ...]
    """Objects in the order in which they are applied."""
    of_jobs: frozenset[tuple[str, str]]
    """Kind and name of jobs, and of what they alone need."""

    @property
    def kept(self) -> frozenset[tuple[str, str]]:
        """Kind and name of what stays when a changed job replaces it."""
        return self.of_jobs if self.config.replaced_jobs == "keep" else frozenset()

    def main(self, *kinds: str) -> tuple[Manifest, ...]:
        """Return the objects of these kinds."""
        return tuple(each for each in self.manifests if each["kind"] in kinds)

    def annotated(self, notes: Mapping[tuple[str, str], Mapping[str, str]]) -> tuple[Manifest, ...]:
        """Return the objects with further annotations, by kind and name."""
        return tuple(_annotated(each, notes.get(key(each), {})) for each in self.manifests)


def bundled(
    groups: Iterable[Sequence[Manifest]], *, name: str, namespace: str, path: str, config: GitOps
) -> Bundled:
    """Return the bundle of several forms, each with its helpers, and of their namespace."""
    groups = [*groups]
    found = {key(each): each for group in groups for each in group}
    of_jobs = {key(each) for group in groups if group[-1]["kind"] in ONCE for each in group}
    shared = {key(each) for group in groups if group[-1]["kind"] not in ONCE for each in group}
    made = [_namespace(namespace)] if config.create_namespace and namespace not in _OF_CLUSTER else []
    return Bundled(
        name=name,
        namespace=namespace,
        path=path,
        config=config,
        manifests=(*made, *found.values()),
        of_jobs=frozenset(of_jobs - shared),
    )


def digest(main: Manifest, code: str) -> str:
    """Return eight digits for what a job runs: they change where KubeRay would ignore the change.

    `code` is the digest of its config and code.
    """
    spec = {field: value for field, value in main["spec"].items() if field not in _FOLLOWED}
    text = json.dumps([main["kind"], spec, code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def key(manifest: Manifest) -> tuple[str, str]:
    """Return an object's kind and name."""
    return manifest["kind"], manifest["metadata"]["name"]


def autoscaled(manifest: Manifest) -> list[str]:
    """Return the groups of a RayCluster whose numbers Ray's autoscaler sets.

    Those of a RayJob or RayService are in the cluster that the operator makes of it, which is in no bundle.
    """
    if manifest["kind"] != "RayCluster" or not manifest["spec"].get("enableInTreeAutoscaling"):
        return []
    return [group["groupName"] for group in manifest["spec"].get("workerGroupSpecs") or []]


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _annotated(manifest: Manifest, notes: Mapping[str, str]) -> Manifest:
    if not notes:
        return manifest
    metadata: dict[str, Any] = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), **notes}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}
