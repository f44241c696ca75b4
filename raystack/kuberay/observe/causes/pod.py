"""Causes for which a pod does not run.

In: a Snapshot. Out: a Diagnosis of the first pod with a problem, the head before the workers.

The order of `CAUSES` follows a pod's life: scheduling, image, volumes, start, crash.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from raystack.kuberay.api.kinds import Object
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
UNSEEN_S = 15.0
"""Time that a scheduler has to consider a pod, which it does at once even if no node fits.
"""

PLACES = {"head": "target.head", "worker": "target.worker", "submitter": "target.submitter"}
"""Section of the config by role of the pod."""


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


def told(events: list[Object] | tuple[Object, ...]) -> tuple[str, ...]:
    """Return the last events in a line each, merging those about several objects."""
    about: dict[tuple[str, str], list[str]] = {}
    for event in events:
        name = str(at(event, "involvedObject", "name"))
        words = re.sub(
            r" If you observe this error consistently.*?for more details\.",
            "",
            first_line(event.get("message")),
        )
        words = re.sub(rf"(?<![\w-])(?:[\w-]+/)?{re.escape(name)}(?![\w-])", "it", words)
        said = (str(event.get("reason")), words)
        about[said] = [name, *(other for other in about.pop(said, []) if other != name)]
    lines = [f"{_names(names)}: {reason}: {words}" for (reason, words), names in about.items()]
    return tuple(lines[-5:])


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def first_line(text: str | None) -> str:
    """Return the first line of a message."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")


def out_of_memory(snapshot: Snapshot, which: str) -> Object | None:
    """Return a pod of a role with an OOM-killed container."""
    return next(
        (
            pod
            for pod in snapshot.pods
            if role(pod) == which and any(_is_oom(state) for _, state in _ends(pod))
        ),
        None,
    )


Found = tuple[str, str] | None
"""Cause and remedy."""


def _place(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if no node can take the pod."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("reason") == "SchedulingGated":
        return (
            f"{_the(pod)} is held by a scheduling gate",
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
        return f"{_the(pod)} finds no node: {why}", _remedy_of_scheduling(why, role(pod))
    if not at(pod, "spec", "nodeName") and scheduled.get("status") != "True" and age(pod, now) > UNSEEN_S:
        scheduler = at(pod, "spec", "schedulerName") or "default-scheduler"
        remedy = (
            f"see that {scheduler} runs and knows its queue: raystack doctor; or set target.queue.scheduler"
            " to one that runs"
        )
        return f"no scheduler looks at {_the(pod)}, which asks for {scheduler}", remedy
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


def _image(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if the image cannot be pulled."""
    for container, waiting in _waiting(pod):
        if waiting.get("reason") not in (
            "ImagePullBackOff",
            "ErrImagePull",
            "InvalidImageName",
            "ErrImageNeverPull",
            "RegistryUnavailable",
        ):
            continue
        image = _image_of(pod, container)
        pulls = [
            event
            for event in snapshot.events_of(pod)
            if event.get("reason") == "Failed" and "pull" in event.get("message", "")
        ]
        text = " ".join([waiting.get("message") or "", *(event["message"] for event in pulls)])
        why, remedy = _why_no_image(waiting["reason"], text)
        return f"image {image} of {_the(pod)} cannot be pulled: {why}", remedy
    return None


def _why_no_image(reason: str, text: str) -> tuple[str, str]:
    """Return the registry's answer as fixed words: its own text differs between attempts."""
    if reason == "InvalidImageName":
        return "that is no name of an image", "correct target.image"
    if reason == "ErrImageNeverPull":
        return (
            "it is not on the node, and may not be pulled",
            "set target.pull_policy=IfNotPresent, or load it onto the nodes",
        )
    if re.search(r"toomanyrequests|429|rate limit", text, re.I):
        return (
            "the registry limits the rate",
            "name credentials in target.pull_secrets, or use a mirror in target.image",
        )
    if re.search(r"unauthorized|denied|forbidden|401|403|authenticat", text, re.I):
        return (
            "the registry refuses access",
            "correct target.image, or name a Secret with access in target.pull_secrets",
        )
    if re.search(r"no match for platform|no matching manifest", text, re.I):
        return (
            "there is none for the node's architecture",
            "build target.image for it, or choose nodes by node_selector kubernetes.io/arch",
        )
    if re.search(r"not found|manifest unknown|404", text, re.I):
        return "there is no such image", "correct target.image, or push it"
    if re.search(r"no such host|timeout|refused|unreachable|x509|tls", text, re.I):
        return "the registry does not answer", "see that nodes reach it, or use a mirror in target.image"
    return "see the events", "correct target.image or target.pull_secrets"


def _parts(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if a Secret, ConfigMap, user or command of its containers is missing."""
    for container, waiting in _waiting(pod):
        if waiting.get("reason") not in (
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
        ):
            continue
        why = first_line(waiting.get("message")) or waiting["reason"]
        return f"container {container} of {_the(pod)} cannot be made: {why}", _remedy_of_part(why)
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
        waiting.get("reason") in ("ContainerCreating", "PodInitializing") for _, waiting in _waiting(pod)
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
        return f"a volume of {_the(pod)} cannot be mounted: {why}", remedy
    sandbox = [event for event in snapshot.events_of(pod) if event.get("reason") == "FailedCreatePodSandBox"]
    if sandbox:
        return (
            f"the node cannot start {_the(pod)}: {first_line(sandbox[-1].get('message'))}",
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
    words = f"{_the(pod)} was taken from its node ({why})" + (f": {message}" if message else "")
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
    if not any(_is_oom(state) for _, state in _ends(pod)):
        return None
    return memory_of(pod)


def memory_of(pod: Object) -> tuple[str, str]:
    """Return cause and remedy of a pod that exceeded its memory limit."""
    limit = next(
        (at(container, "resources", "limits", "memory") for container in at(pod, "spec", "containers") or ()),
        None,
    )
    words = f"{_the(pod)} took more memory than its limit" + (f" of {limit}" if limit else "")
    return words, f"raise {PLACES[role(pod)]}.memory" + (
        ", or lower training.batch.micro" if role(pod) == "worker" else ""
    )


def _crash(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if a container exits by itself; the job reports a submitter's exit."""
    for entry in _statuses(pod):
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
        return f"container {entry['name']} of {_the(pod)} crashes: {why}", f"read its log: {log}"
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
        f"{_the(pod)} does not reach the head",
        "let DNS and the head's port 6379 through: target.security.network_policy, or the mesh's rules",
    )


CAUSES: tuple[Callable[[Object, Snapshot, float], Found], ...] = (
    _lost,
    _place,
    _image,
    _parts,
    _volumes,
    _memory,
    _crash,
    _unreached,
)


def _the(pod: Object) -> str:
    """Return a pod's name for people; workers share one, so that a line stays the same."""
    return {"head": "the head", "worker": "a worker", "submitter": "the submitter"}[role(pod)]


def _statuses(pod: Object) -> list[Object]:
    status = at(pod, "status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _waiting(pod: Object) -> Iterator[tuple[str, Object]]:
    """Yield waiting containers, with the reason."""
    for entry in _statuses(pod):
        waiting = at(entry, "state", "waiting")
        if waiting is not None:
            yield entry["name"], waiting


def _ends(pod: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield containers that ended, now or before their last restart, with the reason."""
    for entry in _statuses(pod):
        ended = at(entry, "state", "terminated") or at(entry, "lastState", "terminated")
        if ended is not None:
            yield entry["name"], ended


def _is_oom(state: Object) -> bool:
    return state.get("reason") == "OOMKilled"


def _image_of(pod: Object, container: str) -> str:
    spec = at(pod, "spec") or {}
    every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return next((entry.get("image", "") for entry in every if entry.get("name") == container), "")
