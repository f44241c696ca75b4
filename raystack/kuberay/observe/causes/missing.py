"""Pods that were not created, because of a quota, an admission policy or an account."""

import re
from collections.abc import Iterator

from raystack.kuberay.observe.causes.evidence import first_line, told
from raystack.kuberay.observe.snapshot import Snapshot, age, at, condition, role
from raystack.status import Diagnosis

MAKERS = {"FailedToCreateHeadPod": "head", "FailedToCreateWorkerPod": "worker", "FailedCreate": "submitter"}
"""Events that report it, with the pod that was not created."""

SILENT_S = 60.0
"""Time that the operator has to react to a new object."""


def missing(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return why expected pods were not created."""
    if _unseen(snapshot, now):
        remedy = "see that KubeRay's operator runs and watches this namespace: raystack doctor"
        return Diagnosis("no operator has taken notice of it", remedy, told(snapshot.events))
    lacking = tuple(_lacking(snapshot))
    for which in lacking:
        events = [event for event in snapshot.events if MAKERS.get(event.get("reason", "")) == which]
        message = first_line(events[-1].get("message")) if events else _replica_failure(snapshot, which)
        if message:
            name = "a worker" if which == "worker" else f"the {which}"
            cause, remedy = _refusal(message, which)
            return Diagnosis(
                f"{name} cannot be made: {cause}", remedy, (*told(events), *_quotas(snapshot, message))
            )
    made = [
        event
        for event in snapshot.events
        if event.get("reason") in ("FailedToCreateRayCluster", "FailedToCreateRayJobSubmitter")
    ]
    if made and (snapshot.cluster is None or "submitter" in lacking):
        return Diagnosis(
            first_line(made[-1].get("message")),
            f"look at its events: kubectl describe {snapshot.kind} {snapshot.name}",
            told(made),
        )
    return None


def _unseen(snapshot: Snapshot, now: float) -> bool:
    silent = not snapshot.status and not snapshot.events and snapshot.kind != "raycronjob"
    return silent and snapshot.thing is not None and age(snapshot.thing, now) > SILENT_S


def _lacking(snapshot: Snapshot) -> Iterator[str]:
    """Yield which expected pods do not exist."""
    there = [role(pod) for pod in snapshot.pods]
    if snapshot.cluster is not None:
        if "head" not in there:
            yield "head"
        if there.count("worker") < (at(snapshot.cluster, "status", "desiredWorkerReplicas") or 0):
            yield "worker"
    if (
        snapshot.submitter is not None
        and "submitter" not in there
        and not at(snapshot.submitter, "status", "succeeded")
    ):
        yield "submitter"


def _replica_failure(snapshot: Snapshot, which: str) -> str:
    failure = condition(snapshot.cluster, "ReplicaFailure")
    if failure.get("status") != "True" or failure.get("reason") != f"FailedCreate{which.capitalize()}Pod":
        return ""
    return first_line(failure.get("message"))


def _refusal(message: str, which: str) -> tuple[str, str]:
    place = "target.head" if which == "head" else "target.worker"
    quota = re.search(r"exceeded quota: ([\w.-]+), (requested: .*)", message)
    if quota is not None:
        remedy = (
            "ask for less (resources.workers, target.worker), free some with `raystack gc`, or have the quota"
            " raised"
        )
        return f"quota {quota[1]} is used up, {quota[2].rstrip('. ')}", remedy
    if "must specify" in message and "quota" in message:
        return message, f"set {place}.cpus and {place}.memory: the quota counts them"
    if "violates PodSecurity" in message:
        return (
            message[message.index("violates PodSecurity") :],
            "set target.security.run_as, and drop what target.overlay adds",
        )
    if re.search(r"service ?account", message):
        return message, "create the ServiceAccount, or drop target.service_account to have one made"
    if "PriorityClass" in message:
        return (
            message,
            f"create the PriorityClass, or correct {place}.priority_class and target.queue.priority",
        )
    if re.search(r"(maximum|minimum) \S+ usage per", message):
        return message, f"keep {place} within the namespace's LimitRange"
    if "denied the request" in message:
        return (
            message[message.find("admission webhook") :],
            "do what that policy asks for, e.g. by target.labels or target.annotations",
        )
    return message, "look at the message, and correct target"


def _quotas(snapshot: Snapshot, message: str) -> Iterator[str]:
    """Yield the usage of the quotas that the message names."""
    for quota in snapshot.quotas:
        name = at(quota, "metadata", "name")
        if name not in message:
            continue
        hard, used = at(quota, "status", "hard") or {}, at(quota, "status", "used") or {}
        yield f"quota {name}: " + ", ".join(
            f"{key} {used.get(key, '0')} of {limit}" for key, limit in sorted(hard.items())
        )
