"""Rules on a RayJob's end, cluster and submission that the operator checks."""

from collections.abc import Iterator

import yaml

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import GroupSubject, JobSubject
from raystack.plan.kuberay.facts import METADATA_RAY, at_least

SHUT_DOWN = "set shutdownAfterJobFinishes: true"


@rule("RS401", on=JobSubject, says="suspend needs shutdownAfterJobFinishes", why=INVALID, remedy=SHUT_DOWN)
def suspend(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if job.node["suspend"].true and not job.shuts_down:
        yield Breach(job.node["suspend"])


@rule(
    "RS402",
    on=JobSubject,
    says="ttlSecondsAfterFinished is at least 0",
    why=INVALID,
    remedy="give seconds, e.g. 600",
    since="1.4.0",
)
def ttl(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if (job.node["ttlSecondsAfterFinished"].number or 0) < 0:
        yield Breach(job.node["ttlSecondsAfterFinished"])


@rule(
    "RS403",
    on=JobSubject,
    says="ttlSecondsAfterFinished needs shutdownAfterJobFinishes",
    why=INVALID,
    remedy=SHUT_DOWN,
    since="1.4.0",
)
def ttl_of_nothing(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if (job.node["ttlSecondsAfterFinished"].number or 0) > 0 and not job.shuts_down:
        yield Breach(job.node["ttlSecondsAfterFinished"])


@rule(
    "RS407",
    on=JobSubject,
    says=(
        "a job on a cluster that it selects names it by ray.io/cluster, and is neither suspended nor retried"
        " nor in SidecarMode"
    ),
    why=INVALID,
    remedy="give clusterSelector {ray.io/cluster: name} alone, or a rayClusterSpec instead",
)
def selected_cluster(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if not job.selector.fields:
        return
    if not job.selector["ray.io/cluster"].text:
        yield Breach(job.selector["ray.io/cluster"])
    if job.node["suspend"].true:
        yield Breach(job.node["suspend"])
    if job.mode == "SidecarMode":
        yield Breach(job.node["submissionMode"])
    if (job.node["backoffLimit"].number or 0) > 0 and operator.at_least("1.6.0"):
        yield Breach(job.node["backoffLimit"])


@rule(
    "RS408",
    on=JobSubject,
    says="a job has a rayClusterSpec or a clusterSelector",
    why=INVALID,
    remedy="give rayClusterSpec",
)
def some_cluster(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if not job.cluster.node.present and not job.selector.fields:
        yield Breach(job.cluster.node)


@rule(
    "RS409",
    on=JobSubject,
    says="a job in InteractiveMode is not retried",
    why=INVALID,
    remedy="drop backoffLimit",
    since="1.4.0",
)
def interactive(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if job.mode == "InteractiveMode" and (job.node["backoffLimit"].number or 0) > 0:
        yield Breach(job.node["backoffLimit"])


@rule(
    "RS410",
    on=JobSubject,
    says="SidecarMode has no submitter pod, and its head is never restarted",
    why=INVALID,
    remedy="drop submitterPodTemplate, submitterConfig and the head's restartPolicy",
    since="1.5.0",
)
def sidecar(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if job.mode != "SidecarMode":
        return
    yield from (
        Breach(job.node[name])
        for name in ("submitterPodTemplate", "submitterConfig")
        if job.node[name].present
    )
    policy = GroupSubject(job.cluster.node["headGroupSpec"]).pod["restartPolicy"]
    if policy.text not in ("", "Never"):
        yield Breach(policy)


@rule("RS412", on=JobSubject, says="runtimeEnvYAML is YAML", why=INVALID, remedy="correct it")
def runtime_env(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    text = job.node["runtimeEnvYAML"]
    try:
        value = yaml.safe_load(text.text)
    except yaml.YAMLError:
        yield Breach(text)
        return
    if value is not None and not isinstance(value, dict):
        yield Breach(text, says="runtimeEnvYAML is a mapping")


@rule(
    "RS413",
    on=JobSubject,
    says="activeDeadlineSeconds is above 0",
    why=INVALID,
    remedy="give seconds, or drop it",
)
def deadline(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    given = job.node["activeDeadlineSeconds"]
    if given.number is not None and given.number <= 0:
        yield Breach(given)


@rule(
    "RS414",
    on=JobSubject,
    says="backoffLimit is at least 0",
    why=INVALID,
    remedy="give the number of retries, or drop it",
)
def backoff(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if (job.node["backoffLimit"].number or 0) < 0:
        yield Breach(job.node["backoffLimit"])


@rule(
    "RS415",
    on=JobSubject,
    says=f"metadata of a job needs Ray {METADATA_RAY} or newer",
    why="the operator cannot build the command that submits the job",
    remedy="correct rayVersion, or drop metadata",
)
def metadata(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    ray = job.cluster.node["rayVersion"].text
    if job.node["metadata"].fields and not at_least(ray, METADATA_RAY):
        yield Breach(job.node["metadata"])


@rule(
    "RS416",
    on=JobSubject,
    says="only a job in InteractiveMode waits for its jobId",
    why=INVALID,
    remedy="delete it and create it again",
    kinds=("RayJob",),
)
def waiting(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    status = job.document.root.at("status", "jobDeploymentStatus")
    if status.text == "Waiting" and job.mode != "InteractiveMode":
        yield Breach(status)
