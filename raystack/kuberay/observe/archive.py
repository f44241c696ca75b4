"""Archive of what is lost with a pod.

In: pods and events. Out: a folder with the logs of all containers, and the events.

Logs that only Ray's dashboard has are archived, too: those of drivers whose submitter's pod is gone, and of a
service's replicas. Environments of pods are not written, because they contain secrets.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raystack import strict_json
from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import Object, event_time
from raystack.kuberay.observe import driver_log
from raystack.kuberay.observe.diagnose import diagnose
from raystack.kuberay.observe.snapshot import SUBMITTER, Snapshot, is_ready, role
from raystack.runs import kept
from raystack.status import Status

ORIGIN = "ray.io/originated-from-cr-name"
"""Label of objects that the operator creates for a job or service."""


def archive(client: Client, snapshot: Snapshot, status: Status, folder: str | Path, now: float) -> Path:
    """Write logs and events of an object, its `status` and its diagnosis into `folder`, and return it.

    It is as `archive_logs`.
    """
    place = archive_logs(client, snapshot.pods, snapshot.events, folder)
    for name, value in ((kept.STATUS, status), (kept.DIAGNOSIS, diagnose(snapshot, now))):
        (place / name).write_text(strict_json.dumps(asdict(value), indent=2) + "\n")
    return place


def archive_logs(
    client: Client,
    pods: Sequence[Object],
    events: Sequence[Object],
    folder: str | Path,
    missing: Iterable[str] = (),
) -> Path:
    """Write logs, `events.txt` and `pods.json` into `folder`, and return it.

    Logs are `<pod>/<container>.log`, `driver/<job>.log` and `replicas/<name>.log`. Logs that cannot be read
    are listed in `missing.txt`, after those `missing` already, and do not stop the others. Raises LaunchError
    if the folder cannot be written.
    """
    place = Path(folder).expanduser()
    try:
        return _keep(client, pods, events, place, list(missing))
    except OSError as error:
        rule = f"logs are kept there before anything is deleted, and it cannot be written: {error.strerror}"
        raise LaunchError(
            Problem(str(place), rule=rule, remedy="go to a folder that you may write to; it was not deleted")
        ) from error


def _keep(
    client: Client, pods: Sequence[Object], events: Sequence[Object], place: Path, missing: list[str]
) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    submits = False
    for pod in pods:
        for container, previous in _logs(pod):
            file = place / _name(pod) / f"{container}{'.previous' if previous else ''}.log"
            told = _try(file, client.logs(_name(pod), container, previous=previous), missing)
            submits = submits or (told and container == SUBMITTER)
    for cluster in sorted(
        {pod["metadata"]["labels"]["ray.io/cluster"] for pod in pods if role(pod) == "head" and is_ready(pod)}
    ):
        _keep_dashboard(client, cluster, place, missing, drivers=not submits)
    _write(place / "events.txt", (_line(event) for event in sorted(events, key=event_time)))
    (place / "pods.json").write_text(json.dumps([_state(pod) for pod in pods], indent=2) + "\n")
    if missing:
        _write(place / "missing.txt", iter(missing))
    return place


def keep_cluster(client: Client, cluster: str, folder: str | Path) -> Path:
    """Archive the pods and events of a RayCluster. Raises LaunchError if the pods cannot be read."""
    pods = client.list("Pod", labels={"ray.io/cluster": cluster})
    jobs = {pod["metadata"]["labels"].get(ORIGIN) for pod in pods} - {None}
    pods += [pod for job in jobs for pod in client.list("Pod", labels={"job-name": str(job)})]
    events: list[Object] = []
    missing: list[str] = []
    try:
        for kind, name in [("RayCluster", cluster), *(("Pod", _name(pod)) for pod in pods)]:
            events += client.events(kind, name)
    except LaunchError as error:
        missing.append(str(error))
    return archive_logs(client, pods, events, folder, missing)


def _keep_dashboard(client: Client, cluster: str, place: Path, missing: list[str], *, drivers: bool) -> None:
    """Archive the logs of drivers and replicas that Ray's dashboard has."""
    try:
        jobs = driver_log.jobs(client, cluster) if drivers else []
        replicas = driver_log.replicas(client, cluster)
    except LaunchError as error:
        missing.append(str(error))
        return
    for job in jobs:
        _try(place / "driver" / f"{job}.log", driver_log.job_log(client, cluster, job), missing)
    for replica in replicas:
        _try(
            place / "replicas" / f"{replica.label}.log",
            driver_log.replica_log(client, replica, following=False),
            missing,
        )


def _try(file: Path, lines: Iterator[str], missing: list[str]) -> bool:
    """Write one log, or record why it cannot be read; return whether it was written."""
    try:
        _write(file, lines)
    except LaunchError as error:
        missing.append(str(error))
        return False
    return True


def _logs(pod: Object) -> Iterator[tuple[str, bool]]:
    """Yield started containers, and whether the log before a restart is meant."""
    status = pod.get("status") or {}
    for each in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        if each.get("restartCount"):
            yield each["name"], True
        if "waiting" not in (each.get("state") or {}):
            yield each["name"], False


def _write(file: Path, lines: Iterator[str]) -> None:
    first = next(lines, None)  # a refusal comes before there is a file
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as opened:
        if first is not None:
            opened.write(first + "\n")
        opened.writelines(f"{line}\n" for line in lines)


def _line(event: Object) -> str:
    about = event.get("involvedObject") or {}
    what = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    return (
        f"{event_time(event)} {event.get('type', '')} {what} {event.get('reason', '')}:"
        f" {event.get('message', '')}"
    )


def _state(pod: Object) -> dict[str, Any]:
    status = pod.get("status") or {}
    kept = (
        "phase",
        "reason",
        "message",
        "conditions",
        "startTime",
        "initContainerStatuses",
        "containerStatuses",
    )
    return {
        "name": _name(pod),
        "node": (pod.get("spec") or {}).get("nodeName"),
        **{key: status[key] for key in kept if key in status},
    }


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])
