"""Logs that only Ray's dashboard has.

In: a Client and a RayCluster, or what runs on it. Out: lines.

Ray writes the output of a replica to a file on its node, as it does for a driver that no pod submits.
"""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.client import Client
from raystack.kuberay.observe.connect import DIRECT, ForwardedPort, connect
from raystack.kuberay.observe.snapshot import Snapshot, head, is_ready

ANSWER_S = 10.0
LOOK_S = 2.0
TRIES = 3
"""Attempts to read a file: a node that has just started cannot serve files yet."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Replica:
    """Log of one replica of a Serve deployment."""

    cluster: str
    node: str
    """Ray's id of the node with the file."""
    file: str

    @property
    def label(self) -> str:
        """Name of the log, e.g. `digits_model_x7k2p`: application, deployment and replica."""
        return self.file.rpartition("/")[2].removeprefix("replica_").removesuffix(".log")


def has_driver(snapshot: Snapshot) -> bool:
    """Return whether a job was submitted and a running dashboard knows it."""
    first = head(snapshot.pods)
    return bool(snapshot.status.get("jobId")) and first is not None and is_ready(first)


def driver(client: Client, snapshot: Snapshot, *, following: bool) -> Iterator[str]:
    """Yield lines of the driver's log, with `following` until it ends; only whole lines."""
    with connect(client, snapshot.kind, snapshot.name) as (port,):
        path, told = f"/api/jobs/{snapshot.status['jobId']}", 0
        while True:
            # The status is read before the log, so that the log of an ended job is complete.
            ended = not following or _ask(port, path).get("status") in ENDED
            text = _ask(port, f"{path}/logs")["logs"]
            # An incomplete line is yielded once it is complete. The dashboard returns the whole log each
            # time.
            end = len(text) if ended else text.rfind("\n") + 1
            yield from text[told:end].splitlines()
            told = end
            if ended:
                return
            time.sleep(LOOK_S)


def jobs(client: Client, cluster: str) -> list[str]:
    """Return the ids of all jobs that were submitted to a cluster."""
    with connect(client, "raycluster", cluster) as (port,):
        return [job["submission_id"] for job in _ask(port, "/api/jobs/") if job.get("submission_id")]


def job_log(client: Client, cluster: str, job: str) -> Iterator[str]:
    """Yield the current log of a job."""
    with connect(client, "raycluster", cluster) as (port,):
        yield from _ask(port, f"/api/jobs/{job}/logs")["logs"].splitlines()


def replicas(client: Client, cluster: str) -> list[Replica]:
    """Return the replicas on a cluster; of deployments without any, those that have ended."""
    with connect(client, "raycluster", cluster) as (port,):
        applications: dict[str, Any] = _ask(port, "/api/serve/applications/").get("applications") or {}
        found = []
        for name, application in sorted(applications.items()):
            for deployment, details in sorted((application.get("deployments") or {}).items()):
                there = [
                    each
                    for each in details.get("replicas") or ()
                    if each.get("log_file_path") and each.get("node_id")
                ]
                found += [
                    Replica(cluster, each["node_id"], each["log_file_path"].lstrip("/")) for each in there
                ]
                if not there:
                    found += _ended(port, cluster, f"serve/replica_{name}_{deployment}_*")
        return found


def replica_log(client: Client, replica: Replica, *, following: bool) -> Iterator[str]:
    """Yield lines of a replica's log, with `following` until its node is gone."""
    query = urllib.parse.urlencode({"node_id": replica.node, "filename": replica.file, "lines": -1})
    path = f"/api/v0/logs/{'stream' if following else 'file'}?{query}"
    with (
        connect(client, "raycluster", replica.cluster) as (port,),
        closing(_patiently(port, path, following)) as answer,
    ):
        try:
            yield from (line.decode(errors="replace").rstrip("\n") for line in answer)
        except (OSError, http.client.HTTPException) as error:
            raise _refused(error) from error


def _ended(port: ForwardedPort, cluster: str, pattern: str) -> list[Replica]:
    """Return ended replicas whose files are on nodes that still run."""
    nodes = _ask(port, "/api/v0/nodes?limit=1000")["data"]["result"]["result"]
    found = []
    for node in [each["node_id"] for each in nodes if each.get("state") == "ALIVE"]:
        listed = _ask(port, f"/api/v0/logs?{urllib.parse.urlencode({'node_id': node, 'glob': pattern})}")[
            "data"
        ]["result"]
        found += [Replica(cluster, node, file) for files in listed.values() for file in sorted(files)]
    return found


def _patiently(port: ForwardedPort, path: str, following: bool) -> Any:
    """Request a file with retries."""
    for _ in range(TRIES - 1):
        try:
            return _open(port, path, None if following else ANSWER_S)
        except LaunchError:
            time.sleep(LOOK_S)
    return _open(port, path, None if following else ANSWER_S)


def _ask(port: ForwardedPort, path: str) -> Any:
    with closing(_open(port, path, ANSWER_S)) as answer:
        try:
            return json.load(answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _refused(error) from error


def _open(port: ForwardedPort, path: str, timeout_s: float | None) -> Any:
    headers = {"Authorization": f"Bearer {port.token}"} if port.token else {}
    try:
        return DIRECT.open(urllib.request.Request(f"{port.url}{path}", headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            lines = error.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")
        raise _refused(f"HTTP status {error.code}: {last}") from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _refused(error) from error


def _refused(why: object) -> LaunchError:
    return LaunchError(
        Problem("dashboard", rule=f"it does not tell the log: {why}", remedy="see the head's log: --all")
    )
