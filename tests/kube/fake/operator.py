"""What KubeRay's operator writes into the objects of others, as it was recorded: nothing but itself happens
by that.

It reads an object into its own types, adds its finalizer, and writes all of it back. By that it comes to own
what its types spell another way: every group of workers gets an empty `scaleStrategy`, so that the list of
them is the operator's from then on; and an amount such as `0.5` becomes `500m`.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fake.kinds import Object

if TYPE_CHECKING:
    from fake.cluster import FakeCluster

OPERATOR = "kuberay-operator"
_CLUSTERS = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
}
_THOUSANDTHS = re.compile(r"\d*\.\d{1,3}")


def take_up(cluster: "FakeCluster", kind: str, name: str, namespace: str = "default") -> Object:
    """Write an object back as the operator does when it sees it for the first time."""
    found = cluster.get(kind, name, namespace)
    assert found is not None, f"there is no {kind} {name}"
    finalizer = f"ray.io/{kind.lower()}-finalizer"
    finalizers = found["metadata"].setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)
    return cluster.update(written_back(found), OPERATOR)


def written_back(obj: Object) -> Object:
    """The object after it was read into the operator's types and written again."""
    place: Any = obj
    for key in _CLUSTERS[obj["kind"]]:
        place = place[key]
    for group in place.get("workerGroupSpecs") or ():
        group.setdefault("scaleStrategy", {})
    _in_amounts(place, _shortened)
    return obj


def _in_amounts(value: Any, change: Callable[[Any], Any]) -> None:
    """Change the amounts in all limits and requests."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _in_amounts(inner, change)
    if isinstance(value, dict):
        for key in ("limits", "requests"):
            if isinstance(value.get(key), dict):
                value[key] = {name: change(amount) for name, amount in value[key].items()}


def _shortened(amount: Any) -> Any:
    """As the operator's types write an amount."""
    text = str(amount)
    return f"{round(float(text) * 1000)}m" if _THOUSANDTHS.fullmatch(text) else text
