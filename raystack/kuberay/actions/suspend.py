"""Suspension of an object, and its end.

In: a Client and a Snapshot. Out: the object as it was changed; None if its queue was, or nothing.

Requests that would break an object for good are rejected before they are sent: the operator validates a
RayJob in every state, and one that is made invalid while it runs is lost.
"""

from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.causes import held
from raystack.kuberay.observe.snapshot import KINDS, Snapshot, at
from raystack.status import Status


def suspend(client: Client, snapshot: Snapshot, current: Status) -> Object | None:
    """Have its pods deleted and the object kept. Raises LaunchError if it would not survive that."""
    if snapshot.kind == "rayjob":
        _refuse_fatal(snapshot, current)
    if snapshot.queue is not None:
        _activate(client, snapshot, active=False)
        return None
    return None if snapshot.spec.get("suspend") else _suspend(client, snapshot, suspended=True)


def resume(client: Client, snapshot: Snapshot, current: Status) -> Object | None:
    """Have it continue. Raises LaunchError if it has ended, or if a queue holds it."""
    if current.finished:
        remedy = "submit it with --resume: it goes on from its last checkpoint"
        rule = f"it is {current.phase}, and does not go on"
        raise LaunchError(Problem(snapshot.reference, rule=rule, remedy=remedy))
    if at(snapshot.workload, "spec", "active") is False:
        _activate(client, snapshot, active=True)
        return None
    if held(snapshot):
        remedy = "only the queue can let it go"
        raise LaunchError(Problem(snapshot.reference, rule=current.reason, remedy=remedy))
    return _suspend(client, snapshot, suspended=False) if snapshot.spec.get("suspend") else None


def _suspend(client: Client, snapshot: Snapshot, *, suspended: bool) -> Object:
    return client.patch(KINDS[snapshot.kind], snapshot.name, {"spec": {"suspend": suspended}})


def _activate(client: Client, snapshot: Snapshot, *, active: bool) -> None:
    """Activate or deactivate the Workload."""
    name = at(snapshot.workload, "metadata", "name")
    if name is None:
        rule = f"queue {snapshot.queue} has not taken notice of it"
        remedy = f"see why: raystack diagnose {snapshot.reference}"
        raise LaunchError(Problem(snapshot.reference, rule=rule, remedy=remedy))
    # Kueue owns `suspend`; users control only whether Kueue considers the Workload at all.
    client.patch("Workload", name, {"spec": {"active": active}})


def _refuse_fatal(snapshot: Snapshot, current: Status) -> None:
    """Raise LaunchError for a RayJob that cannot be suspended."""
    spec = snapshot.spec
    remedy: str | None = (
        f"stop it with `raystack cancel {snapshot.reference}`, and submit it later with --resume: it goes on"
        " from its last checkpoint"
    )
    if current.finished:
        rule, remedy = f"it is {current.phase}: there is nothing to suspend", None
    elif "clusterSelector" in spec:
        rule = "a job on a cluster that it did not make cannot be suspended: KubeRay would refuse it for good"
    elif (spec.get("deletionStrategy") or {}).get("deletionRules"):
        rule = "a job with deletion rules cannot be suspended: KubeRay would refuse it for good"
    elif not spec.get("shutdownAfterJobFinishes"):
        rule = "a job whose cluster stays after its end cannot be suspended: KubeRay would refuse it for good"
    elif snapshot.status.get("jobDeploymentStatus") == "Waiting":
        rule = "KubeRay does not look at it before you have submitted"
    else:
        return
    raise LaunchError(Problem(snapshot.reference, rule=rule, remedy=remedy))
