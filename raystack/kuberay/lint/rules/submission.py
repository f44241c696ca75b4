"""Rules on the submission of a RayJob that neither the API server nor the operator checks."""

import json
from collections.abc import Iterator

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.shell import acts_on
from raystack.kuberay.lint.subject import JobSubject

MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
BY_SHELL = ("K8sJobMode", "SidecarMode")
"""Modes in which the entrypoint and the runtime environment are part of a shell command."""


@rule(
    "RS701",
    on=JobSubject,
    says=f"submissionMode is one of {', '.join(MODES)}",
    why="nothing submits the job, and it hangs",
    remedy="choose one of them",
)
def mode(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    given = job.node["submissionMode"]
    # An empty mode is the default one.
    if given.present and given.value not in ("", *MODES):
        yield Breach(given)


@rule(
    "RS704",
    on=JobSubject,
    says="the entrypoint has nothing in it that a shell acts on",
    why="the submitter's shell evaluates it, and the job gets what is left",
    remedy="write bash -c '...', or use HTTPMode",
    level="warning",
)
def entrypoint(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    command = job.node["entrypoint"]
    if job.mode in BY_SHELL and (found := acts_on(command.text)) is not None:
        yield Breach(command, says=f"the entrypoint is not quoted for a shell, it has {found}")


@rule(
    "RS705",
    on=JobSubject,
    says="runtimeEnvYAML has no dollar sign and no backtick",
    why="the submitter's shell evaluates them",
    remedy="write the value out, or use HTTPMode",
    level="warning",
)
def runtime_env(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    text = job.node["runtimeEnvYAML"]
    if job.mode in BY_SHELL and any(char in text.text for char in "$`"):
        yield Breach(text)


@rule(
    "RS730",
    on=JobSubject,
    says="a job that is submitted has an entrypoint",
    why="there is nothing to submit, and the job fails",
    remedy="give the command, or use InteractiveMode",
)
def some_entrypoint(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    command = job.node["entrypoint"]
    # A submitter with a command of its own need not use it.
    own = job.node.at("submitterPodTemplate", "spec", "containers")[0]["command"]
    submits = job.mode in ("HTTPMode", "SidecarMode") or (job.mode == "K8sJobMode" and not own.items)
    given = command.present and not isinstance(command.value, str)
    if submits and not given and not command.text.strip():
        yield Breach(command)


@rule(
    "RS715",
    on=JobSubject,
    says="submitterPodTemplate has the restartPolicy Never or OnFailure",
    why="the API server refuses the submitter's Job, and the RayJob hangs",
    remedy="set submitterPodTemplate.spec.restartPolicy: Never",
)
def restarts(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    template = job.node["submitterPodTemplate"]
    policy = template.at("spec", "restartPolicy")
    if job.mode == "K8sJobMode" and template.present and policy.text in ("", "Always"):
        yield Breach(policy)


@rule(
    "RS720",
    on=JobSubject,
    says="submitterPodTemplate and submitterConfig are for K8sJobMode",
    why="no submitter pod is made, and they do nothing",
    remedy="drop them",
    level="warning",
)
def submitter_without_pod(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    for name in ("submitterPodTemplate", "submitterConfig"):
        if job.mode in ("HTTPMode", "InteractiveMode") and job.node[name].present:
            yield Breach(job.node[name])


@rule(
    "RS728",
    on=JobSubject,
    says="entrypointResources is the text of a mapping in JSON",
    why="Ray refuses the job",
    remedy="""write it as '{"special": 1}'""",
)
def resources(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    text = job.node["entrypointResources"]
    try:
        value = json.loads(text.text or "null")
    except json.JSONDecodeError:
        value = None
    # An empty text is left out.
    if text.value not in (None, "") and not isinstance(value, dict):
        yield Breach(text)
