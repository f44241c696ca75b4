"""The job that a driver runs in. In: environment variables of Ray and KubeRay. Out: Submitted."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from raystack.ray_internals.variables import JOB_CONFIG

RUN_FOLDER = "raystack/folder"
"""Annotation of a Kubernetes object with its run's folder."""
RUN, ATTEMPT = "raystack_run", "raystack_attempt"
"""Keys of the job's metadata."""
SUBMISSION = "job_submission_id"
"""The key under which Ray itself puts the submission's id there."""
NAMESPACE, CLUSTER = "RAY_CLUSTER_NAMESPACE", "RAY_CLUSTER_NAME"
"""KubeRay's operator sets them in every pod of a cluster."""
SUFFIX = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}")
"""Pattern that the operator adds to a RayJob's name for the submission id of each attempt."""


@dataclass(frozen=True)
class Submitted:
    """A job; the same in all of its attempts."""

    job: str
    """Its name: the id of the run it was submitted for, or namespace and name of the RayJob."""
    run: str | None = None
    """Id for a new run; None if the submitter did not set one."""
    attempt: int | None = None
    """Counted from 1; None if the job's restarts are not counted."""


def dashboard_command() -> str | None:
    """Return the command that leads to the dashboard from elsewhere; None outside of KubeRay's pods.

    Nobody outside of the cluster reaches a pod's address.
    """
    namespace, cluster = os.environ.get(NAMESPACE), os.environ.get(CLUSTER)
    if not namespace or not cluster:
        return None
    try:
        job = _rayjob(json.loads(os.environ.get(JOB_CONFIG, "{}")).get("metadata") or {})
    except (ValueError, TypeError, AttributeError):
        job = None
    thing = f"raycluster/{cluster}" if job is None else f"rayjob/{job.job.partition('/')[2]}"
    return f"raystack connect {thing} -n {namespace}"


def submission() -> str | None:
    """Return the id of this driver's submission; None outside a job of the Ray Jobs API."""
    try:
        metadata = json.loads(os.environ.get(JOB_CONFIG, "{}")).get("metadata") or {}
    except (ValueError, AttributeError):
        return None
    found = metadata.get(SUBMISSION)
    return str(found) if found else None


def submitted() -> Submitted | None:
    """Return the job of this driver, or None.

    None outside a job, and in one that is not restarted by anything: a plain `ray job submit`.
    """
    try:
        metadata = json.loads(os.environ.get(JOB_CONFIG, "{}")).get("metadata") or {}
        if RUN in metadata:
            return Submitted(
                metadata[RUN], metadata[RUN], int(metadata[ATTEMPT]) if ATTEMPT in metadata else None
            )
        return _rayjob(metadata)
    except (ValueError, TypeError, AttributeError):
        return None


def _rayjob(metadata: Mapping[str, str]) -> Submitted | None:
    """Return the RayJob whose manifest does not mention a run, because it is kept or made by a schedule."""
    name, suffix = metadata.get(SUBMISSION, "")[:-6], metadata.get(SUBMISSION, "")[-6:]
    namespace = os.environ.get(NAMESPACE)
    return Submitted(f"{namespace}/{name}") if namespace and name and SUFFIX.fullmatch(suffix) else None
