"""What the overlay promises: it reaches every field, keeps what it does not name, and breaks nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raystack.code.bundle import Bundle
from raystack.config import load
from raystack.errors import ConfigError, PlanError
from raystack.kuberay.actions.prepare import Prepared, prepare
from raystack.kuberay.manifest import Manifest

GOOD = """\
experiment: {name: demo, storage: /data/demo}
task: {entry: "task:Demo"}
training: {steps: 10, batch: {global: 48}}
resources: {workers: 4, cpus_per_worker: 2}
tracking: {uri: "http://mlflow.ml.svc:5000"}
serving: {model: "models:/demo@champion", replicas: 3}
target:
  kind: kuberay
  image: registry.example.com/raystack:1
  storage: {volumes: [{kind: pvc, name: data, mount: /data}]}
"""
BUNDLE = Bundle({"config.yaml": b"a: 1\n"})
Overlaid = Callable[..., Prepared]


@pytest.fixture
def overlaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Overlaid:
    """GOOD with an overlay and overrides, planned, rendered and linted."""
    monkeypatch.setattr("raystack.kuberay.actions.prepare.bundle", lambda *_: BUNDLE)
    (tmp_path / "config.yaml").write_text(GOOD)

    def overlaid(overlay: str, *overrides: str, form: Any = "job") -> Prepared:
        config = load(tmp_path / "config.yaml", [f"target.overlay={overlay}", *overrides])
        return prepare(config, None, form)

    return overlaid


def cluster(prepared: Prepared) -> dict[str, Any]:
    spec: dict[str, Any] = prepared.manifests[-1]["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return found


def pod(group: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = group["template"]["spec"]
    return spec


def test_lists_are_merged_by_their_key(overlaid: Overlaid) -> None:
    volume = "volumes: [{name: ca, secret: {secretName: corp-ca}}]"
    mount = "volumeMounts: [{name: ca, mountPath: /ca}]"
    ray = f"{{name: ray-head, env: [{{name: A, value: b}}], {mount}}}"
    spec = f"{{{volume}, containers: [{ray}, {{name: proxy, image: proxy}}]}}"
    made = overlaid(f"{{headGroupSpec: {{template: {{spec: {spec}}}}}}}", "target.env={A: a, B: b}")
    head = pod(cluster(made)["headGroupSpec"])
    assert [volume["name"] for volume in head["volumes"]] == ["code", "storage-0", "ca"]
    main, proxy = head["containers"]
    assert [mount["mountPath"] for mount in main["volumeMounts"]] == ["/etc/raystack", "/data", "/ca"]
    assert main["env"] == [{"name": "A", "value": "b"}, {"name": "B", "value": "b"}]
    assert (main["image"], proxy) == (
        "registry.example.com/raystack:1",
        {"name": "proxy", "image": "proxy"},
    )
    assert "Secret corp-ca, for target.overlay" in [need.line for need in made.plan.needs]


def test_a_resource_more_leaves_the_group_to_the_plan(overlaid: Overlaid) -> None:
    limits = "resources: {limits: {vpc.amazonaws.com/efa: '1'}}"
    spec = f"spec: {{containers: [{{name: ray-worker, {limits}}}]}}"
    (group,) = cluster(overlaid(f"{{workerGroupSpecs: [{{groupName: workers, template: {{{spec}}}}}]}}"))[
        "workerGroupSpecs"
    ]
    assert (group["replicas"], pod(group)["serviceAccountName"]) == (4, "demo-job")
    (container,) = pod(group)["containers"]
    assert container["resources"]["limits"] == {
        "cpu": "2",
        "memory": "8Gi",
        "vpc.amazonaws.com/efa": "1",
    }


def test_an_item_of_another_kind_takes_the_place_and_null_removes(overlaid: Overlaid) -> None:
    secret = "volumes: [{name: storage-0, nfs: {server: nfs, path: /data}}]"
    made = overlaid(f"{{headGroupSpec: {{template: {{spec: {{{secret}}}}}}}, authOptions: null}}")
    volumes = pod(cluster(made)["headGroupSpec"])["volumes"]
    assert volumes[1] == {"name": "storage-0", "nfs": {"server": "nfs", "path": "/data"}}
    assert "authOptions" not in cluster(made)
    drop = "env: [{name: B, $patch: delete}]"
    without = f"{{headGroupSpec: {{template: {{spec: {{containers: [{{name: ray-head, {drop}}}]}}}}}}}}"
    head = pod(cluster(overlaid(without, "target.env={A: a, B: b}"))["headGroupSpec"])
    assert head["containers"][0]["env"] == [{"name": "A", "value": "a"}]


def test_it_reaches_the_object_its_metadata_and_the_submitter(overlaid: Overlaid) -> None:
    spec = "submitterPodTemplate: {spec: {priorityClassName: low}}"
    service = "serveService: {metadata: {labels: {a: b}}}"
    over = f"{{entrypointNumCpus: 1, {service}, {spec}, metadata: {{labels: {{x: z}}}}}}"
    job = overlaid(over).manifests[-1]
    assert (job["spec"]["entrypointNumCpus"], job["metadata"]["labels"]["x"]) == (1, "z")
    submitter = job["spec"]["submitterPodTemplate"]["spec"]
    assert (submitter["priorityClassName"], submitter["containers"][0]["name"]) == (
        "low",
        "ray-job-submitter",
    )
    served = overlaid(over, form="service").manifests[-1]["spec"]
    assert served["serveService"] == {"metadata": {"labels": {"a": "b"}}}
    assert "entrypointNumCpus" not in served, "it waits for its form"
    assert overlaid("{workerGroupSpecs: [{groupName: workers, idleTimeoutSeconds: null}]}", form="cluster")


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        (
            "{headGroupSpecs: {serviceType: NodePort}}",
            "headGroupSpecs: is no field .* did you mean headGroupSpec",
        ),
        ("{headGroupSpec: {serviceTyp: NodePort}}", "did you mean serviceType"),
        ("{headGroupSpec: {rayStartParams: {object-store-memory: 1}}}", "should be of type string"),
        ("{metadata: {lables: {a: b}}}", "did you mean labels"),
        ("{workerGroupSpecs: [{groupName: worker, replicas: 4}]}", "did you mean workers"),
        ("{metadata: {name: other}}", "the rest of the metadata is planned"),
        ("{enableInTreeAutoscaling: true}", "enableInTreeAutoscaling: a run with a fixed number of workers"),
        ("{rayVersion: 2.40.0}", "overlay.rayVersion: Ray knows tokens since"),
        (
            "{workerGroupSpecs: [{groupName: workers, replicas: 2, minReplicas: 1}]}",
            "the run may use 4 worker pods",
        ),
        (
            (
                "{workerGroupSpecs: [{groupName: workers, template: {spec: {containers: [{name: ray-worker,"
                " resources: {limits: {cpu: 1}, requests: {cpu: 1}}}]}}}]}"
            ),
            r"limits\.cpu: a worker pod needs 2 cores",
        ),
        (
            "{headGroupSpec: {template: {spec: {containers: [{name: ray_head, tty: true}]}}}}",
            r"there is no container of this name, .* \(got ray_head\); did you mean ray-head",
        ),
        (
            "{submitterPodTemplate: {spec: {containers: [{name: main, tty: true}]}}}",
            "Ray's is called ray-job-submitter",
        ),
        ("{workerGroupSpecs: [{groupName: workers, suspend: true}]}", r"4 worker pods \(got 0\)"),
        ("{workerGroupSpecs: [{groupName: workers, $patch: delete}]}", r"4 worker pods \(got 0\)"),
        ("{rayClusterSpec: {workerGroupSpecs: null}}", r"4 worker pods \(got 0\)"),
        (
            "{workerGroupSpecs: [{groupName: workers, rayStartParams: {num-cpus: '1'}}]}",
            r"num-cpus: a worker pod needs 2 .* Ray would know of less \(got 1\)",
        ),
        (
            "{workerGroupSpecs: [{groupName: workers, resources: {CPU: '1'}}]}",
            r"resources\.CPU: a worker pod needs 2",
        ),
        (
            (
                "{headGroupSpec: {template: {spec: {containers: [{name: ray-head, env: [{name:"
                " RAY_REDIS_ADDRESS, value: x}]}]}}}}"
            ),
            "use target.high_availability.redis",
        ),
        (
            (
                "{headGroupSpec: {template: {spec: {volumes: [{name: x, emptyDir: {}}], containers: [{name:"
                " ray-head, volumeMounts: [{name: x, mountPath: /data}]}]}}}}"
            ),
            "holds experiment.storage=/data/demo",
        ),
    ],
)
def test_what_it_makes_impossible_is_refused(overlaid: Overlaid, overlay: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        overlaid(overlay)


def test_a_list_of_tolerations_keeps_those_that_the_nodes_ask_for(overlaid: Overlaid) -> None:
    spot = "target.spot={enabled: true, provider: gke}"
    spec = "workerGroupSpecs: [{groupName: workers, template: {spec: {tolerations: [%s]}}}]"
    with pytest.raises(PlanError, match="takes the place of the toleration of cloud"):
        overlaid(f"{{{spec % '{key: mine, operator: Exists}'}}}", spot)
    both = "{key: mine, operator: Exists}, {key: cloud.google.com/gke-spot, operator: Exists}"
    group = cluster(overlaid(f"{{{spec % both}}}", spot))["workerGroupSpecs"][0]
    assert [each["key"] for each in pod(group)["tolerations"]] == ["mine", "cloud.google.com/gke-spot"]


def test_a_value_that_the_key_may_not_have_is_refused_in_its_place(overlaid: Overlaid) -> None:
    with pytest.raises(ConfigError, match=r"target\.overlay\.submissionMode: should be K8sJobMode or"):
        overlaid("{submissionMode: K8sJobMod}")


def test_what_it_says_of_the_plan_is_planned(overlaid: Overlaid) -> None:
    made = overlaid("{enableInTreeAutoscaling: true}", "resources.workers=[2,4]")
    assert made.plan.group.replicas is None
    assert {"Role", "RoleBinding"} <= {manifest["kind"] for manifest in made.manifests}
    assert pod(cluster(made)["headGroupSpec"])["automountServiceAccountToken"] is True
    assert overlaid("{submissionMode: HTTPMode}").manifests[-1]["spec"].get("submitterPodTemplate") is None


def test_what_it_takes_over_is_shown(overlaid: Overlaid) -> None:
    over = "{groupName: workers, replicas: 9, maxReplicas: 9, template: {spec: {serviceAccountName: other}}}"
    made = overlaid(f"{{workerGroupSpecs: [{over}], headGroupSpec: {{serviceType: NodePort}}}}")
    assert made.plan.group.replicas == 9
    numbers, account = (each.line for each in made.plan.taken)
    assert numbers == "workerGroupSpecs.workers.replicas: 9 instead of 4"
    assert account.endswith("serviceAccountName: other, which has to be there, instead of demo-job")
    assert [finding.level for finding in made.warnings] == ["warning", "warning"]
    probe = "{name: ray-head, readinessProbe: {timeoutSeconds: 30}}"
    quiet = overlaid(f"{{headGroupSpec: {{template: {{spec: {{containers: [{probe}]}}}}}}}}")
    (line,) = [each.line for each in quiet.plan.taken]
    assert line.endswith("containers[ray-head].readinessProbe.timeoutSeconds: 30 instead of 10")
    assert quiet.warnings == ()
