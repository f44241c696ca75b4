"""Scheduled training: a RayCronJob, or a CronJob that creates RayJobs with a queue's labels."""

from typing import TYPE_CHECKING, Any

from raystack.kuberay.manifest import pods, security, storage
from raystack.kuberay.manifest.job import job, job_spec
from raystack.kuberay.manifest.overlay import overlaid
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.kuberay.manifest.text import to_yaml
from raystack.plan import KubePlan

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle

FOLDER = "/etc/raystack-job"
FILE = "rayjob.yaml"


def ray_cron_job(plan: KubePlan, bundle: "Bundle") -> Manifest:
    config = plan.target.cron
    spec = {
        "schedule": config.schedule,
        **given(timeZone=config.time_zone),
        "suspend": config.suspend,
        "jobTemplate": job_spec(plan, bundle),
    }
    return overlaid(plan, manifest(plan, "ray.io/v1", "RayCronJob", plan.name, spec=spec))


def cron_job(plan: KubePlan, bundle: "Bundle") -> list[Manifest]:
    """Return a ConfigMap with the RayJob, and the CronJob that creates it under its Job's name."""
    # A RayCronJob gives its jobs no labels, so a queue would not admit them.
    content = {FILE: to_yaml([job(plan, bundle)])}
    config = plan.target.cron
    spec = {
        "schedule": config.schedule,
        **given(timeZone=config.time_zone),
        "suspend": config.suspend,
        "concurrencyPolicy": "Forbid",
        # Runs that are more than ten minutes late are skipped, not caught up.
        "startingDeadlineSeconds": 600,
        "jobTemplate": {
            "spec": {"backoffLimit": 3, "ttlSecondsAfterFinished": 86400, "template": _pod(plan)}
        },
    }
    return [
        manifest(plan, "v1", "ConfigMap", _config_map(plan), data=content),
        manifest(plan, "batch/v1", "CronJob", plan.name, spec=spec),
    ]


def _config_map(plan: KubePlan) -> str:
    return f"{plan.name}-job"


def _pod(plan: KubePlan) -> dict[str, Any]:
    own_name = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    amounts = {"cpu": "500m", "memory": "512Mi"}
    container = {
        "name": "create",
        "image": plan.target.image,
        "imagePullPolicy": plan.target.pull_policy,
        "command": ["python", "-m", "raystack.kuberay.inpod.create", f"{FOLDER}/{FILE}", "$(JOB_NAME)"],
        "env": [{"name": "JOB_NAME", "valueFrom": own_name}],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "volumeMounts": [
            {"name": "job", "mountPath": FOLDER, "readOnly": True},
            *storage.tmp(plan.submitter),
        ],
        "securityContext": security.container_context(plan.submitter.config),
    }
    volumes = [{"name": "job", "configMap": {"name": _config_map(plan)}}, *storage.tmp_volume(plan.submitter)]
    return pods.bare(plan, container, account=security.creator(plan), token=True, volumes=volumes)
