"""Why something on KubeRay does not run: one cause, one remedy. In: an Observed and the time. Out: a Diagnosis. Pure."""

from dataclasses import replace

from raystack.launch.kuberay import causes
from raystack.launch.kuberay.observed import Observed
from raystack.launch.kuberay.status import status
from raystack.launch.status import Diagnosis


def diagnose(observed: Observed, now: float) -> Diagnosis:
    """The first of the causes that matches, with what could not be read beside what it was concluded from."""
    found = _conclude(observed, now)
    return replace(found, evidence=(*found.evidence, *(f"not read: {what}" for what in observed.unread)))


def _conclude(observed: Observed, now: float) -> Diagnosis:
    current = status(observed, now)
    if current.phase == "gone":
        where = f"there is no {observed.kind} {observed.name} in namespace {observed.namespace}"
        return Diagnosis(where, "see what there is with `raystack status`; a job that has ended is deleted after target.lifetime.ttl_s")
    if current.phase == "succeeded" or (current.phase == "running" and not current.reason):
        return Diagnosis(f"nothing is wrong: it {'has succeeded' if current.phase == 'succeeded' else 'runs'}", "nothing")
    found = causes.find(observed, now) if current.phase != "stopped" or current.reason != "it is being deleted" else None
    if found is not None:
        return found
    if current.finished:
        return Diagnosis(current.reason or f"it is {current.phase}", "submit it again: it goes on from its last checkpoint")
    return Diagnosis(
        current.reason or f"nothing is wrong that can be seen: it is {current.phase}", f"wait: raystack status --watch {observed.reference}"
    )
