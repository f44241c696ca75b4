"""States of a pod's containers, and what a pod is called."""

from collections.abc import Iterator
from typing import Any

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.snapshot import at, role

PLACES = {"head": "target.head", "worker": "target.worker", "submitter": "target.submitter"}
"""Section of the config by role of the pod."""

Found = tuple[str, str] | None
"""Cause and remedy."""


def the(pod: Object) -> str:
    """Return a pod's name for people; workers share one, so that a line stays the same."""
    return {"head": "the head", "worker": "a worker", "submitter": "the submitter"}[role(pod)]


def statuses_of(pod: Object) -> list[Object]:
    """Return the states of all containers, those that initialize first."""
    status = at(pod, "status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def waiting_of(pod: Object) -> Iterator[tuple[str, Object]]:
    """Yield waiting containers, with the reason."""
    for entry in statuses_of(pod):
        waiting = at(entry, "state", "waiting")
        if waiting is not None:
            yield entry["name"], waiting


def ends_of(pod: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield containers that ended, now or before their last restart, with the reason."""
    for entry in statuses_of(pod):
        ended = at(entry, "state", "terminated") or at(entry, "lastState", "terminated")
        if ended is not None:
            yield entry["name"], ended


def is_oom(state: Object) -> bool:
    """Return whether a container ended because it took too much memory."""
    return state.get("reason") == "OOMKilled"


def image_of(pod: Object, container: str) -> str:
    """Return the image of a container."""
    spec = at(pod, "spec") or {}
    every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return next((entry.get("image", "") for entry in every if entry.get("name") == container), "")
