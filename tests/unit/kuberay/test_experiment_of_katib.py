"""An Experiment of Katib: valid by its types and its webhook's rules, and run as Katib's sidecar runs it."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from raystack.config import load
from raystack.errors import PlanError
from raystack.kuberay.actions.prepare import Prepared, prepare
from raystack.kuberay.lint import Operator, lint, read
from raystack.kuberay.manifest import to_yaml
from raystack.plan.kuberay.facts import NAME_LIMITS

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "kuberay" / "tuning.yaml"

TEXT = {"type": "string", "minLength": 1}
SETTINGS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "value"],
        "properties": {"name": TEXT, "value": TEXT},
        "additionalProperties": False,
    },
}
ALGORITHM = {
    "type": "object",
    "required": ["algorithmName"],
    "properties": {"algorithmName": TEXT, "algorithmSettings": SETTINGS},
    "additionalProperties": False,
}
FEASIBLE = {
    "type": "object",
    "properties": {
        "min": TEXT,
        "max": TEXT,
        "step": TEXT,
        "list": {"type": "array", "items": TEXT, "minItems": 1},
        "distribution": {"enum": ["uniform", "logUniform", "normal", "logNormal"]},
    },
    "additionalProperties": False,
    "oneOf": [{"required": ["min", "max"], "not": {"required": ["list"]}}, {"required": ["list"]}],
}
PARAMETER = {
    "type": "object",
    "required": ["name", "parameterType", "feasibleSpace"],
    "properties": {
        "name": TEXT,
        "parameterType": {"enum": ["double", "int", "discrete", "categorical"]},
        "feasibleSpace": FEASIBLE,
    },
    "additionalProperties": False,
}
OBJECTIVE = {
    "type": "object",
    "required": ["type", "objectiveMetricName"],
    "properties": {
        "type": {"enum": ["minimize", "maximize"]},
        "goal": {"type": "number"},
        "objectiveMetricName": TEXT,
        "additionalMetricNames": {"type": "array", "items": TEXT},
        "metricStrategies": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "value"],
                "properties": {"name": TEXT, "value": {"enum": ["min", "max", "latest"]}},
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
COLLECTOR = {
    "type": "object",
    "properties": {
        "collector": {"type": "object", "required": ["kind"], "properties": {"kind": {"const": "StdOut"}}},
        "source": {
            "type": "object",
            "properties": {
                "filter": {
                    "type": "object",
                    "properties": {"metricsFormat": {"type": "array", "items": TEXT}},
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
TEMPLATE = {
    "type": "object",
    "required": [
        *("primaryContainerName", "successCondition", "failureCondition"),
        *("trialParameters", "trialSpec"),
    ],
    "properties": {
        "retain": {"type": "boolean"},
        "primaryContainerName": TEXT,
        "primaryPodLabels": {"type": "object", "additionalProperties": TEXT},
        "successCondition": TEXT,
        "failureCondition": TEXT,
        "trialParameters": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "reference"],
                "properties": {"name": {"type": "string", "pattern": "^[^{}]+$"}, "reference": TEXT},
                "additionalProperties": False,
            },
        },
        "trialSpec": {
            "type": "object",
            "required": ["apiVersion", "kind", "spec"],
            "properties": {
                "metadata": {"not": {"anyOf": [{"required": ["name"]}, {"required": ["namespace"]}]}}
            },
        },
    },
    "additionalProperties": False,
}
COUNT = {"type": "integer", "minimum": 1}
EXPERIMENT = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "kubeflow.org/v1beta1"},
        "kind": {"const": "Experiment"},
        "metadata": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"}},
        },
        "spec": {
            "type": "object",
            "required": ["objective", "algorithm", "parameters", "trialTemplate"],
            "properties": {
                "objective": OBJECTIVE,
                "algorithm": ALGORITHM,
                "earlyStopping": ALGORITHM,
                "parallelTrialCount": COUNT,
                "maxTrialCount": COUNT,
                "maxFailedTrialCount": {"type": "integer", "minimum": 0},
                "metricsCollectorSpec": COLLECTOR,
                "parameters": {"type": "array", "minItems": 1, "items": PARAMETER},
                "trialTemplate": TEMPLATE,
                "resumePolicy": {"enum": ["Never", "LongRunning", "FromVolume"]},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
"""The types of Katib's v1beta1 and the checks of its webhook; its CRD itself accepts anything."""

SPACE = (
    "tuning.space={training.optimizer.betas: {choice: [[0.9,0.95],[0.9,0.999]]},"
    " strategy: {group: [ddp,zero1]}, training.optimizer.lr: {loguniform: [0.0001,0.1]}}"
)
VALUES = {
    "training.optimizer.betas": "[0.9,0.999]",
    "training.optimizer.lr": "0.0123",
    "training.batch.global": "64",
    "task.args.width": "8",
}


def prepared(*overrides: str) -> Prepared:
    return prepare(load(CONFIG, ["tuning=median", *overrides]), None, "katib")


def experiment(*overrides: str) -> dict[str, Any]:
    return prepared(*overrides).manifests[-1]


def check(made: dict[str, Any]) -> None:
    """What Katib's webhook checks."""
    jsonschema.validate(made, EXPERIMENT)
    spec, template = made["spec"], made["spec"]["trialTemplate"]
    assert spec["maxFailedTrialCount"] <= spec["maxTrialCount"]
    assert spec["parallelTrialCount"] <= spec["maxTrialCount"]
    text = json.dumps(template["trialSpec"])
    names = {each["name"] for each in spec["parameters"]}
    assert {each["reference"] for each in template["trialParameters"]} == names
    for each in template["trialParameters"]:
        placeholder = f"${{trialParameters.{each['name']}}}"
        assert placeholder in text
        text = text.replace(placeholder, "test-value")
    assert not re.findall(r"\$\{trialParameters\..+?\}", text)
    json.loads(text)
    for pattern in spec["metricsCollectorSpec"]["source"]["filter"]["metricsFormat"]:
        assert re.fullmatch(r".*\(.*\).*\(.*\).*", pattern)
        assert ";" not in pattern, "Katib's sidecar gets the patterns with that between them"


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (SPACE,),
        ("tuning=random",),
        ("tuning=gp",),
        ("tuning.trials=2",),
        ("queue=kueue", "target.queue.name=team"),
    ],
    ids=str,
)
def test_an_experiment_is_one_that_katib_accepts(overrides: tuple[str, ...]) -> None:
    made = experiment(*overrides)
    check(made)
    assert len(made["metadata"]["name"]) + len("-k7zq2x4p") <= NAME_LIMITS["RayJob"]


def test_the_trial_is_linted_with_the_experiment(tmp_path: Path) -> None:
    made = prepared()
    made.manifests[-1]["spec"]["trialTemplate"]["trialSpec"]["spec"]["submissionMode"] = "K8sJob"
    (tmp_path / "katib.yaml").write_text(to_yaml(made.manifests))
    findings = lint(read(tmp_path / "katib.yaml"), Operator())
    assert [finding.path for finding in findings if finding.level == "error"] == [
        "spec.trialTemplate.trialSpec.spec.submissionMode"
    ]


def test_the_sidecar_goes_into_the_submitter_alone() -> None:
    template = experiment()["spec"]["trialTemplate"]
    spec = template["trialSpec"]["spec"]
    (label,) = template["primaryPodLabels"].items()
    pods = {
        "submitter": spec["submitterPodTemplate"],
        "head": spec["rayClusterSpec"]["headGroupSpec"]["template"],
        "worker": spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"],
    }
    labelled = [name for name, pod in pods.items() if label in pod["metadata"]["labels"].items()]
    assert labelled == ["submitter"]
    (container,) = pods["submitter"]["spec"]["containers"]
    assert template["primaryContainerName"] == container["name"]


def test_another_way_to_submit_is_refused() -> None:
    with pytest.raises(PlanError, match=r"target\.submission\.mode"):
        prepared("target.submission.mode=HTTPMode")


def run_as_katib_does(made: dict[str, Any], folder: Path, ray: str) -> str:
    """Run the submitter's container with a `ray` of our own; return what the sidecar reads."""
    text = json.dumps(made["spec"]["trialTemplate"]["trialSpec"])
    for name, value in VALUES.items():
        text = text.replace(f"${{trialParameters.{name}}}", value)
    (container,) = json.loads(text)["spec"]["submitterPodTemplate"]["spec"]["containers"]
    words = [*container["command"], *container.get("args", [])]
    assert words[:2] == ["bash", "-c"], "for anything else Katib takes `sh -c` and loses the quotes"
    seen = folder / "metrics.log"
    words[2:] = [" ".join([*words[2:], f"1>{seen} 2>&1", "&&", f"echo completed > {folder}/done"])]
    (folder / "ray").write_text(f"#!/bin/sh\n{ray}")
    (folder / "ray").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    known = {"PATH": path, "RAY_DASHBOARD_ADDRESS": "head:8265", "RAY_JOB_SUBMISSION_ID": "trial-x"}
    done = subprocess.run(words, env=known, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", ""), "all of it goes where the sidecar reads"
    return seen.read_text()


RAY = """\
case "$2" in
  status) exit 1;;
  submit) shift 8; printf '%s\\n' "$@" > {folder}/entrypoint;;
  logs)
    echo 'step 5: eval/accuracy 0.5'
    echo eval/accuracy=0.5; echo eval/accuracy=nan; echo eval/loss=1e-05; echo eval/accuracy=0.75;;
esac
"""


def test_the_sidecar_reads_the_metrics_that_the_trial_prints(tmp_path: Path) -> None:
    made = experiment()
    seen = run_as_katib_does(made, tmp_path, RAY.format(folder=tmp_path))
    (pattern,) = made["spec"]["metricsCollectorSpec"]["source"]["filter"]["metricsFormat"]
    found = [match for line in seen.splitlines() for match in re.findall(pattern, line)]
    assert found == [("eval/accuracy", "0.5"), ("eval/accuracy", "0.75")]
    assert (tmp_path / "done").read_text() == "completed\n"


def test_the_trial_gets_its_point_through_all_shells(tmp_path: Path) -> None:
    run_as_katib_does(experiment(), tmp_path, RAY.format(folder=tmp_path))
    submitted = (tmp_path / "entrypoint").read_text().splitlines()
    # As Ray's own command makes one line of its words, and runs it in a shell.
    line = shlex.join(submitted)
    (tmp_path / "python").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/words\n")
    (tmp_path / "python").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", line], env={"PATH": path}, check=True, timeout=60)
    assert (tmp_path / "words").read_text().splitlines() == [
        *("-m", "raystack.train", "/etc/raystack/config.yaml", "--print-metrics"),
        *("training.optimizer.lr=0.0123", "training.batch.global=64", "task.args.width=8"),
    ]


def test_a_submitter_that_starts_again_follows_the_job_that_is_there(tmp_path: Path) -> None:
    ray = f'case "$2" in submit) touch {tmp_path}/submitted;; logs) echo eval/accuracy=1;; esac\n'
    assert run_as_katib_does(experiment(), tmp_path, ray) == "eval/accuracy=1\n"
    assert not (tmp_path / "submitted").exists()


def test_a_trial_that_fails_is_no_completed_one(tmp_path: Path) -> None:
    run_as_katib_does(experiment(), tmp_path, 'case "$2" in status) exit 1;; logs) exit 1;; esac\n')
    assert not (tmp_path / "done").exists()


def test_the_config_of_a_trial_neither_registers_nor_searches() -> None:
    (carried,) = [each for each in prepared().manifests if each["kind"] == "ConfigMap"]
    config = yaml.safe_load(carried["data"]["config.yaml"])
    assert config["registry"]["model"] is None
    assert config.get("tuning") is None
