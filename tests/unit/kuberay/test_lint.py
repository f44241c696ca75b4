"""Every rule of lint has something that breaks it and something that keeps it, and findings lead to
the line.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from objects import SPECS, good, merged
from schemas import derived

from raystack.code.bundle import bundle
from raystack.config import load
from raystack.errors import ConfigError
from raystack.kuberay.lint import RULES, Finding, Operator, documents, lint, markdown, read, schema_findings
from raystack.kuberay.lint.document import carried
from raystack.kuberay.lint.schemas import FILE
from raystack.kuberay.lint.shell import acts_on
from raystack.kuberay.lint.subject import subjects
from raystack.kuberay.manifest import render
from raystack.plan import plan_kuberay
from raystack.plan.kuberay import Form

ROOT = Path(__file__).parents[3]
CRDS = ROOT.parent / "shared" / "kuberay" / "crds"
EXAMPLES = sorted((ROOT / "examples" / "05_kubernetes").glob("*.yaml"))
CASES: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "lint_cases.yaml").read_text(encoding="utf-8")
)

OF_OBJECTS = [id for id in RULES if id != "RS100"]
"""Rules of an object, and not of a file."""


def case(id: str, which: str) -> dict[str, Any]:
    """The object of a case."""
    entry = CASES[id]
    whole: dict[str, Any] = merged(good(entry["kind"]), entry[which])
    if "groups" in entry:
        group = whole["spec"]["workerGroupSpecs"][0]
        whole["spec"]["workerGroupSpecs"] = [
            {**group, "groupName": f"group-{index}"} for index in range(entry["groups"][which])
        ]
    return whole


def operator(entry: Mapping[str, Any], which: str) -> Operator:
    """What is known of the operator in a case."""
    known = {"gates": ["RayCronJob"] if entry["kind"] == "RayCronJob" else [], **entry.get("operator", {})}
    if which == "passes":
        known |= entry.get("passing_operator", {})
    return Operator(**{**known, "gates": frozenset(known["gates"])})


def found(id: str, which: str) -> list[Finding]:
    """What is found in a case."""
    return lint(documents([case(id, which)]), operator(CASES[id], which))


def test_every_rule_has_its_cases() -> None:
    assert list(CASES) == OF_OBJECTS


@pytest.mark.parametrize("id", OF_OBJECTS)
def test_what_breaks_a_rule_is_found_and_nothing_else(id: str) -> None:
    ids = {finding.id for finding in found(id, "fails")}
    assert ids == {id, *CASES[id].get("also", ())}


@pytest.mark.parametrize("id", OF_OBJECTS)
def test_what_keeps_a_rule_is_left_in_peace(id: str) -> None:
    assert found(id, "passes") == []


STRUCTURE: list[tuple[str, dict[str, Any], str, str, str]] = [
    (
        "RayCluster",
        {"enableInTreeAutoScaling": True},
        "RS120 spec.enableInTreeAutoScaling",
        "the CRD has no field enableInTreeAutoScaling",
        "did you mean enableInTreeAutoscaling?",
    ),
    (
        "RayCluster",
        {"headGroupSpec": {"rayStartParams": {"num-cpus": 0}}},
        "RS121 spec.headGroupSpec.rayStartParams.num-cpus",
        "the value is a number and should be of type string",
        'put it in quotes: "0"',
    ),
    (
        "RayCluster",
        {"headGroupSpec": {"rayStartParams": {"no-monitor": True}}},
        "RS121 spec.headGroupSpec.rayStartParams.no-monitor",
        "the value is true or false and should be of type string",
        'put it in quotes: "true"',
    ),
    (
        "RayJob",
        {"rayClusterSpec": {"workerGroupSpecs": {0: {"replicas": "2"}}}},
        "RS121 spec.rayClusterSpec.workerGroupSpecs[0].replicas",
        "the value is a string and should be of type integer",
        "drop the quotes: 2",
    ),
    (
        "RayService",
        {"rayClusterConfig": {"autoscalerOptions": {"resources": {"limits": {"memory": "4GB"}}}}},
        "RS122 spec.rayClusterConfig.autoscalerOptions.resources.limits.memory",
        "4GB is no quantity",
        "write it as Kubernetes does, e.g. 500m or 4Gi",
    ),
    (
        "RayCluster",
        {"upgradeStrategy": {"type": "Rolling"}},
        "RS122 spec.upgradeStrategy.type",
        "type is one of Recreate, None",
        "choose one that it allows",
    ),
    (
        "RayCluster",
        {"workerGroupSpecs": {0: {"template": None}}},
        "RS123 spec.workerGroupSpecs[0].template",
        "template is required",
        "give it",
    ),
    (
        "RayCronJob",
        {"concurrencyPolicy": "Forbid"},
        "RS120 spec.concurrencyPolicy",
        "the CRD has no field concurrencyPolicy",
        "drop it; a CronJob that creates RayJobs has one",
    ),
]


@pytest.mark.parametrize(("kind", "spec", "place", "says", "remedy"), STRUCTURE)
def test_the_structure_is_checked_without_a_cluster(
    kind: str, spec: dict[str, Any], place: str, says: str, remedy: str
) -> None:
    whole = documents([merged(good(kind), {"spec": spec})])
    (finding,) = lint(whole, Operator(gates=frozenset({"RayCronJob"})))
    assert f"{finding.level} {finding.id} {finding.path}" == f"error {place}"
    assert finding.reason == f"{says}: {RULES[finding.id].why}"
    assert finding.remedy == remedy


def test_pods_are_looked_into() -> None:
    container = {
        "name": "ray",
        "image": 3,
        "resources": {"limits": {"cpu": 1.5, "memory": "4 Gi"}},
        "ports": [{"containerPort": "8265"}],
        "env": [{"name": "RAY_DEBUG", "value": 1}],
    }
    head = {"template": {"spec": {"containers": [container]}}, "rayStartParam": {}}
    patch = {"metadata": {"labels": {"team": 7}}, "spec": {"headGroupSpec": head}}
    findings = lint(documents([merged(good("RayCluster"), patch)]))
    assert {(each.id, each.path.removeprefix("spec.")) for each in findings if each.id < "RS2"} == {
        ("RS120", "headGroupSpec.rayStartParam"),
        ("RS121", "headGroupSpec.template.spec.containers[0].image"),
        ("RS121", "headGroupSpec.template.spec.containers[0].resources.limits.cpu"),
        ("RS122", "headGroupSpec.template.spec.containers[0].resources.limits.memory"),
        ("RS121", "headGroupSpec.template.spec.containers[0].ports[0].containerPort"),
        ("RS121", "headGroupSpec.template.spec.containers[0].env[0].value"),
        ("RS121", "metadata.labels.team"),
    }


def test_an_old_version_of_the_api_has_a_schema_of_its_own() -> None:
    group = {"numOfHosts": 2, "idleTimeout": 60}
    patch = {"apiVersion": "ray.io/v1alpha1", "spec": {"workerGroupSpecs": {0: group}}}
    findings = lint(documents([merged(good("RayCluster"), patch)]))
    assert {(each.id, each.path.removeprefix("spec."), each.remedy) for each in findings} == {
        ("RS101", "apiVersion", "write apiVersion: ray.io/v1"),
        ("RS123", "headGroupSpec.rayStartParams", "write apiVersion: ray.io/v1, which allows it"),
        ("RS120", "workerGroupSpecs[0].numOfHosts", "write apiVersion: ray.io/v1, which allows it"),
        ("RS123", "workerGroupSpecs[0].rayStartParams", "write apiVersion: ray.io/v1, which allows it"),
        ("RS120", "workerGroupSpecs[0].idleTimeout", "check its spelling"),
    }


def test_a_schema_of_a_cluster_can_be_compared_with_too() -> None:
    schema = {"type": "object", "properties": {"kind": {}, "apiVersion": {}, "spec": {"type": "object"}}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    crd = {"spec": {"group": "ray.io", "names": {"kind": "RayJob"}, "versions": [version]}}
    (document,) = documents([good("RayJob")])
    assert {each.path for each in schema_findings(document, crd)} == {
        "spec.entrypoint",
        "spec.rayClusterSpec",
    }


@pytest.mark.beside
def test_the_schemas_are_those_of_the_crds() -> None:
    assert FILE.read_text(encoding="utf-8") == derived(CRDS), "run `make schemas CRDS=FOLDER`"


def test_a_finding_names_file_line_path_reason_and_remedy(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    text = "# first\n---\nkind: ConfigMap\n---\n" + yaml.safe_dump(
        merged(good("RayJob"), {"spec": {"submissionMode": "Http"}})
    )
    file.write_text(text, encoding="utf-8")
    line = text.splitlines().index("  submissionMode: Http") + 1
    (finding,) = lint(read(file))
    assert (
        str(finding)
        == f"{file}:{line}: error RS701 spec.submissionMode: submissionMode is one of K8sJobMode, HTTPMode,"
        " SidecarMode, InteractiveMode: nothing submits the job, and it hangs; choose one of them"
    )


def test_objects_in_lists_and_those_a_cron_job_creates_are_looked_at(tmp_path: Path) -> None:
    inner = yaml.safe_dump(merged(good("RayJob"), {"spec": {"suspend": True}}))
    pod = {"template": {"spec": {"volumes": [{"name": "job", "configMap": {"name": "nightly"}}]}}}
    cron = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": pod}}}
    listed = {"kind": "List", "items": [cron, merged(good("RayCluster"), {"metadata": {"name": "1"}})]}
    indented = "".join(f"    {line}\n" for line in inner.splitlines())
    file = tmp_path / "all.yaml"
    text = (
        f"{yaml.safe_dump(listed)}---\nkind: ConfigMap\nmetadata: {{name: nightly}}\ndata:\n  job.yaml:"
        f" |\n{indented}"
    )
    file.write_text(text, encoding="utf-8")
    lines = text.splitlines()
    name, suspended = lines.index("    name: '1'") + 1, lines.index("      suspend: true") + 1
    assert [(finding.id, finding.where, finding.path) for finding in lint(read(file))] == [
        ("RS201", f"{file}:{name}", "items[1].metadata.name"),
        ("RS401", f"{file}:{suspended}", "data[job.yaml].spec.suspend"),
    ]
    config_map_alone = [document for document in read(file) if document.kind == "ConfigMap"]
    assert lint(config_map_alone) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: RayJob\nkind: RayJob\n", ":2: .*'kind' is given twice"),
        ("- RayJob\n", ":1: a document is a mapping"),
        ("kind: [RayJob\n", "not YAML"),
        ("\tkind: RayJob\n", "not YAML|indented with spaces"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        read(file)


def everywhere(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with every key of it."""
    for key, inner in list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from everywhere(inner)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("wrong", [None, "text", 7, [[None]], {"a": {"b": 1}}], ids=repr)
def test_no_rule_trips_over_values_of_another_type(kind: str, wrong: Any) -> None:
    cases = [case(id, "fails") for id in CASES if CASES[id]["kind"] == kind]
    for whole in [good(kind), *cases[::20]]:
        for holder, key in everywhere(whole):
            kept, holder[key] = holder[key], wrong
            lint(documents([whole]), Operator(scheduler="volcano"))
            holder[key] = kept


def test_what_is_not_known_is_a_warning_and_what_is_known_to_be_missing_an_error() -> None:
    secure = documents([merged(good("RayCluster"), {"spec": {"tlsOptions": {"enabled": True}}})])
    gate = "RayClusterMTLS"
    assert [finding.level for finding in lint(secure)] == ["warning"]
    assert [finding.level for finding in lint(secure, Operator(off=frozenset({gate})))] == ["error"]
    assert lint(secure, Operator(gates=frozenset({gate}))) == []
    queued = documents(
        [merged(good("RayCluster"), {"metadata": {"labels": {"volcano.sh/queue-name": "team"}}})]
    )
    assert [finding.level for finding in lint(queued)] == ["warning"]
    assert [finding.level for finding in lint(queued, Operator(scheduler="none"))] == ["error"]
    assert lint(queued, Operator(scheduler="volcano")) == []


@pytest.mark.parametrize(
    ("command", "evaluated"),
    [
        ("python train.py --lr=0.1 'a; b' \"c && d\"", None),
        (r"python train.py a\;b", None),
        ("python train.py tag#1", None),
        ("a && b", "&"),
        ("a > log", ">"),
        ('echo "$HOME"', "$"),
        ("echo `date`", "`"),
        ("a\nb", "a line break"),
        ("python train.py # all", "#"),
        ("echo 'a", "a quote that is never closed"),
    ],
)
def test_what_a_shell_acts_on(command: str, evaluated: str | None) -> None:
    assert acts_on(command) == evaluated


@pytest.mark.parametrize("form", ["job", "service", "cluster", "cron"])
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_nothing_is_found_in_what_is_rendered(file: Path, form: Form) -> None:
    config = load(file, ["+target.cron.schedule=0 3 * * *"] if form == "cron" and file.stem != "cron" else [])
    plan = plan_kuberay(config, "digits-1", form)
    rendered = documents(render(plan, bundle(config)))
    needed = {
        kind: frozenset(need.name for need in plan.needs if need.kind == kind)
        for kind in ("gate", "scheduler")
    }
    known = Operator(
        plan.target.kuberay_version,
        needed["gate"] | {"ElasticJobsViaWorkloadSlices"},
        scheduler=next(iter(needed["scheduler"]), None),
    )
    assert [each for document in [*rendered, *carried(rendered)] for each in subjects(document, rendered)], (
        "nothing was looked at"
    )
    assert [str(finding) for finding in lint(rendered, known)] == []


def test_the_page_is_fresh() -> None:
    page = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
    assert page == markdown(), "docs/lint.md is not what the rules say: run `make docs`"
    assert all(f"| {id}" in page for id in RULES)
