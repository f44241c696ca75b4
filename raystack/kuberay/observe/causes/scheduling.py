"""Causes for which no node takes a pod."""

import re

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.causes.containers import PLACES, Found, the
from raystack.kuberay.observe.causes.evidence import first_line
from raystack.kuberay.observe.snapshot import Snapshot, age, at, condition, role

UNSEEN_S = 15.0
"""Time that a scheduler has to consider a pod, which it does at once even if no node fits.
"""


def no_node(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if no node can take the pod."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("reason") == "SchedulingGated":
        return (
            f"{the(pod)} is held by a scheduling gate",
            "the queue lifts it; see what it says: kubectl get workloads",
        )
    message = scheduled.get("message") if scheduled.get("reason") == "Unschedulable" else None
    if message is None and not at(pod, "spec", "nodeName"):
        events = [
            event
            for event in snapshot.events_of(pod)
            if event.get("reason") in ("FailedScheduling", "Unschedulable")
        ]
        message = events[-1].get("message") if events else None
    if message is not None:
        # The scheduler ends with what it could take away from others, and that this would not help.
        why = re.split(r"[.,] (?:no new claims to deallocate|preemption:)", first_line(message))[0].rstrip(
            "., "
        )
        return f"{the(pod)} finds no node: {why}", _remedy_of_scheduling(why, role(pod))
    if not at(pod, "spec", "nodeName") and scheduled.get("status") != "True" and age(pod, now) > UNSEEN_S:
        scheduler = at(pod, "spec", "schedulerName") or "default-scheduler"
        remedy = (
            f"see that {scheduler} runs and knows its queue: raystack doctor; or set target.queue.scheduler"
            " to one that runs"
        )
        return f"no scheduler looks at {the(pod)}, which asks for {scheduler}", remedy
    return None


def _remedy_of_scheduling(why: str, which: str) -> str:
    place = PLACES[which]
    if re.search(r"persistentvolumeclaim|PersistentVolumeClaim|volume", why):
        return "create the claim, or correct target.storage.volumes"
    short = dict.fromkeys(name.rstrip(".") for name in re.findall(r"Insufficient ([\w./-]+)", why))
    if short:
        return (
            "add nodes, or lower"
            f" {' and '.join(dict.fromkeys(keys_of(resource, which) for resource in short))}"
        )
    if re.search(r"affinity|selector", why):
        further = ", target.gpu.model, target.spot" if which == "worker" else ""
        return f"label nodes accordingly, or change {place}.node_selector{further}"
    taint = re.search(r"taints?(?: \{([^}:]+))?", why)
    if taint is not None:
        return f"tolerate the taint{f' {taint[1]}' if taint[1] else ''}: add it to {place}.tolerations"
    if re.search(r"[Pp]od ?[Gg]roup|gang|minAvailable|minMember|sibling pods", why):
        return (
            "wait for room for all pods at once, ask for fewer resources.workers, or set"
            " target.queue.gang=false"
        )
    return f"add nodes, or ask for less: resources.workers, {place}"


def keys_of(resource: str, which: str) -> str:
    """Return the config's key for a pod's request of a resource."""
    place = PLACES[which]
    if resource == "cpu":
        return "resources.cpus_per_worker" if which == "worker" else f"{place}.cpus"
    if resource in ("memory", "ephemeral-storage"):
        return f"{place}.{resource.replace('-', '_')}"
    if resource == "pods":
        return "resources.workers"
    gpu = re.search(r"gpu|/mig-", resource)
    return (
        "resources.gpus_per_worker" if gpu else f"what asks for {resource} (resources.custom, target.gpu.key)"
    )
