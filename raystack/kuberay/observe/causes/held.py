"""What keeps a thing from starting before any pod is made: it was refused, it is being deleted, or somebody
suspended it.
"""

from raystack.kuberay.api.kinds import Object, event_time
from raystack.kuberay.observe.causes.pod import first_line, told
from raystack.kuberay.observe.snapshot import Snapshot, at, condition, seconds
from raystack.status import Diagnosis

PATIENCE_S = 60.0
"""How long a change may go without a word of the operator."""


def invalid(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """The operator refuses it. Of a RayCluster only events say so; they count where the operator did not take
    its last change.
    """
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
    """Whether the operator did not take the thing, or a cluster of it, as it now stands, and has said so
    since then.
    """
    if snapshot.kind == "raycronjob":
        return bool(refused) and snapshot.status.get("lastScheduleTime") is None
    begun = snapshot.kind == "rayjob" and snapshot.status.get("jobDeploymentStatus")
    parts = (None if begun else snapshot.thing, snapshot.cluster, snapshot.coming)
    said = max((seconds(event_time(event)) or 0.0 for event in refused), default=0.0)
    return any(part is not None and not _taken(part) and said >= _changed(part) for part in parts if refused)


def _taken(thing: Object) -> bool:
    return bool(at(thing, "status", "observedGeneration") == at(thing, "metadata", "generation"))


def heeded(thing: Object | None, now: float) -> bool:
    """Whether the operator has seen the last change of an object.

    It writes no status for a change that moves no count and no condition, so that one of a while ago counts
    as seen.
    """
    told = at(thing, "status", "observedGeneration")
    return told is not None and (
        told == at(thing, "metadata", "generation") or now - _changed(thing) > PATIENCE_S
    )


def _changed(thing: Object | None) -> float:
    """When somebody but the operator, who writes the status, changed it last."""
    entries = at(thing, "metadata", "managedFields") or ()
    times = [entry.get("time") for entry in entries if entry.get("subresource") != "status"]
    return max(
        (seconds(time) or 0.0 for time in (*times, at(thing, "metadata", "creationTimestamp"))), default=0.0
    )


def held(snapshot: Snapshot) -> bool:
    """Whether a queue keeps it suspended. One that a person has deactivated is suspended."""
    return (
        snapshot.queue is not None
        and bool(snapshot.spec.get("suspend"))
        and at(snapshot.workload, "spec", "active") is not False
    )


def deleted(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Somebody deletes it."""
    if at(snapshot.thing, "metadata", "deletionTimestamp") is None:
        return None
    later = (
        "; submitted again with --resume, it goes on from its last checkpoint"
        if snapshot.kind == "rayjob"
        else ""
    )
    return Diagnosis("it is being deleted", f"wait until it is gone{later}")


def suspended(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Somebody suspended it."""
    if not snapshot.spec.get("suspend"):
        return None
    return Diagnosis("it was suspended", f"raystack resume {snapshot.reference}")
