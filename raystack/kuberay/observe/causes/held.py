"""Reasons for which an object has no pods yet: rejected, being deleted, or suspended."""

from raystack.kuberay.api.kinds import Object, event_time
from raystack.kuberay.observe.causes.evidence import first_line, told
from raystack.kuberay.observe.snapshot import Snapshot, at, condition, seconds
from raystack.status import Diagnosis

PATIENCE_S = 60.0
"""Time after which a change without a new status counts as seen by the operator."""


def invalid(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return why the operator rejects it."""
    refused = [event for event in snapshot.events if event.get("reason", "").startswith("Invalid")]
    said = (
        snapshot.status.get("message")
        if snapshot.status.get("jobDeploymentStatus") == "ValidationFailed"
        else None
    )
    ready = condition(snapshot.thing, "Ready")
    if said is None and ready.get("reason") == "ValidationFailed":
        said = ready.get("message")
    if said is None and snapshot.status.get("jobDeploymentStatus") != "ValidationFailed":
        if not _refuses(snapshot, refused):
            return None
        said = refused[-1].get("message")
    why = first_line(said) or (first_line(refused[-1].get("message")) if refused else "see its events")
    again = "correct the config" if snapshot.kind != "raycronjob" else "correct target.cron"
    remedy = f"{again}, delete it with `raystack cancel {snapshot.reference}` and submit it again"
    return Diagnosis(f"the operator refuses it: {why}", remedy, told(refused))


def _refuses(snapshot: Snapshot, refused: list[Object]) -> bool:
    """Return whether the operator has rejected the current version of the object or its cluster."""
    if snapshot.kind == "raycronjob":
        return bool(refused) and snapshot.status.get("lastScheduleTime") is None
    begun = snapshot.kind == "rayjob" and snapshot.status.get("jobDeploymentStatus")
    # A RayCluster reports it only in events, which count if the operator has not processed the change.
    parts = (None if begun else snapshot.thing, snapshot.cluster, snapshot.coming)
    said = max((seconds(event_time(event)) or 0.0 for event in refused), default=0.0)
    return any(part is not None and not _taken(part) and said >= _changed(part) for part in parts if refused)


def _taken(thing: Object) -> bool:
    return bool(at(thing, "status", "observedGeneration") == at(thing, "metadata", "generation"))


def heeded(thing: Object | None, now: float) -> bool:
    """Return whether the operator has seen the last change of an object."""
    told = at(thing, "status", "observedGeneration")
    return told is not None and (
        # The operator writes no status for a change that affects no count and no condition.
        told == at(thing, "metadata", "generation") or now - _changed(thing) > PATIENCE_S
    )


def _changed(thing: Object | None) -> float:
    """Return when a manager other than the operator last changed it."""
    entries = at(thing, "metadata", "managedFields") or ()
    # The status is written by the operator.
    times = [entry.get("time") for entry in entries if entry.get("subresource") != "status"]
    return max(
        (seconds(time) or 0.0 for time in (*times, at(thing, "metadata", "creationTimestamp"))), default=0.0
    )


def held(snapshot: Snapshot) -> bool:
    """Return whether a queue keeps it suspended, rather than a person."""
    return (
        snapshot.queue is not None
        and bool(snapshot.spec.get("suspend"))
        and at(snapshot.workload, "spec", "active") is not False
    )


def deleted(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return the cause if it is being deleted."""
    if at(snapshot.thing, "metadata", "deletionTimestamp") is None:
        return None
    later = (
        "; submitted again with --resume, it goes on from its last checkpoint"
        if snapshot.kind == "rayjob"
        else ""
    )
    return Diagnosis("it is being deleted", f"wait until it is gone{later}")


def suspended(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return the cause if a person has suspended it."""
    if not snapshot.spec.get("suspend"):
        return None
    return Diagnosis("it was suspended", f"raystack resume {snapshot.reference}")
