"""What costs and is used no more. In: RayJobs and RayClusters, and when each cluster was last used. Out:
Leftovers, and their end.

Deciding is pure and comes first, so that it can be shown; `sweep` deletes what was shown, after its logs were
kept.
"""

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from raystack.errors import LaunchError
from raystack.kuberay.api.client import Client, ForbiddenError
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.archive import keep_cluster
from raystack.kuberay.observe.connect import DIRECT, connect

OWN = {"app.kubernetes.io/managed-by": "raystack"}
"""Label of what raystack has made."""
KEEP = "raystack/keep"
"""Annotation of what is never deleted here, with any value but `false`."""
ANSWER_S = 5.0
_ENDED = ("Complete", "Failed", "ValidationFailed")


@dataclass(frozen=True)
class Leftover:
    """One thing that may go."""

    kind: str
    """As in YAML: RayJob or RayCluster."""
    name: str
    namespace: str
    why: str
    """One line: `succeeded 3 h ago`."""
    clusters: tuple[str, ...] = ()
    """RayClusters that go with it, whose logs are kept."""


def collect(
    client: Client, older_s: float, *, everywhere: bool = False, everything: bool = False
) -> list[Leftover]:
    """What has ended, or was not used, for `older_s` seconds: what raystack has made, or `everything`.
    Deletes nothing.
    """
    labels = {} if everything else OWN
    jobs = client.list("RayJob", everywhere=everywhere)  # anybody's may be about to run on a cluster
    try:
        clusters = client.list("RayCluster", labels=labels, everywhere=everywhere)
    except ForbiddenError as error:
        client.left_out([str(error)])
        clusters = []
    used = {
        _key(each): last_used(client.within(_namespace(each)), each)
        for each in clusters
        if _stands_alone(each) and _runs(each)
    }
    found = idle(
        [*jobs, *clusters],
        time.time(),
        older_s,
        {key: moment for key, moment in used.items() if moment is not None},
    )
    own = {_key(job) for job in jobs if labels.items() <= (job["metadata"].get("labels") or {}).items()}
    return [each for each in found if each.kind != "RayJob" or f"{each.namespace}/{each.name}" in own]


def sweep(client: Client, leftovers: Iterable[Leftover], folder: str | Path) -> list[Path]:
    """Delete them, each after the logs of its pods were kept below `folder`; returns where those are."""
    kept: list[Path] = []
    for each in leftovers:
        place = client.within(each.namespace)
        kept += [
            kept_at
            for cluster in each.clusters
            if (kept_at := _keep(place, cluster, Path(folder) / each.name)) is not None
        ]
        place.delete(each.kind, each.name)
    return kept


def _keep(client: Client, cluster: str, folder: Path) -> Path | None:
    """Keep the logs of a cluster, unless it is known to be gone; None then, and where its pods may not be
    read.
    """
    try:
        if client.get("RayCluster", cluster) is None:
            return None
    except ForbiddenError as error:
        client.left_out([str(error)])
    try:
        return keep_cluster(client, cluster, folder)
    except ForbiddenError as error:
        client.left_out([f"logs of {cluster}: {error}"])
        return None


def idle(
    objects: Iterable[Object], now: float, older_s: float, used: Mapping[str, float] | None = None
) -> list[Leftover]:
    """What of these may go. `used` says when a cluster was last used, by `namespace/name`; infinity: right
    now.

    A job may go when it has ended long enough ago. A cluster of its own may go when it has been suspended, or
    unused, for as long; one of which it is not known when it was used is left alone, and so is one that a job
    which has not ended names.
    """
    objects = list(objects)
    jobs = [each for each in objects if each["kind"] == "RayJob"]
    everything = [each for each in objects if not _is_kept(each)]
    wanted = {f"{_namespace(job)}/{_selected(job)}" for job in jobs if _selected(job) and not _has_ended(job)}
    found: list[Leftover] = []
    for each in everything:
        match each["kind"]:
            case "RayJob" if _has_ended(each):
                since = _ended(each)
                status = each["status"]
                end = str(status.get("jobStatus") or status["jobDeploymentStatus"]).lower()
                # A cluster that the job only borrowed, through a selector, is not the job's to delete.
                cluster = status.get("rayClusterName") if not _selected(each) else None
                clusters = (cluster,) if cluster else ()
            case "RayCluster" if _stands_alone(each) and _key(each) not in wanted:
                since, end = _unused(each, (used or {}).get(_key(each)))
                clusters = (each["metadata"]["name"],)
            case _:
                continue
        if since is not None and now - since >= older_s:
            name = each["metadata"]["name"]
            found.append(
                Leftover(each["kind"], name, _namespace(each), f"{end} {_ago(now - since)} ago", clusters)
            )
    return found


def last_used(client: Client, cluster: Object) -> float | None:
    """When a running cluster was last used, as its dashboard tells: the end of its newest job, or its own
    beginning.

    Infinity while a job runs, drivers that are connected among them. None where the dashboard does not
    answer.
    """
    try:
        with connect(client, "raycluster", cluster["metadata"]["name"], ("dashboard",)) as doors:
            headers = {"Authorization": f"Bearer {doors[0].token}"} if doors[0].token else {}
            request = urllib.request.Request(f"{doors[0].url}/api/jobs/", headers=headers)
            with DIRECT.open(request, timeout=ANSWER_S) as answer:
                jobs = json.load(answer)
    except (LaunchError, urllib.error.URLError, OSError, ValueError):
        return None
    if any(job.get("status") in ("PENDING", "RUNNING") for job in jobs):
        return math.inf
    ends = [float(job["end_time"]) / 1000 for job in jobs if job.get("end_time")]
    return max([*ends, _moment(cluster["metadata"].get("creationTimestamp")) or math.inf])


def _unused(cluster: Object, used: float | None) -> tuple[float | None, str]:
    """Since when nobody uses it, and in which words."""
    status = cluster.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "RayClusterSuspended" and condition.get("status") == "True":
            return _moment(condition.get("lastTransitionTime")), "suspended"
    return used, "last used"


def _has_ended(job: Object) -> bool:
    return (job.get("status") or {}).get("jobDeploymentStatus") in _ENDED


def _ended(job: Object) -> float | None:
    return _moment(job["status"].get("endTime")) or _moment(job["metadata"].get("creationTimestamp"))


def _selected(job: Object) -> str | None:
    """The cluster that a job borrows."""
    name = (job["spec"].get("clusterSelector") or {}).get("ray.io/cluster")
    return str(name) if name else None


def _stands_alone(cluster: Object) -> bool:
    """Whether no RayJob or RayService has made it: those see to their own."""
    return not cluster["metadata"].get("ownerReferences")


def _runs(cluster: Object) -> bool:
    return not cluster["spec"].get("suspend") and not _is_kept(cluster)


def _is_kept(obj: Object) -> bool:
    return str((obj["metadata"].get("annotations") or {}).get(KEEP, "false")).lower() != "false"


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", "default"))


def _key(obj: Object) -> str:
    return f"{_namespace(obj)}/{obj['metadata']['name']}"


def _moment(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
