"""Experiment of Kubeflow's Katib, whose trials are RayJobs.

Katib's sidecar reads the metrics from what the submitter's container prints, and ends that container to stop
a trial early.
"""

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from raystack.kuberay.manifest.job import command_line, job_spec
from raystack.kuberay.manifest.overlay import overlaid
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan
from raystack.plan.katib import Algorithm, KatibPlan

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle

NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
"""Pattern of a value. Katib would fail at one that is no number, such as nan, so it must not match."""
SUCCEEDED = 'status.[@this].#(jobStatus=="SUCCEEDED")#'
# A job that is tried again has FAILED for a while, and one that reached its deadline never does.
FAILED = 'status.[@this].#(jobDeploymentStatus%"*ailed")#'
SUBMITTER = {"raystack/submitter": "true"}
"""Label of the pod into which Katib puts its sidecar."""


def experiment(plan: KubePlan, bundle: "Bundle") -> Manifest:
    """Return the Experiment."""
    katib = plan.katib
    assert katib is not None
    maximised = katib.objective.mode == "max"
    metric = katib.objective.metric
    spec = {
        "objective": {
            "type": "maximize" if maximised else "minimize",
            "objectiveMetricName": metric,
            "metricStrategies": [{"name": metric, "value": katib.strategy}],
        },
        "algorithm": _algorithm(katib.search),
        **given(earlyStopping=_algorithm(katib.stopping) if katib.stopping is not None else None),
        "parallelTrialCount": katib.parallel,
        "maxTrialCount": katib.trials,
        "maxFailedTrialCount": katib.failures,
        "metricsCollectorSpec": {
            "collector": {"kind": "StdOut"},
            "source": {"filter": {"metricsFormat": [f"({re.escape(metric)})={NUMBER}"]}},
        },
        "parameters": [
            {"name": each.path, "parameterType": each.type, "feasibleSpace": dict(each.feasible)}
            for each in katib.parameters
        ],
        "trialTemplate": _template(plan, katib, bundle),
    }
    return manifest(plan, "kubeflow.org/v1beta1", "Experiment", plan.name, spec=spec)


def _algorithm(algorithm: Algorithm) -> dict[str, Any]:
    settings = [{"name": name, "value": value} for name, value in algorithm.settings.items()]
    return {"algorithmName": algorithm.name, "algorithmSettings": settings}


def _template(plan: KubePlan, katib: KatibPlan, bundle: "Bundle") -> dict[str, Any]:
    labels = {**plan.admission.labels, **plan.labels}
    annotations = {**plan.annotations, **plan.admission.annotations}
    spec = job_spec(plan, bundle)
    pod = spec["submitterPodTemplate"]
    pod["metadata"]["labels"] |= SUBMITTER
    (container,) = pod["spec"]["containers"]
    container["command"] = ["bash", "-c", _submit(plan)]
    trial = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": given(labels=labels, annotations=annotations),
        "spec": spec,
    }
    return {
        "primaryContainerName": container["name"],
        "primaryPodLabels": SUBMITTER,
        "successCondition": SUCCEEDED,
        "failureCondition": FAILED,
        "trialParameters": [{"name": each.path, "reference": each.path} for each in katib.parameters],
        "trialSpec": overlaid(plan, trial),
    }


def _submit(plan: KubePlan) -> str:
    """Return the submitter's script: KubeRay's own as one command of `bash -c`.

    Katib appends a redirection to the script, which has to hold for all of it, and knows no other shell call.
    """
    address, job = '--address "http://$RAY_DASHBOARD_ADDRESS"', '"$RAY_JOB_SUBMISSION_ID"'
    env = plan.target.runtime_env
    runtime = f"--runtime-env-json {shlex.quote(json.dumps(env))} " if env else ""
    words = f"--no-wait {runtime}--submission-id {job} -- {command_line(plan.entrypoint)}"
    submit = f"ray job submit {address} {words}"
    known = f"ray job status {address} {job} >/dev/null 2>&1"
    return f"{{ {known} || {submit}; ray job logs {address} --follow {job}; }}"
