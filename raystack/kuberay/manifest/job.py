"""RayJob: a cluster for one run, deleted some time after it."""

import shlex
from typing import TYPE_CHECKING, Any

import yaml

from raystack.job_context import RUN, RUN_FOLDER
from raystack.kuberay.manifest import pods
from raystack.kuberay.manifest.cluster import cluster_spec
from raystack.kuberay.manifest.overlay import overlaid
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan
from raystack.plan.naming import run_paths

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle


def job(plan: KubePlan, bundle: "Bundle") -> Manifest:
    labels, annotations = plan.admission.labels, dict(plan.admission.annotations)
    if plan.run_id is not None:
        annotations[RUN_FOLDER] = run_paths(plan.config.experiment.storage, plan.run_id).folder
    made = manifest(
        plan,
        "ray.io/v1",
        "RayJob",
        plan.name,
        labels=labels,
        annotations=annotations,
        spec=job_spec(plan, bundle),
    )
    return overlaid(plan, made)


def job_spec(plan: KubePlan, bundle: "Bundle") -> dict[str, Any]:
    """Return the spec of a RayJob."""
    config = plan.target.submission
    interactive = config.mode == "InteractiveMode"
    return {
        # No `suspend`: it belongs to the queue, or to the user who suspends the job.
        **given(managedBy=plan.admission.managed_by),
        "submissionMode": config.mode,
        **given(entrypoint=None if interactive else command_line(plan.entrypoint)),
        **({} if interactive else {"backoffLimit": config.retries}),
        **({"metadata": {RUN: plan.run_id}} if plan.run_id is not None else {}),
        **given(runtimeEnvYAML=runtime_env(plan)),
        **given(
            activeDeadlineSeconds=config.deadline_s,
            preRunningDeadlineSeconds=None if interactive else config.start_deadline_s,
        ),
        **_ending(plan),
        "rayClusterSpec": cluster_spec(plan, bundle),
        **given(submitterPodTemplate=pods.submitter(plan) if config.mode == "K8sJobMode" else None),
    }


def runtime_env(plan: KubePlan) -> str | None:
    """Return Ray's runtime environment as YAML, or None if there is none."""
    env = plan.target.runtime_env
    return yaml.safe_dump(env, sort_keys=False, width=1000) if env else None


def command_line(words: tuple[str, ...]) -> str:
    """Return words as text that the shells of the submitter and of the job read back as these words."""
    # KubeRay pastes the entrypoint into a shell command of the submitter, where `&&`, `$VAR` and the like
    # would be evaluated. Plain words pass both shells; anything else goes as one quoted word to a shell of
    # the job.
    line = shlex.join(words)
    return line if line == " ".join(words) else shlex.join(["bash", "-c", line])


def _ending(plan: KubePlan) -> dict[str, Any]:
    """Return either deletion rules or a TTL: KubeRay rejects both together, and a queue needs the TTL."""
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
