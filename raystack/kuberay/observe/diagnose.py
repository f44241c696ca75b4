"""Diagnosis of things on KubeRay that do not run: one cause, one remedy.

In: a Snapshot and the time. Out: a Diagnosis. Pure.
"""

from dataclasses import replace

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe import causes
from raystack.kuberay.observe.causes.evidence import told
from raystack.kuberay.observe.snapshot import Snapshot
from raystack.kuberay.observe.status import status
from raystack.status import Diagnosis


def diagnose(snapshot: Snapshot, now: float) -> Diagnosis:
    """Return the first matching cause, with a note of what could not be read."""
    found = _conclude(snapshot, now)
    return replace(found, evidence=(*found.evidence, *(f"not read: {what}" for what in snapshot.unread)))


def _conclude(snapshot: Snapshot, now: float) -> Diagnosis:
    current = status(snapshot, now)
    if current.phase == "gone":
        return _gone(snapshot)
    if current.phase == "succeeded" or (current.phase == "running" and not current.reason):
        return Diagnosis(
            f"nothing is wrong: it {'has succeeded' if current.phase == 'succeeded' else 'runs'}", "nothing"
        )
    found = causes.find(snapshot, now)
    if found is not None:
        return found
    if current.finished:
        return Diagnosis(current.reason or f"it is {current.phase}", _again(snapshot))
    return Diagnosis(
        current.reason or f"nothing is wrong that can be seen: it is {current.phase}",
        f"wait: raystack status --watch {snapshot.reference}",
    )


def _again(snapshot: Snapshot) -> str:
    return (
        "submit it with --resume: it goes on from its last checkpoint"
        if snapshot.kind == "rayjob"
        else "submit it again"
    )


def _gone(snapshot: Snapshot) -> Diagnosis:
    """Return the diagnosis of an object that no longer exists, from events that outlive it by an hour."""
    where = f"in namespace {snapshot.namespace}"
    if not snapshot.events:
        remedy = "see what there is with `raystack status`; -n names another namespace"
        return Diagnosis(f"there is no {snapshot.kind} {snapshot.name} {where}", remedy)
    remedy = "what `raystack cancel` has kept of it is in raystack-logs/"
    if snapshot.kind == "rayjob":
        ended = "one that ended by itself is deleted after target.lifetime.ttl_s"
        remedy = f"submit it with --resume to go on from its last checkpoint; {ended}; {remedy}"
    if snapshot.kind == "raycluster":
        remedy = f"see the job or service that had made it: `raystack status`; {remedy}"
    said = [event for event in snapshot.events if event.get("type") == "Warning" or _deletes(event)]
    return Diagnosis(f"{snapshot.kind} {snapshot.name} was deleted {where}", remedy, told(said)[-1:])


def _deletes(event: Object) -> bool:
    return str(event.get("reason")).startswith("Deleted")
