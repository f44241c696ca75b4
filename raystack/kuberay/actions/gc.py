"""Garbage collection of jobs and clusters that are no longer used.

In: RayJobs and RayClusters, and when each cluster was last used. Out: Leftovers, and their deletion.

The decision is pure and comes first, so that it can be shown; `sweep` deletes what was shown, after its logs
were archived.
"""

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from raystack.config.prices import Prices
from raystack.errors import LaunchError, RaystackError
from raystack.job_context import RUN_FOLDER
from raystack.kuberay.api.client import Client, ForbiddenError
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.archive import keep_cluster
from raystack.kuberay.observe.bundle import made_again
from raystack.kuberay.observe.connect import DIRECT, connect
from raystack.plan.idle import Idle
from raystack.plan.idle import idle as idle_spend
from raystack.runs import kept as archived

OWN = {"app.kubernetes.io/managed-by": "raystack"}
"""Label of objects that raystack created."""
KEEP = "raystack/keep"
"""Annotation that protects an object from deletion, with any value but `false`."""
ANSWER_S = 5.0
_ENDED = ("Complete", "Failed", "ValidationFailed")


@dataclass(frozen=True)
class Leftover:
    """Object that has ended or is not used, and may be deleted unless it is kept."""

    kind: str
    """Kind as in YAML: RayJob or RayCluster."""
    name: str
    namespace: str
    why: str
    """Reason in one line, e.g. `succeeded 3 h ago`."""
    clusters: tuple[str, ...] = ()
    """RayClusters that are deleted with it, after their logs were archived."""
    kept: str | None = None
    """Reason for which it is not deleted."""
    folder: str | None = None
    """Folder of its run, where what is archived is kept, too."""
    age_s: float | None = None
    """Seconds since it ended or was last used; negative if it is in use, None if that is not known."""
    idle: Idle | None = None
    """What its cluster has cost without a job; None if it has none, or is in use."""


def collect(
    client: Client,
    older_s: float,
    prices: Prices | None = None,
    *,
    everywhere: bool = False,
    everything: bool = False,
) -> list[Leftover]:
    """Return what has ended or is not used, without deleting it.

    It is kept if it ended or was last used less than `older_s` seconds ago. Objects that others created are
    kept as well, unless `everything` is set.
    """
    # Also those that others created, which may be about to run on one of these clusters.
    jobs = client.list("RayJob", everywhere=everywhere)
    try:
        clusters = client.list("RayCluster", everywhere=everywhere)
    except ForbiddenError as error:
        client.left_out([str(error)])
        clusters = []
    used = {
        _key(each): last_used(client.within(_namespace(each)), each)
        for each in clusters
        if _stands_alone(each) and _runs(each) and (everything or _is_own(each))
    }
    known = {key: moment for key, moment in used.items() if moment is not None}
    found = idle([*jobs, *clusters], time.time(), older_s, known, everything=everything)
    there = {_key(each): each for each in clusters}
    return [_priced(each, there, prices) for each in found]


def _priced(each: Leftover, there: Mapping[str, Object], prices: Prices | None) -> Leftover:
    """Return a leftover with what its clusters, as far as they are up, have cost since they are idle."""
    up = [there[key] for name in each.clusters if (key := f"{each.namespace}/{name}") in there]
    up = [cluster for cluster in up if not cluster["spec"].get("suspend")]
    if not up or each.age_s is None or not 0 <= each.age_s < math.inf:
        return each
    return replace(each, idle=idle_spend(up[0], each.age_s, prices))


def sweep(client: Client, leftovers: Iterable[Leftover], folder: str | Path) -> list[Path]:
    """Delete leftovers that are not kept, after archiving their pods' logs below `folder`.

    Returns the folders of the logs.
    """
    kept: list[Path] = []
    for each in leftovers:
        if each.kept is not None:
            continue
        place = client.within(each.namespace)
        for cluster in each.clusters:
            kept_at = _keep(place, cluster, Path(folder) / each.name)
            if kept_at is not None:
                kept.append(kept_at)
                _put(place, each.folder, kept_at)
        place.delete(each.kind, each.name)
    return kept


def _keep(client: Client, cluster: str, folder: Path) -> Path | None:
    """Archive the logs of a cluster; return None if it is gone or its pods cannot be read."""
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


def _put(client: Client, run: str | None, kept_at: Path) -> None:
    """Copy an archive into the folder of its run, if that is reached from here."""
    try:
        if run is not None:
            archived.put(run, kept_at)
    except (RaystackError, OSError) as error:  # the copy on this machine is there
        client.left_out([f"logs could not be kept in {run}: {error}"])


def idle(
    objects: Iterable[Object],
    now: float,
    older_s: float,
    used: Mapping[str, float] | None = None,
    *,
    everything: bool = True,
) -> list[Leftover]:
    """Return the objects that have ended or are not used; those that must not be deleted are kept.

    `used` is when a cluster was last used, by `namespace/name`; infinity means right now. A job may be
    deleted when it ended long enough ago; a cluster of its own when it has been suspended or unused for as
    long. Clusters whose last use is unknown, or that an unfinished job names, are kept, and so is what a
    bundle of GitOps still has. Only what raystack
    created is deleted, unless `everything` is set.
    """
    objects = list(objects)
    jobs = [each for each in objects if each["kind"] == "RayJob"]
    users = {
        f"{_namespace(job)}/{_selected(job)}": f"rayjob/{job['metadata']['name']} is to run on it"
        for job in jobs
        if _selected(job) and not _has_ended(job)
    }
    again = made_again(objects)
    found: list[Leftover] = []
    for each in objects:
        name, clusters = each["metadata"]["name"], tuple[str, ...]()
        match each["kind"]:
            case "RayJob" if _has_ended(each):
                since = _ended(each)
                status = each["status"]
                end = str(status.get("jobStatus") or status["jobDeploymentStatus"]).lower()
                # A cluster that the job only borrowed, through a selector, is not the job's to delete.
                cluster = status.get("rayClusterName") if not _selected(each) else None
                clusters = (cluster,) if cluster else ()
            case "RayCluster" if _stands_alone(each):
                since, end = _unused(each, (used or {}).get(_key(each)))
                clusters = (name,)
            case _:
                continue
        age = None if since is None else now - since
        user = users.get(_key(each)) if each["kind"] == "RayCluster" else None
        controller = again.get(str(each["metadata"].get("uid")))
        user = f"{controller} would make it again: take it out of the bundle" if controller else user
        kept = "raystack has not made it: --foreign" if not everything and not _is_own(each) else None
        kept = kept or _reason_to_keep(each, age, older_s, user)
        why = "" if age is None or age < 0 else f"{end} {_ago(age)} ago"
        run = (each["metadata"].get("annotations") or {}).get(RUN_FOLDER)
        found.append(Leftover(each["kind"], name, _namespace(each), why, clusters, kept, run, age))
    return found


def _reason_to_keep(obj: Object, age: float | None, older_s: float, user: str | None) -> str | None:
    """Return why it must not be deleted; `age` is how long it has been unused, negative while it is used."""
    if _is_kept(obj):
        return f"its annotation {KEEP} says so"
    if user is not None:
        return user
    if age is None:
        return "its dashboard does not say when it was last used"
    if age < 0:
        return "it is in use"
    return None if age >= older_s else f"it is not yet as old as --older {older_s:.0f}"


def last_used(client: Client, cluster: Object) -> float | None:
    """Return when a running cluster was last used: the end of its newest job, or its own start.

    Read from its dashboard. Infinity while a job or a connected driver runs. None if the dashboard does not
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
    """Return since when a cluster is unused, with a description."""
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
    """Return the name of the cluster that a job borrows."""
    name = (job["spec"].get("clusterSelector") or {}).get("ray.io/cluster")
    return str(name) if name else None


def _stands_alone(cluster: Object) -> bool:
    """Return whether no RayJob or RayService owns it, because those clean up after themselves."""
    return not cluster["metadata"].get("ownerReferences")


def _runs(cluster: Object) -> bool:
    return not cluster["spec"].get("suspend") and not _is_kept(cluster)


def _is_own(obj: Object) -> bool:
    return OWN.items() <= (obj["metadata"].get("labels") or {}).items()


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
