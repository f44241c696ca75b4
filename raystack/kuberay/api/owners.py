"""Owners of the fields that block an apply, and which of those fields may be taken over.

In: a live object, and contested fields. Pure.

The operator reads an object, adds its finalizer and writes all of it back. Fields that its Go types serialize
differently then belong to it: for a list of worker groups without `scaleStrategy` the whole list, because the
list is one value to server-side apply. Such a field may be taken over while it still equals what raystack
applied. managedFields record owners but not values, so raystack stores a digest of the worker groups in an
annotation.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raystack.kuberay.api.kinds import Object
from raystack.plan.kuberay.facts import amount

MANAGER = "raystack"
"""Field manager of raystack's applies."""
SCALER = "raystack-scale"
"""Field manager of `raystack scale`, whose numbers an apply sends along."""
OPERATOR = "kuberay-operator"
APPLIED = "raystack/applied"
"""Annotation with the digest of the worker groups that were applied last."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "RayCluster": ("spec", "workerGroupSpecs"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec", "workerGroupSpecs"),
    "RayJob": ("spec", "rayClusterSpec", "workerGroupSpecs"),
    "RayService": ("spec", "rayClusterConfig", "workerGroupSpecs"),
}
_AMOUNTS = ("limits", "requests")
_OF_AUTOSCALER = ("replicas", "scaleStrategy")


@dataclass(frozen=True)
class Contested:
    """Field that an apply would change, set by another manager."""

    path: str
    """Path as the server writes it, e.g. `.spec.rayClusterConfig.workerGroupSpecs`."""
    why: str
    """Reason, e.g. `is set by kubectl-edit`."""
    remedy: str

    @classmethod
    def by(cls, path: str, manager: str) -> "Contested":
        """Return the conflict with a field manager."""
        return cls(path, f"is set by {manager}", f"leave it out, or have {manager} give it up")


@dataclass(frozen=True)
class Owner:
    """Entry of an object's managedFields."""

    manager: str
    operation: str
    paths: frozenset[str]

    @property
    def applies(self) -> bool:
        """True for managers that use server-side apply, such as Argo CD and Flux."""
        return self.operation == "Apply"


def refused(live: Object, contested: Sequence[Contested]) -> list[Contested]:
    """Return the conflicts that remain; empty if every field may be taken over."""
    owners = list(_others(live))
    groups = "." + ".".join(GROUPS.get(live["kind"], ()))
    found: dict[str, Contested] = {}
    for each in contested:
        path, own = each.path, each.path == groups
        holders = [owner for owner in owners if path in owner.paths]
        who = next((owner.manager for owner in holders if not _may_be_taken(live, owner, own=own)), None)
        if not holders:  # the server knows an owner that is not found here, such as `before-first-apply`
            found[path] = each
        elif who is not None:
            found[path] = Contested.by(path, who)
        elif own and not as_applied(live):
            why = (
                f"was changed by somebody after raystack had applied it, and {OPERATOR} has written that back"
            )
            found[path] = Contested(
                path,
                why,
                "see what differs with `raystack render --diff`; put it into the config, or take it back",
            )
    return list(found.values())


def marked(manifest: Object, tried: Object) -> Object:
    """Return the manifest with a digest of its worker groups.

    `tried` is the result of a dry run, which has the groups as the server stores them.
    """
    groups = _groups(tried)
    if groups is None:
        return manifest
    annotations = {
        **manifest["metadata"].get("annotations", {}),
        APPLIED: digest(groups, autoscaled=_autoscaled(tried)),
    }
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def digest(groups: Any, *, autoscaled: bool = False) -> str:
    """Return a digest that ignores empty fields, the notation of quantities and autoscaled numbers."""
    if autoscaled:
        groups = [
            {key: value for key, value in group.items() if key not in _OF_AUTOSCALER} for group in groups
        ]
    return hashlib.sha256(json.dumps(_plain(groups), sort_keys=True).encode()).hexdigest()[:16]


def _may_be_taken(live: Object, owner: Owner, *, own: bool) -> bool:
    """Return whether the owner's fields may be taken over."""
    if owner.applies:
        return False
    # With autoscaling the live numbers are sent along, so taking over the groups does not change them.
    return owner.manager in (OPERATOR, SCALER) or (own and _autoscaled(live) and as_applied(live))


def as_applied(live: Object) -> bool:
    """Return whether the live groups are still those that raystack applied."""
    # Objects applied by a raystack without this annotation are assumed unchanged.
    noted = (live["metadata"].get("annotations") or {}).get(APPLIED)
    return noted is None or noted == digest(_groups(live) or [], autoscaled=_autoscaled(live))


def _autoscaled(obj: Object) -> bool:
    return obj["kind"] == "RayCluster" and bool(obj["spec"].get("enableInTreeAutoscaling"))


def _groups(obj: Object) -> Any:
    place: Any = obj
    for key in GROUPS.get(obj["kind"], ()):
        place = place.get(key) if isinstance(place, dict) else None
    return place if isinstance(place, list) else None


def _plain(value: Any, *, amounts: bool = False) -> Any:
    """Return the value without empty fields, and with quantities as numbers."""
    if isinstance(value, dict):
        # Go's omitempty drops empty fields, and the operator rewrites 0.5 as 500m.
        plain = {key: _plain(inner, amounts=amounts or key in _AMOUNTS) for key, inner in value.items()}
        return {key: inner for key, inner in plain.items() if inner not in (None, False, "", [], {})}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return round(amount(value), 9) if amounts else value


def _others(live: Object) -> Iterator[Owner]:
    """Yield the owners other than raystack, with their fields."""
    for entry in live["metadata"].get("managedFields") or ():
        owner = Owner(entry["manager"], entry["operation"], frozenset(_paths(entry.get("fieldsV1") or {})))
        if not (owner.manager == MANAGER and owner.applies):
            yield owner


def _paths(fields: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Yield paths as the server writes them in a conflict: `.spec.containers[name="ray"].image`."""
    for element, below in fields.items():
        if element == ".":
            continue
        path = at + _written(element)
        if not below or "." in below:
            yield path
        yield from _paths(below, path)


def _written(element: str) -> str:
    kind, _, rest = element.partition(":")
    match kind:
        case "f":
            return f".{rest}"
        case "k":
            return (
                "["
                + ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(json.loads(rest).items()))
                + "]"
            )
        case "v":
            return f"[={rest}]"
        case _:
            return f"[{rest}]"
