"""Causes for which a pod does not run.

In: a Snapshot. Out: a Diagnosis of the first pod with a problem, the head before the workers.

The order of `CAUSES` follows a pod's life: scheduling, image, volumes, start, crash.
"""

import re
from collections.abc import Callable

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.causes.containers import (
    PLACES,
    Found,
    ends_of,
    is_oom,
    statuses_of,
    the,
    waiting_of,
)
from raystack.kuberay.observe.causes.evidence import first_line, told
from raystack.kuberay.observe.causes.image import no_image
from raystack.kuberay.observe.causes.scheduling import no_node
from raystack.kuberay.observe.snapshot import (
    SUBMITTER,
    Snapshot,
    age,
    at,
    condition,
    head,
    holds,
    is_ready,
    role,
)
from raystack.status import Diagnosis

PATIENCE_S = 120.0
"""Time allowed for a step that usually takes seconds."""


def pods(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return the problem of the first pod that has one."""
    headless = is_headless(snapshot)
    for pod in snapshot.pods:
        if (is_ready(pod) and role(pod) != "submitter") or (headless and role(pod) == "worker"):
            continue
        for cause in CAUSES:
            found = cause(pod, snapshot, now)
            if found is not None:
                return Diagnosis(found[0], found[1], evidence(pod, snapshot))
    return None


def is_headless(snapshot: Snapshot) -> bool:
    """Return whether the cluster was up and has lost its head."""
    return (
        # RayClusterProvisioned stays True once it was; workers exit without a head.
        holds(snapshot.cluster, "RayClusterProvisioned")
        and condition(snapshot.cluster, "HeadPodReady").get("status") == "False"
    )


def evidence(pod: Object, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the last warnings about a pod."""
    return told([event for event in snapshot.events_of(pod) if event.get("type") == "Warning"])


def out_of_memory(snapshot: Snapshot, which: str) -> Object | None:
    """Return a pod of a role with an OOM-killed container."""
    return next(
        (
            pod
            for pod in snapshot.pods
            if role(pod) == which and any(is_oom(state) for _, state in ends_of(pod))
        ),
        None,
    )


def _parts(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if a Secret, ConfigMap, user or command of its containers is missing."""
    for container, waiting in waiting_of(pod):
        if waiting.get("reason") not in (
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
        ):
            continue
        why = first_line(waiting.get("message")) or waiting["reason"]
        return f"container {container} of {the(pod)} cannot be made: {why}", _remedy_of_part(why)
    return None


def _remedy_of_part(why: str) -> str:
    missing = re.search(
        r"(secret|configmap) \"?([\w.-]+)\"? not found|couldn't find key (\S+) in (Secret|ConfigMap) (\S+)",
        why,
        re.I,
    )
    if "runAsNonRoot" in why or "run as root" in why:
        return "set target.security.run_as to a user id that is not 0"
    if missing is not None and "secret" in missing[0].lower():
        return "create the Secret with that key, or correct target.secrets and target.storage.s3_secret"
    if missing is not None:
        return "submit it again: the ConfigMap with its code is gone"
    return "see that target.image has bash, python and raystack"


def _volumes(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if a volume cannot be mounted."""
    if not any(
        waiting.get("reason") in ("ContainerCreating", "PodInitializing") for _, waiting in waiting_of(pod)
    ):
        return None
    failed = [
        event
        for event in snapshot.events_of(pod)
        if event.get("reason") in ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
    ]
    if failed:
        why = first_line(failed[-1].get("message"))
        remedy = (
            _remedy_of_part(why)
            if re.search(r"(secret|configmap) .*not found", why, re.I)
            else "correct target.storage.volumes"
        )
        return f"a volume of {the(pod)} cannot be mounted: {why}", remedy
    sandbox = [event for event in snapshot.events_of(pod) if event.get("reason") == "FailedCreatePodSandBox"]
    if sandbox:
        return (
            f"the node cannot start {the(pod)}: {first_line(sandbox[-1].get('message'))}",
            "look at the node's network plug-in",
        )
    return None


def _lost(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if its node is gone or evicted it."""
    why = at(pod, "status", "reason")
    disrupted = condition(pod, "DisruptionTarget")
    if why is None and disrupted.get("status") == "True":
        why = disrupted.get("reason")
    if why is None or why in ("Completed", "Error"):
        return None
    if why.startswith("Application"):  # YuniKorn ends the pods of what it does not take
        rejected = first_line(at(pod, "status", "message")) or why
        return (
            f"YuniKorn refuses it: {rejected}",
            "correct target.queue.name, or have the queue made; then submit it again",
        )
    message = first_line(at(pod, "status", "message") or disrupted.get("message"))
    words = f"{the(pod)} was taken from its node ({why})" + (f": {message}" if message else "")
    if re.search(r"ephemeral|disk", message, re.I):
        return words, f"raise {PLACES[role(pod)]}.ephemeral_storage"
    if "memory" in message:
        return words, f"raise {PLACES[role(pod)]}.memory"
    if role(pod) == "head":
        return (
            words,
            (
                "set target.submission.retries, or target.high_availability.backend; keep the head off"
                " machines that go away"
            ),
        )
    return (
        words,
        (
            "nothing: another worker takes its place; else raise target.worker.priority_class, or set"
            " target.spot.fallback=true"
        ),
    )


def _memory(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if it exceeded its memory limit."""
    if not any(is_oom(state) for _, state in ends_of(pod)):
        return None
    return memory_of(pod)


def memory_of(pod: Object) -> tuple[str, str]:
    """Return cause and remedy of a pod that exceeded its memory limit."""
    limit = next(
        (at(container, "resources", "limits", "memory") for container in at(pod, "spec", "containers") or ()),
        None,
    )
    words = f"{the(pod)} took more memory than its limit" + (f" of {limit}" if limit else "")
    return words, f"raise {PLACES[role(pod)]}.memory" + (
        ", or lower training.batch.micro" if role(pod) == "worker" else ""
    )


def _crash(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if a container exits by itself; the job reports a submitter's exit."""
    for entry in statuses_of(pod):
        state = at(entry, "state", "terminated")
        before = at(entry, "lastState", "terminated")
        ended = state or before or {}
        code = ended.get("exitCode")
        if code in (None, 0) or entry.get("name") == SUBMITTER:
            continue
        if role(pod) == "worker" and _outlived(ended, head(snapshot.pods)):
            return (
                "a worker ended with the head that it belonged to, and starts again",
                "wait: it joins the new head",
            )
        why = first_line(ended.get("message")) or f"exit code {code}"
        log = (
            f"kubectl logs{'' if state else ' --previous'} {at(pod, 'metadata', 'name')} -c {entry['name']}"
            f" -n {snapshot.namespace}"
        )
        return f"container {entry['name']} of {the(pod)} crashes: {why}", f"read its log: {log}"
    return None


def _outlived(ended: Object, first: Object | None) -> bool:
    """Return whether a container started before the current head."""
    starts = [
        at(entry, "state", "running", "startedAt") for entry in at(first, "status", "containerStatuses") or ()
    ]
    head_began = max(
        (moment for moment in (*starts, at(first, "metadata", "creationTimestamp")) if moment), default=""
    )
    # A worker's container starts after the head is up.
    return bool(ended.get("startedAt")) and ended["startedAt"] < head_began


def _unreached(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if a worker waits for an existing head."""
    waits = any(
        entry.get("name") == "wait-gcs-ready" and at(entry, "state", "running") is not None
        for entry in at(pod, "status", "initContainerStatuses") or ()
    )
    first = head(snapshot.pods)
    if not waits or first is None or not is_ready(first) or age(pod, now) < PATIENCE_S:
        return None
    return (
        f"{the(pod)} does not reach the head",
        "let DNS and the head's port 6379 through: target.security.network_policy, or the mesh's rules",
    )


CAUSES: tuple[Callable[[Object, Snapshot, float], Found], ...] = (
    _lost,
    no_node,
    no_image,
    _parts,
    _volumes,
    _memory,
    _crash,
    _unreached,
)
