"""Queues that hold a job: Kueue before its pods are created, others before they are scheduled."""

import re
from collections.abc import Callable

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.causes.evidence import first_line, told
from raystack.kuberay.observe.causes.held import held
from raystack.kuberay.observe.causes.scheduling import keys_of
from raystack.kuberay.observe.snapshot import Snapshot, at, condition, holds
from raystack.plan.kuberay.facts import YUNIKORN_QUEUE, amount
from raystack.status import Diagnosis

FOLLOW = ("Admitted", "PodsReady", "Preempted", "Requeued")
"""Conditions of a Workload that only follow from others."""
KAI_REASONS = ("OverLimit", "NonPreemptibleOverQuota")
"""KAI's reasons that are about a queue, and not about nodes."""
WAIT = "wait, ask for less (resources.workers), set target.queue.priority, or have the queue's {} raised"


def in_line(snapshot: Snapshot) -> bool:
    """Return whether a queue holds it."""
    return held(snapshot) or _scheduler(snapshot) is not None


def queued(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return why a queue holds it."""
    if held(snapshot):
        return _by_kueue(snapshot)
    by = _scheduler(snapshot)
    return None if by is None else by(snapshot)


def _scheduler(snapshot: Snapshot) -> Callable[[Snapshot], Diagnosis] | None:
    """Return what tells the reason of the scheduler whose queue has let in none of its pods."""
    if any(at(pod, "spec", "nodeName") for pod in snapshot.pods):
        return None
    if _skipped(snapshot) is not None:
        return _by_yunikorn
    group = snapshot.group
    if (at(group, "apiVersion") or "").startswith("scheduling.run.ai"):
        return _by_kai if _over(group) else None
    # A group that is admitted and finds no room is no longer Pending.
    return _by_volcano if at(group, "status", "phase") == "Pending" else None


def _skipped(snapshot: Snapshot) -> Object | None:
    """Return a pod that YuniKorn skips because of its queue; one that finds no node is Unschedulable."""
    return next(
        (pod for pod in snapshot.pods if condition(pod, "PodScheduled").get("reason") == "SchedulingSkipped"),
        None,
    )


def _by_yunikorn(snapshot: Snapshot) -> Diagnosis:
    pod = _skipped(snapshot) or {}
    message = first_line(condition(pod, "PodScheduled").get("message"))
    found = re.search(r"does not fit in queue '([^']+)' \((.*)\)", message)
    queue = found[1] if found else at(pod, "metadata", "labels", YUNIKORN_QUEUE) or "default"
    why = found[2] if found else message or "it waits for its turn"
    return Diagnosis(
        f"queue {queue} holds it: {why.replace('map[', '').replace(']', '')}",
        WAIT.format("quota in yunikorn-configs"),
        told(snapshot.events_of(pod)),
    )


def _over(group: Object | None) -> Object | None:
    """Return KAI's reason for which a queue is over its quota or limit."""
    conditions = at(group, "status", "schedulingConditions") or ()
    reasons = (reason for each in reversed(conditions) for reason in each.get("reasons") or ())
    return next((each for each in reasons if each.get("reason") in KAI_REASONS), None)


def _by_kai(snapshot: Snapshot) -> Diagnosis:
    reason, group = _over(snapshot.group) or {}, snapshot.group or {}
    message = first_line(reason.get("message"))
    queue = at(reason, "details", "queueDetails", "name") or at(group, "spec", "queue") or "default"
    why = re.sub(r"^.*? quota has reached the allowable limit of ", "it is at its limit of ", message)
    why = why.removeprefix("Non-preemptible workload is over quota. ").rstrip(".")
    evidence = told([event for event in snapshot.events_of(group) if event.get("type") == "Warning"])
    numbers = re.search(r"Limit is ([\d.]+) .* workload requested ([\d.]+)", message)
    if numbers is not None and float(numbers[2]) > float(numbers[1]):
        return Diagnosis(f"queue {queue} is too small for it: {why}", _smaller(""), evidence)
    return Diagnosis(
        f"queue {queue} holds it: {why}",
        f"{WAIT.format('limit')}; see it: kubectl get queues.scheduling.run.ai {queue} -o yaml",
        evidence,
    )


def _by_volcano(snapshot: Snapshot) -> Diagnosis:
    """Return Volcano's reason."""
    group = snapshot.group or {}
    # Only the events have the reason: the group's condition just says that its pods wait.
    events = [event for event in snapshot.events_of(group) if event.get("reason") == "Unschedulable"]
    messages = [first_line(event.get("message")) for event in events]
    waits = condition(group, "Unschedulable").get("message")
    why = next(
        (message for message in reversed(messages) if "tasks in gang" not in message),
        first_line(waits) or "it waits for its turn",
    )
    queue, state = at(group, "spec", "queue") or "default", at(snapshot.room, "status", "state")
    if snapshot.roomless or state in ("Closing", "Closed"):
        lacks = "there is no Queue of that name" if snapshot.roomless else f"it is {state.lower()}"
        remedy = "correct target.queue.name, or have the queue made and opened"
        return Diagnosis(f"queue {queue} cannot take it: {lacks}", remedy, told(events))
    least, most = at(group, "spec", "minResources") or {}, at(snapshot.room, "spec", "capability") or {}
    for resource, limit in most.items():
        if amount(least.get(resource, 0)) > amount(limit):
            asked = f"{least[resource]} {resource} asked for, {limit} at most"
            remedy = _smaller(f"quota for {resource} in flavor")
            return Diagnosis(f"queue {queue} is too small for it: {asked}", remedy, told(events))
    return Diagnosis(
        f"queue {queue} holds it: {why}",
        f"{WAIT.format('capability')}; see it: kubectl get queue {queue} -o yaml",
        told(events),
    )


def _by_kueue(snapshot: Snapshot) -> Diagnosis:
    queue, workload = snapshot.queue, snapshot.workload
    if workload is None:
        remedy = "see that Kueue is installed and manages this kind: raystack doctor"
        return Diagnosis(
            f"queue {queue} has not taken notice of it",
            remedy,
            told(snapshot.events_of(snapshot.thing or {})),
        )
    if holds(workload, "Admitted"):
        return Diagnosis(f"queue {queue} has just admitted it", "wait: its pods are made next")
    quota, evidence = condition(workload, "QuotaReserved"), _said(workload)
    if quota.get("status") == "True":
        checks = [
            check
            for check in at(workload, "status", "admissionChecks") or ()
            if check.get("state") != "Ready"
        ]
        waits = (
            ", ".join(f"{check.get('name')} ({check.get('state')})" for check in checks) or "its admission"
        )
        return Diagnosis(
            f"queue {queue} waits for {waits}",
            "wait, or look at the admission check of the ClusterQueue",
            evidence,
        )
    message = first_line(quota.get("message"))
    why = _shortage(message) or "it waits for its turn"
    if quota.get("reason") == "Inadmissible":
        return Diagnosis(
            f"queue {queue} cannot take it: {why}",
            "correct target.queue.name, or have the queue made and started",
            evidence,
        )
    if "maximum capacity" in message:
        return Diagnosis(f"queue {queue} is too small for it: {why}", _smaller(message), evidence)
    place = "" if snapshot.place is None else f", as number {snapshot.place} in line"
    if holds(workload, "Evicted"):
        goes_on = "it goes on from its last checkpoint" if snapshot.kind == "rayjob" else "its pods come back"
        remedy = f"wait: {goes_on}; target.queue.priority lets it go first"
        return Diagnosis(f"{_eviction(snapshot)}, and holds it{place}: {why}", remedy, evidence)
    return Diagnosis(f"queue {queue} holds it{place}: {why}", WAIT.format("quota"), evidence)


def _eviction(snapshot: Snapshot) -> str:
    """Return for whom, or why, Kueue evicted it."""
    evicted = condition(snapshot.workload, "Evicted")
    message = first_line(evicted.get("message"))
    if evicted.get("reason") == "Preempted" and snapshot.rival is not None:
        return f"queue {snapshot.queue} gave its place to {snapshot.rival}"
    return f"queue {snapshot.queue} took its place away ({evicted.get('reason')}: {_plain(message)})"


def _plain(message: str) -> str:
    """Return Kueue's message without counts of objects."""
    return re.sub(r" \(UID: [^)]*\)|;? preempt(or|ee) path: \S+", "", message)


def _shortage(message: str) -> str:
    """Return Kueue's message with the last of its counts, which add up over the kinds of pods."""
    message = re.sub(
        r"previously considered podsets requests \((\S+)\) \+ current podset request \((\S+)\)",
        r"\1 + \2",
        message,
    )
    message = re.sub(r"(\S+ \+ \S+) > maximum capacity \((\S+)\)", r"\1 asked for, \2 at most", message)
    message = re.sub(r"request > maximum capacity \((\S+) > (\S+)\)", r"\1 asked for, \2 at most", message)
    parts = re.split(
        r"(?:; |^)couldn't assign flavors to pod set [^:]+: ", message.split(". Pending the preemption")[0]
    )
    counts = dict(part.partition(", ")[::2] for part in parts if part)
    return "; ".join(f"{what}, {count}" if count else what for what, count in counts.items())


def _smaller(message: str) -> str:
    resource = re.search(r"quota for (\S+) in flavor", message)
    keys = (
        [keys_of(resource[1], which) for which in ("worker", "head")]
        if resource is not None
        else ["target.worker", "target.head"]
    )
    return (
        f"waiting does not help: lower {', '.join(dict.fromkeys(['resources.workers', *keys]))}, or have the"
        " queue's quota raised"
    )


def _said(workload: Object) -> tuple[str, ...]:
    """Return the messages of a Workload's conditions, once each, without derived conditions."""
    told_of = [
        entry for entry in at(workload, "status", "conditions") or () if entry.get("type") not in FOLLOW
    ]
    lines = (
        f"workload: {entry.get('type')} is {entry.get('status')}: {_plain(first_line(entry.get('message')))}"
        for entry in told_of
    )
    return tuple(dict.fromkeys(lines))
