"""A RayJob: a cluster for one run, that is deleted some time after it."""

import shlex
from typing import TYPE_CHECKING, Any

from raystack.job_context import RUN
from raystack.kuberay.manifest import pods
from raystack.kuberay.manifest.cluster import cluster_spec
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle


def job(plan: KubePlan, bundle: "Bundle") -> Manifest:
    labels, annotations = plan.admission.labels, plan.admission.annotations
    return manifest(
        plan,
        "ray.io/v1",
        "RayJob",
        plan.name,
        labels=labels,
        annotations=annotations,
        spec=job_spec(plan, bundle),
    )


def job_spec(plan: KubePlan, bundle: "Bundle") -> dict[str, Any]:
    """`suspend` is not written: it belongs to the queue, and to whoever suspends the job."""
    config = plan.target.submission
    interactive = config.mode == "InteractiveMode"
    return {
        **given(managedBy=plan.admission.managed_by),
        "submissionMode": config.mode,
        **given(entrypoint=None if interactive else command_line(plan.entrypoint)),
        **({} if interactive else {"backoffLimit": config.retries}),
        **({"metadata": {RUN: plan.run_id}} if plan.run_id is not None else {}),
        **given(
            activeDeadlineSeconds=config.deadline_s,
            preRunningDeadlineSeconds=None if interactive else config.start_deadline_s,
        ),
        **_ending(plan),
        "rayClusterSpec": cluster_spec(plan, bundle),
        **given(submitterPodTemplate=pods.submitter(plan) if config.mode == "K8sJobMode" else None),
    }


def command_line(words: tuple[str, ...]) -> str:
    """Words -> the text that the submitter's bash and then the job's read back as these words.

    KubeRay pastes an entrypoint into a shell command of the submitter, so that `&&`, `$VAR` and the like
    would be evaluated there. Plain words pass both shells as they are; any other command goes as one quoted
    word to a shell of the job.
    """
    line = shlex.join(words)
    return line if line == " ".join(words) else shlex.join(["bash", "-c", line])


def _ending(plan: KubePlan) -> dict[str, Any]:
    """One of two ways that exclude each other; a queue needs the second."""
    lifetime = plan.target.lifetime
    if lifetime.rules:
        # A driver that failed ends as Failed, and so does a job that never got as far as a driver.
        ends = {"SUCCEEDED": {"jobStatus": "SUCCEEDED"}, "FAILED": {"jobDeploymentStatus": "Failed"}}
        rules = [
            {"policy": rule.policy, "condition": {**ends[rule.after], "ttlSeconds": rule.ttl_s}}
            for rule in lifetime.rules
        ]
        return {"deletionStrategy": {"deletionRules": rules}}
    return {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": lifetime.ttl_s}
