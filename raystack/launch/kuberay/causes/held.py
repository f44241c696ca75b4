"""What keeps a thing from starting before any pod is made: it was refused, a queue holds it, or somebody suspended it."""

from raystack.launch.kuberay.causes.pod import first_line, told
from raystack.launch.kuberay.kinds import Object
from raystack.launch.kuberay.observed import Observed, at, condition, holds, seconds, seen_at
from raystack.launch.status import Diagnosis

PATIENCE_S = 60.0
"""How long a change may go without a word of the operator."""


def invalid(observed: Observed, now: float) -> Diagnosis | None:
    """The operator refuses it. Of a RayCluster only events say so; they count where the operator did not take its last change."""
    refused = [event for event in observed.events if event.get("reason", "").startswith("Invalid")]
    said = observed.status.get("message") if observed.status.get("jobDeploymentStatus") == "ValidationFailed" else None
    ready = condition(observed.thing, "Ready")
    if said is None and ready.get("reason") == "ValidationFailed":
        said = ready.get("message")
    if said is None and observed.status.get("jobDeploymentStatus") != "ValidationFailed":
        if not _refuses(observed, refused):
            return None
        said = refused[-1].get("message")
    why = first_line(said) or (first_line(refused[-1].get("message")) if refused else "see its events")
    again = "correct the config" if observed.kind != "raycronjob" else "correct target.cron"
    remedy = f"{again}, delete it with `raystack cancel {observed.reference}` and submit it again"
    return Diagnosis(f"the operator refuses it: {why}", remedy, told(refused))


def _refuses(observed: Observed, refused: list[Object]) -> bool:
    """Whether the operator did not take the thing, or a cluster of it, as it now stands, and has said so since then."""
    if observed.kind == "raycronjob":
        return bool(refused) and observed.status.get("lastScheduleTime") is None
    begun = observed.kind == "rayjob" and observed.status.get("jobDeploymentStatus")
    parts = (None if begun else observed.thing, observed.cluster, observed.coming)
    said = max((seconds(seen_at(event) or None) or 0.0 for event in refused), default=0.0)
    return any(part is not None and not _taken(part) and said >= _changed(part) for part in parts if refused)


def _taken(thing: Object) -> bool:
    return bool(at(thing, "status", "observedGeneration") == at(thing, "metadata", "generation"))


def heeded(thing: Object | None, now: float) -> bool:
    """Whether the operator has seen the last change of an object.

    It writes no status for a change that moves no count and no condition, so that one of a while ago counts as seen.
    """
    told = at(thing, "status", "observedGeneration")
    return told is not None and (told == at(thing, "metadata", "generation") or now - _changed(thing) > PATIENCE_S)


def _changed(thing: Object | None) -> float:
    """When somebody but the operator, who writes the status, changed it last."""
    entries = at(thing, "metadata", "managedFields") or ()
    times = [entry.get("time") for entry in entries if entry.get("subresource") != "status"]
    return max((seconds(time) or 0.0 for time in (*times, at(thing, "metadata", "creationTimestamp"))), default=0.0)


def held(observed: Observed) -> bool:
    """Whether a queue keeps it suspended. One that a person has deactivated is suspended."""
    return observed.queue is not None and bool(observed.spec.get("suspend")) and at(observed.workload, "spec", "active") is not False


def queued(observed: Observed, now: float) -> Diagnosis | None:
    """A queue holds it."""
    if not held(observed):
        return None
    queue, workload = observed.queue, observed.workload
    if workload is None:
        remedy = "see that Kueue is installed and manages this kind: raystack doctor"
        return Diagnosis(f"queue {queue} has not taken notice of it", remedy, told(observed.events_of(observed.thing or {})))
    if holds(workload, "Admitted"):
        return Diagnosis(f"queue {queue} has just admitted it", "wait: its pods are made next")
    evicted, quota = condition(workload, "Evicted"), condition(workload, "QuotaReserved")
    why = first_line(quota.get("message")) or "it waits for its turn"
    conditions = at(workload, "status", "conditions") or ()
    evidence = tuple(f"workload: {entry.get('type')} is {entry.get('status')}: {first_line(entry.get('message'))}" for entry in conditions)
    if evicted.get("status") == "True" and quota.get("status") != "True":
        text = f"queue {queue} took its place away ({evicted.get('reason')}): {first_line(evicted.get('message'))}"
        return Diagnosis(text, "wait: it goes on from its last checkpoint; target.queue.priority lets it go first", evidence)
    if quota.get("status") == "True":
        checks = [check for check in at(workload, "status", "admissionChecks") or () if check.get("state") != "Ready"]
        waits = ", ".join(f"{check.get('name')} ({check.get('state')})" for check in checks) or "its admission"
        return Diagnosis(f"queue {queue} waits for {waits}", "wait, or look at the admission check of the ClusterQueue", evidence)
    if quota.get("reason") == "Inadmissible":
        return Diagnosis(f"queue {queue} cannot take it: {why}", "correct target.queue.name, or have the queue made and started", evidence)
    remedy = "wait, ask for less (resources.workers), set target.queue.priority, or have the ClusterQueue's quota raised"
    return Diagnosis(f"queue {queue} holds it: {why}", remedy, evidence)


def suspended(observed: Observed, now: float) -> Diagnosis | None:
    """Somebody suspended it."""
    if not observed.spec.get("suspend"):
        return None
    return Diagnosis("it was suspended", f"raystack resume {observed.reference}")
