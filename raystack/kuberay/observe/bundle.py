"""Bundles of GitOps: their controller makes an object again that is deleted."""

import re
from collections.abc import Iterable

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.snapshot import at, created

ARGO, FLUX = "argocd.argoproj.io/tracking-id", "kustomize.toolkit.fluxcd.io/name"
_CONTENT = re.compile(r"-[0-9a-f]{8}$")
"""End of the name of a job in a bundle."""


def bundle(thing: Object | None) -> str | None:
    """Return the controller and the name of the bundle that an object is from, None if it is from none."""
    if tracked := at(thing, "metadata", "annotations", ARGO):
        return f"Argo CD's {str(tracked).partition(':')[0]}"
    name = at(thing, "metadata", "labels", FLUX)
    return f"Flux's {name}" if name else None


def made_again(things: Iterable[Object]) -> dict[str, str]:
    """Return the bundles that still have their object, by the uid of the object.

    Of jobs that replaced each other, whose names differ at their end, only the newest is still there.
    """
    newest: dict[tuple[str, str, str, str], Object] = {}
    for each in things:
        if (found := bundle(each)) is not None:
            metadata = each["metadata"]
            stem = _CONTENT.sub("", metadata["name"])
            key = (each["kind"], str(metadata.get("namespace")), found, stem)
            newest[key] = max(newest.get(key, each), each, key=created)
    return {str(at(each, "metadata", "uid")): key[2] for key, each in newest.items()}
