"""Status of the applications of a RayService, and whether anything answers meanwhile."""

import re
from collections.abc import Iterator
from dataclasses import replace

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.causes.evidence import first_line, told
from raystack.kuberay.observe.snapshot import Snapshot, at, condition, head, holds, is_ready
from raystack.kuberay.observe.submitter import TRACEBACK
from raystack.status import Diagnosis

BROKEN = ("DEPLOY_FAILED", "UNHEALTHY")
DEPLOYING = ("DEPLOYING", "NOT_STARTED")
SENT = ("UpdatedServeApplications", "FailedToUpdateServeApplications")
"""Events of the operator about applications."""
PARTS = ("pendingServiceStatus", "activeServiceStatus")
"""Fields of a service's status: the pending cluster, and the active one."""


def applications(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return why a service does not answer, or what it waits for."""
    if snapshot.kind != "rayservice":
        return None
    if condition(snapshot.thing, "Ready").get("reason") == "InitializingTimeout":
        remedy = f"see `raystack logs --all {snapshot.reference}`, then cancel it and submit it again"
        return Diagnosis(
            "it did not answer within the time it had to start, and will not go on",
            remedy,
            told(snapshot.events),
        )
    told_of = [(part, name, app) for part in PARTS for name, app in apps(snapshot, part)]
    broken = [each for each in told_of if each[2].get("status") in BROKEN]
    if broken:
        part, name, app = broken[0]
        found = _broken(snapshot, name, app, before=part == PARTS[1] and holds(snapshot.thing, "Ready"))
        others = (f"application {other}: {_why(state)}" for _, other, state in broken[1:] if other != name)
        return replace(found, evidence=(*found.evidence, *others))
    first = head(snapshot.pods_of(snapshot.newest))
    if first is not None and not is_ready(first):
        return None
    for _, name, app in told_of:
        if app.get("status") in DEPLOYING:
            return _deploying(snapshot, name, app)
    return (_unsent(snapshot) if first is not None else None) or _unready(snapshot)


def in_words(snapshot: Snapshot, found: Diagnosis | None) -> Diagnosis | None:
    """Return the cause after what a user notices first: no answer, or a move to another cluster."""
    if is_silent(snapshot):
        logs = f"see `raystack logs --all {snapshot.reference}`"
        return (
            Diagnosis("nothing answers", logs, told(snapshot.events))
            if found is None
            else _after("nothing answers", found)
        )
    if is_moving(snapshot):
        to = at(snapshot.status, PARTS[0], "rayClusterName") or "the next cluster"
        moves = f"it moves to {to}{traffic(snapshot, PARTS[0])}"
        return (
            Diagnosis(moves, f"wait: raystack status --watch {snapshot.reference}")
            if found is None
            else _after(moves, found)
        )
    return found


def is_silent(snapshot: Snapshot) -> bool:
    """Return whether a service that once answered has no pod that answers now."""
    return (
        snapshot.kind == "rayservice"
        and condition(snapshot.thing, "Ready").get("reason") == "ZeroServeEndpoints"
    )


def is_moving(snapshot: Snapshot) -> bool:
    """Return whether a service answers and moves to another cluster."""
    if (
        snapshot.kind != "rayservice"
        or not holds(snapshot.thing, "Ready")
        or holds(snapshot.thing, "RollbackInProgress")
    ):
        return False
    return snapshot.coming is not None or holds(snapshot.thing, "UpgradeInProgress")


def apps(snapshot: Snapshot, part: str) -> Iterator[tuple[str, Object]]:
    """Yield the applications of the active or the pending cluster, by the status' field."""
    yield from (at(snapshot.status, part, "applicationStatuses") or {}).items()


def newest_apps(snapshot: Snapshot) -> dict[str, Object]:
    """Return the applications of the cluster that is to stay."""
    return dict(apps(snapshot, PARTS[0] if at(snapshot.status, PARTS[0], "rayClusterName") else PARTS[1]))


def traffic(snapshot: Snapshot, part: str) -> str:
    """Return a cluster's share of the traffic, as the end of a sentence."""
    percent = at(snapshot.status, part, "trafficRoutedPercent")
    return "" if percent is None else f", which has {percent} % of the traffic"


def _after(words: str, found: Diagnosis) -> Diagnosis:
    return Diagnosis(f"{words}: {found.cause}", found.remedy, found.evidence)


def _broken(snapshot: Snapshot, name: str, app: Object, *, before: bool) -> Diagnosis:
    """Return the diagnosis of an application that failed."""
    messages, why = _messages(app), _why(app)
    verb = "cannot be deployed" if app.get("status") == "DEPLOY_FAILED" else "is unhealthy"
    stays = "; what was there before still answers" if before and app.get("status") == "DEPLOY_FAILED" else ""
    evidence = [
        f"{deployment}: {line.strip()}"
        for deployment, message in messages.items()
        for line in message.splitlines()
        if line.strip() not in ("", TRACEBACK)
    ]
    return Diagnosis(
        f"application {name} {verb}: {why}{stays}",
        f"read its log: raystack logs {snapshot.reference}",
        tuple(evidence[-5:]),
    )


def _messages(app: Object) -> dict[str, str]:
    """Return what the deployments of an application say."""
    return {name: _plain(entry["message"]) for name, entry in _deployments(app) if entry.get("message")}


def _why(app: Object) -> str:
    """Return the error of an application that failed."""
    # Only the deployments' messages have the replica's error; the application's names the deployment.
    said = "\n".join([app.get("message") or "", *_messages(app).values()])
    return error_of(said) or "it does not say why"


def _deploying(snapshot: Snapshot, name: str, app: Object) -> Diagnosis:
    messages = [entry["message"] for _, entry in _deployments(app) if entry.get("message")]
    words = f"application {name} is being deployed"
    for message in messages:
        if "Error:" in message:
            remedy = f"wait: it is tried again; read its log: raystack logs {snapshot.reference}"
            return Diagnosis(
                f"{words}, and a replica failed to start: {error_of(message)}", remedy, (first_line(message),)
            )
    if messages:
        return Diagnosis(
            f"{words}: {first_line(messages[0])}", "wait, or see that a node has what a replica asks for"
        )
    return Diagnosis(words, "wait: its replicas load the model")


def _unsent(snapshot: Snapshot) -> Diagnosis | None:
    """Return the cause if the newest cluster has a head and no applications yet."""
    if newest_apps(snapshot):
        return None
    cluster = at(snapshot.newest, "metadata", "name")
    tries = [
        event
        for event in snapshot.events
        if event.get("reason") in SENT and cluster in event.get("message", "")
    ]
    if not tries:
        return Diagnosis("its head is ready, and its applications are sent there next", "wait")
    if tries[-1]["reason"] == SENT[0]:
        return Diagnosis("its head is ready, and its applications are deployed next", "wait")
    why = re.sub(r'.*\berr: (?:\w+ "[^"]*": )?| \(Client\.[^)]*\)$', "", first_line(tries[-1].get("message")))
    remedy = (
        "wait: it is tried again; where it stays so, let the operator reach the head's dashboard:"
        " target.security.network_policy"
    )
    return Diagnosis(f"its applications could not be sent yet: {why}", remedy, told(tries))


def _unready(snapshot: Snapshot) -> Diagnosis | None:
    """Return the wait for the readiness check, which passes after the replicas are up."""
    running = [app.get("status") == "RUNNING" for app in newest_apps(snapshot).values()]
    waiting = [pod for pod in snapshot.pods_of(snapshot.newest) if not is_ready(pod)]
    if holds(snapshot.thing, "Ready") or not running or not all(running) or not waiting:
        return None
    return Diagnosis(
        "its replicas are up, and their pods not ready yet", "wait: Kubernetes checks a pod every few seconds"
    )


def _deployments(app: Object) -> Iterator[tuple[str, Object]]:
    yield from (app.get("serveDeploymentStatuses") or {}).items()


def error_of(text: str) -> str:
    """Return the error in Serve's message: raystack's own, else the last exception, else the last line."""
    text = _plain(text)
    own = re.findall(r"^\s*raystack\.errors\.\w+: (.+)$", text, re.MULTILINE)
    others = re.findall(r"^\s*(?!ray\.)([\w.]*(?:Error|Exception)\b.*)$", text, re.MULTILINE)
    named = [other for other in others if TRACEBACK not in other and other != "Error:"]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return str((own[:1] or named[-1:] or lines[-1:] or [""])[0]).strip()


def _plain(text: str) -> str:
    """Return a text without the colors of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
