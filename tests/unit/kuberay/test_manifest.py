"""What the manifests promise: valid for KubeRay and Kubernetes, the same bytes each time, and the decisions
that keep a run alive.
"""

import base64
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from raystack.code.bundle import Bundle
from raystack.config import load
from raystack.errors import PlanError
from raystack.kuberay.inpod import alive
from raystack.kuberay.lint import Operator, documents, lint
from raystack.kuberay.lint.schemas import crds
from raystack.kuberay.manifest import Manifest, bundle_url, kustomize, render, to_yaml
from raystack.kuberay.manifest.code import keys
from raystack.kuberay.manifest.job import command_line
from raystack.plan import KubePlan, plan_kuberay
from raystack.plan.serving import GRPC_SERVICES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "05_kubernetes"
FORMS = ("job", "service", "cluster", "cron")
RUN = "digits-20261123-094500-3f9a"
SMALL = Bundle(
    {
        "config.yaml": b"experiment:\n  name: digits\n",
        "task/task.py": b"x = 1\n",
        "task/data/x.bin": b"\xff\x00",
    }
)
SHIPPED = sorted(EXAMPLES.glob("*.yaml"))
RESTRICTED = [file for file in SHIPPED if file.stem != "everything"]
"""Those whose pods ask for nothing that the restricted Pod Security Standard does not allow."""


def planned(name: str, *overrides: str, form: Any = "job") -> KubePlan:
    return plan_kuberay(load(EXAMPLES / f"{name}.yaml", overrides), RUN, form)


def rendered(name: str, *overrides: str, form: Any = "job", bundle: Bundle = SMALL) -> tuple[Manifest, ...]:
    return render(planned(name, *overrides, form=form), bundle)


def own_form(file: Path) -> str:
    return file.stem if file.stem in FORMS else "job"


def spec_of(manifests: tuple[Manifest, ...]) -> dict[str, Any]:
    """Of the RayCluster inside the main object."""
    spec = manifests[-1]["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return found


def containers(manifests: tuple[Manifest, ...]) -> Iterator[dict[str, Any]]:
    """Every container of every pod that is described."""
    for template in templates(list(manifests)):
        yield from (*template["spec"].get("initContainers", []), *template["spec"]["containers"])


def templates(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "containers" in node.get("spec", {}):
            yield node
        for value in node.values():
            yield from templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from templates(value)


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict[str, Any]]:
    """Strict schemas of KubeRay's kinds: a field that they do not name is a mistake."""
    return {
        kind: strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) for kind, crd in crds().items()
    }


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """With no field beside those of `properties`."""
    result = {
        key: [strict(one) for one in value] if key in ("anyOf", "allOf") else value
        for key, value in schema.items()
    }
    if "properties" in schema:
        result["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if isinstance(schema.get("items"), dict):
        result["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = strict(schema["additionalProperties"])
    return result


def check(manifest: Manifest, schemas: dict[str, dict[str, Any]]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    if manifest["apiVersion"] == "ray.io/v1":
        jsonschema.Draft202012Validator(schemas[manifest["kind"]]).validate(manifest)
        return
    if manifest["kind"] != "PodMonitor":
        kubernetes_validate.validate(manifest, "1.34", strict=True)
    for text in (
        value for value in manifest.get("data", {}).values() if manifest["metadata"]["name"].endswith("-job")
    ):
        check(yaml.safe_load(text), schemas)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_config_is_valid(file: Path, schemas: dict[str, dict[str, Any]]) -> None:
    config = load(file, ["target.cron.schedule=@daily"])
    for form in FORMS:
        if form == "service" and file.stem == "spot_pvc":
            config = load(file, ["target.cron.schedule=@daily", "serving.model=s3://raystack/model"])
        for manifest in render(plan_kuberay(config, RUN, form), SMALL):  # type: ignore[arg-type]
            check(manifest, schemas)


MORE = {
    "volcano": ("job", ("queue=volcano", "target.queue={name: team, topology: '2', priority: high}")),
    "yunikorn": ("job", ("queue=yunikorn", "target.queue.name=root.team")),
    "kai": ("job", ("queue=kai", "target.queue.name=team")),
    "scheduler-plugins": ("cluster", ("queue=scheduler-plugins",)),
    "elsewhere": (
        "job",
        ("queue=kueue", "target.queue={name: team, multikueue: true}", "target.service_account=default"),
    ),
    "mig": ("job", ("resources.gpus_per_worker=1", "gpu=mig")),
    "claimed": ("job", ("resources.gpus_per_worker=1", "target.gpu.dra=one-gpu")),
    "spot": ("job", ("spot=gke", "target.spot.fallback=false")),
    "volumes": (
        "job",
        (
            (
                "target.storage.volumes=[{kind: nfs, name: 'nfs:/x', mount: /mnt/n}, {kind: gcsfuse, name: b,"
                " mount: /mnt/g, read_only: true}]"
            ),
            "target.storage.gcp_service_account=me@project.iam.gserviceaccount.com",
        ),
    ),
    "rocksdb": ("job", ("target.high_availability.backend=rocksdb",)),
    "interactive": ("job", ("target.submission={mode: InteractiveMode, retries: 0}",)),
    "http": ("job", ("target.submission={mode: HTTPMode, deadline_s: 3600, start_deadline_s: null}",)),
    "open": ("job", ("target.security={auth: disabled, run_as: null}", "target.pull_secrets=[registry]")),
    "gradual": (
        "service",
        (
            "target.upgrade={kind: NewClusterWithIncrementalUpgrade, gateway_class: istio}",
            "target.autoscaling.enabled=true",
        ),
    ),
    "guarded": (
        "service",
        ("target.security={network_policy: true, auth_secret: token}", "target.pod_monitor=true"),
    ),
    "fenced": ("service", ("target.security={network_policy: true, network_policy_by: manifest}",)),
    "overlaid": ("job", ("target.overlay={headGroupSpec: {serviceType: ClusterIP}}",)),
}


@pytest.mark.parametrize("name", MORE)
def test_every_choice_is_valid(
    name: str, schemas: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSTACK_QUEUE", "team")
    form, overrides = MORE[name]
    for manifest in rendered("job", *overrides, form=form):
        check(manifest, schemas)


@pytest.mark.parametrize("name", [*(file.stem for file in SHIPPED), *MORE])
def test_the_oldest_operator_with_what_the_plan_needs_has_nothing_against_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSTACK_QUEUE", "team")
    form, overrides = MORE.get(name, (name if name in FORMS else "job", ()))
    source = "job" if name in MORE else name
    oldest = planned(source, *overrides, form=form).needs[0].name
    plan = planned(source, *overrides, f"target.kuberay_version={oldest}", form=form)
    needed = {kind: [need.name for need in plan.needs if need.kind == kind] for kind in ("gate", "scheduler")}
    gates = frozenset([*needed["gate"], "ElasticJobsViaWorkloadSlices"])
    operator = Operator(oldest, gates, scheduler=next(iter(needed["scheduler"]), "none"))
    assert lint(documents(render(plan, SMALL)), operator) == []


def test_the_check_finds_what_kuberay_does_not_know(schemas: dict[str, dict[str, Any]]) -> None:
    main = rendered("job", "target.overlay={headGroupSpec: {serviceTyp: ClusterIP}}")[-1]
    with pytest.raises(jsonschema.ValidationError, match="serviceTyp"):
        check(main, schemas)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_same_config_gives_the_same_bytes_and_reads_back(file: Path) -> None:
    once, twice = (rendered(file.stem, form=own_form(file)) for _ in range(2))
    text = to_yaml(once)
    assert text == to_yaml(twice)
    assert list(yaml.safe_load_all(text)) == json.loads(json.dumps(once)) == list(once)
    assert "&id" not in text
    assert all(list(manifest)[:3] == ["apiVersion", "kind", "metadata"] for manifest in once)


def test_kustomize_lists_every_object_once() -> None:
    manifests = rendered("hardened")
    files = kustomize(manifests)
    listed = yaml.safe_load(files.pop("kustomization.yaml"))["resources"]
    assert [yaml.safe_load(files[name]) for name in listed] == list(manifests)
    assert set(listed) == set(files)


@pytest.mark.parametrize("file", RESTRICTED, ids=lambda file: file.stem)
def test_every_pod_is_restricted_and_has_what_it_was_promised(file: Path) -> None:
    manifests = rendered(file.stem, form=own_form(file))
    for template in templates(list(manifests)):
        context = template["spec"]["securityContext"]
        assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert template["spec"]["automountServiceAccountToken"] in (False, file.stem in ("elastic", "cron"))
    for container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"]["memory"]


def test_the_head_runs_no_tasks_stays_off_spot_and_carries_the_code() -> None:
    manifests = rendered("spot_pvc")
    head, worker = spec_of(manifests)["headGroupSpec"], spec_of(manifests)["workerGroupSpecs"][0]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    affinity = head["template"]["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    avoided = affinity["nodeSelectorTerms"][0]["matchExpressions"]
    assert {"key": "karpenter.sh/capacity-type", "operator": "NotIn", "values": ["spot"]} in avoided
    wanted = worker["template"]["spec"]["affinity"]["nodeAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert wanted[0]["preference"]["matchExpressions"][0]["values"] == ["spot"]
    mounts = {
        kind: [mount["mountPath"] for mount in part["template"]["spec"]["containers"][0]["volumeMounts"]]
        for kind, part in (("head", head), ("worker", worker))
    }
    assert mounts == {"head": ["/etc/raystack", "/mnt/raystack"], "worker": ["/mnt/raystack"]}
    budget = next(manifest for manifest in manifests if manifest["kind"] == "PodDisruptionBudget")
    assert budget["spec"]["minAvailable"] == 1
    assert head["template"]["metadata"]["labels"].items() >= {"app.kubernetes.io/instance": RUN}.items()


def test_what_the_autoscaler_owns_is_not_written() -> None:
    manifests = rendered("elastic")
    spec = spec_of(manifests)
    assert (spec["enableInTreeAutoscaling"], spec["autoscalerOptions"]["version"]) == (True, "v2")
    group = spec["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"], "replicas" in group) == (1, 8, False)
    (role,) = [manifest for manifest in manifests if manifest["kind"] == "Role"]
    assert {(rule["resources"][0], *rule["verbs"]) for rule in role["rules"]} == {
        ("pods", "get", "list", "watch", "patch"),
        ("rayclusters", "get", "patch"),
    }


def test_a_queue_reads_its_labels_and_nobody_else_suspends() -> None:
    main = rendered("kueue_gpu")[-1]
    assert (
        main["metadata"]["labels"].items()
        >= {
            "kueue.x-k8s.io/queue-name": "research",
            "kueue.x-k8s.io/priority-class": "high",
        }.items()
    )
    assert main["spec"]["shutdownAfterJobFinishes"] is True
    assert "suspend" not in main["spec"]
    assert main["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["metadata"]["annotations"] == {
        "kueue.x-k8s.io/podset-required-topology": "cloud.provider.com/topology-rack"
    }


def test_a_schedule_gives_the_queues_labels_to_its_jobs() -> None:
    manifests = rendered("cron", form="cron")
    assert [manifest["kind"] for manifest in manifests[-2:]] == ["ConfigMap", "CronJob"]
    job = yaml.safe_load(manifests[-2]["data"]["rayjob.yaml"])
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    creator = manifests[-1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert creator["containers"][0]["command"][-2:] == ["/etc/raystack-job/rayjob.yaml", "$(JOB_NAME)"]
    role = next(manifest for manifest in manifests if manifest["kind"] == "Role")
    assert role["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "patch"]}
    ]
    assert creator["serviceAccountName"] == role["metadata"]["name"]


def test_rules_or_a_time_but_not_both() -> None:
    ruled, timed = rendered("hardened")[-1]["spec"], rendered("job")[-1]["spec"]
    assert "shutdownAfterJobFinishes" not in ruled
    assert ruled["deletionStrategy"]["deletionRules"][1] == {
        "policy": "DeleteWorkers",
        "condition": {"jobDeploymentStatus": "Failed", "ttlSeconds": 60},
    }
    assert (
        timed["shutdownAfterJobFinishes"],
        timed["ttlSecondsAfterFinished"],
        "deletionStrategy" in timed,
    ) == (True, 600, False)


def test_the_submitter_may_run_where_the_head_may() -> None:
    tolerating = (
        "target.head={node_selector: {pool: ray}, tolerations: [{key: team, effect: NoSchedule}],"
        " priority_class: high}"
    )
    spec = rendered("job", tolerating)[-1]["spec"]
    submitter, head = (
        template["spec"]
        for template in (spec["submitterPodTemplate"], spec["rayClusterSpec"]["headGroupSpec"]["template"])
    )
    for key in ("nodeSelector", "tolerations", "priorityClassName"):
        assert submitter[key] == head[key]


def test_the_network_is_shut_but_for_what_a_job_needs() -> None:
    policy = spec_of(
        rendered("hardened", "target.high_availability={backend: redis, redis: 'redis://redis.ray:6380'}")
    )["networkPolicy"]
    operator = policy["head"]["ingressRules"][0]
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert operator["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "kuberay-system"
    }
    dns, servers, blocks = policy["worker"]["egressRules"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert [port["port"] for port in servers["ports"]] == [5000, 6380]
    assert blocks == {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}


def test_ray_serve_takes_the_service_config() -> None:
    from ray.serve.schema import ServeDeploySchema

    from raystack.serving.builder import sections

    main = rendered(
        "service", "serving={model: 'models:/digits/3', batching: {max_size: 7}}", form="service"
    )[-1]
    config = ServeDeploySchema.model_validate(yaml.safe_load(main["spec"]["serveConfigV2"]))
    assert (config.http_options.host, config.http_options.port) == ("0.0.0.0", 8000)
    (application,) = config.applications
    serving, tracking = sections(application.args)
    (deployment,) = application.deployments
    assert (serving.name, deployment.num_replicas) == ("digits", 3)
    assert tracking.uri == "http://mlflow.mlflow.svc:5000"
    settings = deployment.user_config or {}
    assert (settings["model"], settings["batching"]["max_size"]) == ("models:/digits/3", 7)


def test_ray_serve_takes_the_service_of_a_language_model() -> None:
    from ray.serve.schema import ServeDeploySchema

    from raystack.serving.builder import sections

    own = "serving={kind: llm, model: 'models:/story@champion', replicas: 2, max_queued: 5}"
    main = rendered("service", own, "serving.llm.adapters={poet: 'models:/poet/1'}", form="service")[-1]
    (application,) = ServeDeploySchema.model_validate(
        yaml.safe_load(main["spec"]["serveConfigV2"])
    ).applications
    assert application.import_path == "raystack.serving:build"
    serving, _ = sections(application.args)
    assert (serving.kind, serving.model) == ("llm", "models:/story@champion")
    assert serving.llm.adapters == {"poet": "models:/poet/1"}
    (deployment,) = application.deployments
    assert (deployment.num_replicas, (deployment.user_config or {})["max_queued"]) == (2, 5)


def test_another_version_or_number_of_replicas_is_applied_in_place() -> None:
    """Serve builds an application anew, and replaces its replicas, if its arguments have changed."""
    before, after = (
        yaml.safe_load(rendered("service", changes, form="service")[-1]["spec"]["serveConfigV2"])
        for changes in (
            "serving={model: 'models:/digits/3'}",
            "serving={model: 'models:/digits/4', replicas: 1}",
        )
    )
    one, other = before["applications"][0], after["applications"][0]
    assert one["deployments"] != other["deployments"]
    assert {**one, "deployments": None} == {**other, "deployments": None}


def test_the_pods_of_a_service_have_haproxy_before_the_replicas() -> None:
    spec = spec_of(rendered("service", "target.env={RAY_SERVE_HAPROXY_RETRIES: '2'}", form="service"))
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pairs = group["template"]["spec"]["containers"][0]["env"]
        values = {pair["name"]: pair.get("value") for pair in pairs}
        assert values["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert values["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == "raystack.serving.front:middlewares"
        assert values["RAY_SERVE_HAPROXY_RETRIES"] == "2", "what the config says stays"


def test_another_port_and_another_model_keep_the_cluster() -> None:
    before, after = (
        rendered("service", f"serving.model=models:/digits@{alias}", form="service")
        for alias in ("champion", "next")
    )
    assert spec_of(before) == spec_of(after)
    assert before[-1]["spec"]["serveConfigV2"] != after[-1]["spec"]["serveConfigV2"]
    ports = spec_of(rendered("service", "serving.port=9000", form="service"))["headGroupSpec"]["template"][
        "spec"
    ]["containers"][0]["ports"]
    assert {"name": "serve", "containerPort": 9000} in ports


def test_grpc_has_a_port_beside_the_one_of_the_service() -> None:
    from ray.serve.schema import ServeDeploySchema

    manifests = rendered(
        "service", "serving.grpc_port=8001", "target.security.network_policy=true", form="service"
    )
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifests[-1]["spec"]["serveConfigV2"]))
    assert config.grpc_options.port == 8001
    assert config.grpc_options.grpc_servicer_functions == [GRPC_SERVICES]
    spec = spec_of(manifests)
    for pod in (spec["headGroupSpec"], spec["workerGroupSpecs"][0]):
        container = pod["template"]["spec"]["containers"][0]
        assert {"name": "grpc", "containerPort": 8001} in container["ports"]
        assert "8001" not in str(container.get("readinessProbe"))


def test_policies_may_be_objects_that_are_there_before_the_pods() -> None:
    own = ("target.security={network_policy: true, network_policy_by: manifest}", "target.pod_monitor=true")
    manifests = rendered("service", *own, form="service")
    policies = {
        each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"
    }
    head, worker = policies["digits-head"], policies["digits-worker"]
    assert "networkPolicy" not in spec_of(manifests), "KubeRay makes none as well"
    pods = {"app.kubernetes.io/instance": "digits"}
    for node, policy in (("head", head), ("worker", worker)):
        assert policy["podSelector"]["matchLabels"] == {**pods, "ray.io/node-type": node}
        assert policy["ingress"][0] == {"from": [{"podSelector": {"matchLabels": pods}}]}
        assert policy["egress"][0] == {"to": [{"podSelector": {"matchLabels": pods}}]}
        template = spec_of(manifests)["headGroupSpec" if node == "head" else "workerGroupSpecs"]
        labels = (template if node == "head" else template[0])["template"]["metadata"]["labels"]
        assert pods.items() <= labels.items()
    assert "kuberay-operator" in str(head["ingress"])
    assert "kuberay-operator" not in str(worker)
    assert "{'protocol': 'TCP', 'port': 8000}" in str(worker["ingress"])
    assert "RayClusterNetworkPolicy" not in str(planned("service", *own, form="service").needs)


def test_files_keep_their_paths() -> None:
    code = next(manifest for manifest in rendered("job") if manifest["kind"] == "ConfigMap")
    items = spec_of(rendered("job"))["headGroupSpec"]["template"]["spec"]["volumes"][0]["configMap"]["items"]
    back = {
        item["path"]: (
            code.get("data", {}).get(item["key"]) or base64.b64decode(code["binaryData"][item["key"]])
        )
        for item in items
    }
    assert {
        path: content.encode() if isinstance(content, str) else content for path, content in back.items()
    } == dict(SMALL.files)
    clashing = keys({"a/b.py": b"", "a.b.py": b"", "é/" + "x" * 300: b""})
    assert len(set(clashing.values())) == 3
    assert all(len(key) <= 253 and key.isascii() for key in clashing.values())


def test_what_is_too_large_goes_through_the_object_store() -> None:
    large = Bundle({"config.yaml": b"a: 1\n", "task/weights.bin": bytes(901 * 1024)})
    url = f"s3://raystack/digits/bundles/{large.digest}.tar"
    assert bundle_url(planned("job"), large) == url
    manifests = rendered("job", bundle=large)
    assert not any(manifest["kind"] == "ConfigMap" for manifest in manifests)
    (fetch,) = spec_of(manifests)["headGroupSpec"]["template"]["spec"]["initContainers"]
    assert fetch["command"] == ["python", "-m", "raystack.code.bundle", "fetch", url, "/etc/raystack"]
    assert {"name": "code", "emptyDir": {}} in spec_of(manifests)["headGroupSpec"]["template"]["spec"][
        "volumes"
    ]
    with pytest.raises(PlanError, match=r"task\.folder: travels with the run, and a ConfigMap holds 900 KiB"):
        rendered("spot_pvc", bundle=large)


def test_commands_mean_the_same_in_every_shell() -> None:
    assert command_line(("python", "-m", "raystack.train")) == "python -m raystack.train"
    words = ("echo", "$HOME && date", "it's")
    outer = shlex.split(command_line(words))
    assert outer[:2] == ["bash", "-c"]
    assert tuple(shlex.split(outer[2])) == words


@pytest.fixture
def health() -> Iterator[int]:
    """Port of a server on which only `/good` is well."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/good" else 503)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_probe_fails_with_one_place(health: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert alive.main([f"{health}/good", f"{health}/good"]) == 0
    assert alive.main([f"{health}/good", f"{health}/bad"]) == 1
    assert "503" in capsys.readouterr().err
    assert alive.main(["1/nobody"]) == 1


RENDERED = """
import json, sys, time
from raystack.config import load
from raystack.code.bundle import bundle
from raystack.kuberay.manifest import render, to_yaml
from raystack.plan import plan_kuberay
config = load(sys.argv[1])
started = time.perf_counter()
to_yaml(render(plan_kuberay(config, "digits-1", "job"), bundle(config)))
print(json.dumps([time.perf_counter() - started, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_rendering_is_quick_and_imports_nothing_heavy() -> None:
    command = [sys.executable, "-c", RENDERED, str(EXAMPLES / "hardened.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, imported = json.loads(done.stdout)
    assert seconds < 0.3
    assert not {"ray", "torch", "mlflow", "kubernetes", "numpy"} & set(imported)


def test_several_models_are_applications_of_one_service() -> None:
    from ray.serve.schema import ServeDeploySchema

    from raystack.serving.builder import sections

    models = (
        "serving.models={one: {model: 'models:/a/3', replicas: 1}, two: {model: 's3://b/c', replicas: 2}}"
    )
    shared = "serving.multiplexed={max_loaded: 2, replicas: 2, models: {small: {model: 's3://b/d'}}}"
    scaled = "serving.models.two.autoscaling={min_replicas: 0, max_replicas: 4}"
    manifests = rendered("service", "serving.model=null", models, scaled, shared, form="service")
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifests[-1]["spec"]["serveConfigV2"]))
    routes = {application.name: application.route_prefix for application in config.applications}
    assert routes == {"one": "/v2/models/one", "two": "/v2/models/two", "_server": "/"}
    one, two, server = config.applications
    assert [sections(application.args)[0].name for application in (one, two)] == ["one", "two"]
    assert dict(two.deployments[0].autoscaling_config or {})["max_replicas"] == 4
    settings = server.deployments[0].user_config or {}
    assert (settings["models"], list(settings["shared"])) == ({"one": "3", "two": ""}, ["small"])
    assert server.args["cpus_per_replica"] == 1.0
    (group,) = spec_of(manifests)["workerGroupSpecs"]
    assert group["replicas"] == 7, "one for each replica that there may be"
