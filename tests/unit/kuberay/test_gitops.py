"""Bundles for Argo CD, Flux and Helm: the same bytes, a new job where KubeRay would ignore a change, and
nothing that anybody fights about.
"""

import copy
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystack import Experiment
from raystack.cli.main import main as run
from raystack.code.archive import pack
from raystack.config import load
from raystack.errors import ConfigError, LaunchError
from raystack.kuberay.actions.commit import Served
from raystack.kuberay.actions.folder import write
from raystack.kuberay.actions.gitops import Built, build
from raystack.kuberay.manifest.gitops.health import CEL, LUA
from raystack.registry.audit import Move
from raystack.registry.gates import GateReport, Promotion

EXAMPLES = Path(__file__).parents[3] / "examples" / "05_kubernetes"
SOURCE = "target.gitops.source=https://git.example.com/ml.git"
NOTE = "argocd.argoproj.io"

Object = dict[str, Any]


def fresh(name: str, *overrides: str, form: Any = "job", controller: Any = "argo") -> Built:
    config = load(EXAMPLES / f"{name}.yaml", [SOURCE, "target.gitops.path=deploy", *overrides])
    return build(config, [form], controller, "deploy")


built = cache(fresh)


def objects(made: Built) -> list[Object]:
    """What the bundle's kustomization.yaml lists."""
    listed = yaml.safe_load(made.texts["kustomization.yaml"])["resources"]
    return [yaml.safe_load(made.texts[name]) for name in listed]


def main(made: Built) -> Object:
    return objects(made)[-1]


def notes(each: Object) -> dict[str, str]:
    found = each["metadata"].get("annotations", {})
    return {key.partition("/")[2]: value for key, value in found.items() if key.startswith(NOTE)}


@pytest.mark.parametrize("controller", ["argo", "flux", "helm"])
def test_the_same_config_gives_the_same_bytes(controller: Any) -> None:
    once, twice = (fresh("elastic", controller=controller) for _ in range(2))
    assert dict(once.texts) == dict(twice.texts)
    assert list(once.texts) == list(twice.texts)


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ("training.epochs=9", True),
        ("target.image=registry.example.com/raystack:2", True),
        ("resources.cpus_per_worker=3", True),
        ("target.lifetime.ttl_s=7", False),
        ("target.submission.retries=5", False),
        ("serving.replicas=7", False),
        ("target.gitops.revision=production", False),
    ],
)
def test_a_job_is_another_object_where_kuberay_would_ignore_the_change(change: str, another: bool) -> None:
    before, after = (main(built("job", *more))["metadata"]["name"] for more in ((), (change,)))
    assert before.startswith("digits-job-")
    assert (before != after) == another


def test_what_is_rendered_into_the_folder_of_the_task_does_not_travel(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("x = 1\n")
    before = pack(tmp_path)
    write(tmp_path / "deploy", {"a.yaml": "a", "templates/b.yaml": "b"}, "gitops")
    assert pack(tmp_path) == before
    (tmp_path / "deploy" / "mine.yaml").write_text("mine")
    assert pack(tmp_path) != before


def test_the_waves_have_what_is_needed_before_what_needs_it() -> None:
    for made in (built("elastic"), built("cron", form="cron"), built("elastic", form="cluster")):
        waves = {each["kind"]: int(notes(each)["sync-wave"]) for each in objects(made)}
        order = ["Namespace", "ServiceAccount", "ConfigMap", main(made)["kind"]]
        numbers = [waves[kind] for kind in order if kind in waves]
        assert numbers == sorted(set(numbers))
        assert waves["Role"] == waves["RoleBinding"] == waves["ServiceAccount"]
        assert max(waves.values()) == waves[main(made)["kind"]]


def scaled(cluster: Object) -> Object:
    """The cluster after Ray's autoscaler has added a worker and named one to remove."""
    live = copy.deepcopy(cluster)
    for group in live["spec"]["workerGroupSpecs"]:
        group["replicas"] = 5
        group["scaleStrategy"] = {**group["scaleStrategy"], "workersToDelete": ["pod-1"]}
    return live


def ignored(cluster: Object, rules: list[list[str]]) -> Object:
    """The cluster without the fields at these paths; `*` is each item of a list."""
    left = copy.deepcopy(cluster)
    for path in rules:
        places: list[Any] = [left]
        for step in path[:-1]:
            places = [
                inner
                for place in places
                for inner in (place if step == "*" else [place[int(step) if step.isdigit() else step]])
            ]
        for place in places:
            place.pop(path[-1], None)
    return left


def test_what_the_autoscaler_owns_is_ignored_and_nothing_else() -> None:
    argo, flux = (built("elastic", form="cluster", controller=each) for each in ("argo", "flux"))
    (rule,) = yaml.safe_load(argo.texts["argo-application.yaml"])["spec"]["ignoreDifferences"]
    jq = [path.replace("[]", ".*").strip(".").split(".") for path in rule["jqPathExpressions"]]
    (other,) = list(yaml.safe_load_all(flux.texts["flux-kustomization.yaml"]))[1]["spec"]["ignore"]
    pointers = [path.strip("/").split("/") for path in other["paths"]]
    assert (rule["kind"], rule["name"], other["target"]["name"]) == (
        "RayCluster",
        "digits-cluster",
        "^digits-cluster$",
    )
    for paths, made in ((jq, argo), (pointers, flux)):
        cluster = main(made)
        assert ignored(scaled(cluster), paths) == ignored(cluster, paths)
        changed = copy.deepcopy(cluster)
        changed["spec"]["workerGroupSpecs"][0]["maxReplicas"] = 99
        assert ignored(changed, paths) != ignored(cluster, paths)


@pytest.mark.parametrize(("name", "form"), [("elastic", "job"), ("job", "cluster")])
def test_what_no_autoscaler_changes_is_not_ignored(name: str, form: str) -> None:
    assert "ignoreDifferences" not in built(name, form=form).texts["argo-application.yaml"]
    assert "ignore:" not in built(name, form=form, controller="flux").texts["flux-kustomization.yaml"]


def test_a_replaced_job_stays_with_what_it_needs() -> None:
    kept = {each["kind"]: notes(each).get("sync-options") for each in objects(built("elastic"))}
    assert set(kept.values()) == {"Prune=false"}
    pruned = objects(built("elastic", "target.gitops.replaced_jobs=delete"))
    assert {each["kind"] for each in pruned if "sync-options" in notes(each)} == {"Namespace"}
    charted = built("elastic", controller="helm").texts
    assert all("resource-policy: keep" in text for name, text in charted.items() if name[0] == "t")


@pytest.mark.parametrize("replaced", ["keep", "delete"])
def test_a_hook_runs_anew_with_each_sync_and_keeps_its_name(replaced: str) -> None:
    made = built("job", "target.gitops.hook=PreSync", f"target.gitops.replaced_jobs={replaced}")
    assert main(made)["metadata"]["name"] == "digits-job"
    hooks = {each["kind"]: notes(each).get("hook") for each in objects(made)}
    assert set(hooks.values()) == {"PreSync"}, "what it needs is there before the sync as well"
    assert "CreateNamespace=true" in made.texts["argo-application.yaml"]
    assert "retry" not in made.texts["argo-application.yaml"], "each try would train again"
    later = built("job", "target.gitops.hook=Sync", "target.namespace=ml")
    assert {each["kind"]: notes(each).get("hook") for each in objects(later)}["Namespace"] is None
    assert "CreateNamespace" not in later.texts["argo-application.yaml"]


def test_an_alias_that_moves_changes_what_a_service_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    served = []
    for version in ("7", "7", "8"):
        monkeypatch.setattr("raystack.registry.pin", lambda *_, now=version: f"models:/digits/{now}")
        served.append(main(fresh("service", form="service"))["spec"]["serveConfigV2"])
    assert "models:/digits/7" in served[0]
    assert served[0] == served[1] != served[2]
    assert served[2] == served[0].replace("digits/7", "digits/8")


def test_images_without_a_digest_are_named() -> None:
    (warning,) = built("job").warnings
    assert "image registry.example.com/raystack:0.1.0" in str(warning)
    by_digest = f"target.image=registry.example.com/raystack@sha256:{'0' * 64}"
    assert not built("job", by_digest).warnings


def test_a_namespace_that_two_bundles_have_is_named(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    config = load(EXAMPLES / "job.yaml", [SOURCE, "target.namespace=ml"])
    made = build(config, ["job"], "argo", str(tmp_path / "train"))
    write(tmp_path / "train", made.texts, "gitops")
    assert "namespace/ml" not in str(build(config, ["job"], "argo", str(tmp_path / "train")).warnings)
    assert yaml.safe_load(made.texts["argo-application.yaml"])["spec"]["syncPolicy"]["retry"]["limit"], (
        "another Application may make it, a little later"
    )
    (warning,) = [
        each
        for each in build(config, ["cluster"], "argo", str(tmp_path / "serve")).warnings
        if "ml" in each.where
    ]
    assert "create_namespace=false" in warning.remedy


@pytest.mark.parametrize(
    ("overrides", "out", "where"),
    [
        (["target.gitops.source=null"], "deploy", "target.gitops.source"),
        ([], "/deploy", "target.gitops.path"),
        (["target.gitops.hook=Sync"], "deploy", "target.gitops.hook"),
        (["target.namespace=null"], "deploy", "target.namespace"),
    ],
)
def test_a_bundle_that_nobody_would_find_or_run_is_refused(
    overrides: list[str], out: str, where: str
) -> None:
    config = load(EXAMPLES / "job.yaml", [SOURCE, *overrides])
    with pytest.raises(ConfigError, match=where):
        build(config, ["job"], "flux", out)


def test_the_bundle_lies_where_its_repository_has_it(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    made = build(load(EXAMPLES / "job.yaml", [SOURCE]), ["job"], "argo", str(tmp_path / "team" / "deploy"))
    application = yaml.safe_load(made.texts["argo-application.yaml"])
    assert application["spec"]["source"]["path"] == "team/deploy"


def test_a_chart_has_values_for_what_teams_change_and_leaves_braces_of_code_alone(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("x = '{{ not helm }}'\n")
    made = built("job", f"task={{entry: 'task:Task', folder: {tmp_path}}}", controller="helm")
    values = yaml.safe_load(made.texts["values.yaml"])
    assert values["image"] == "registry.example.com/raystack:0.1.0"
    assert values["job"]["groups"]["workers"].keys() == {"resources"}, "its number is in the config as well"
    job = next(text for name, text in made.texts.items() if "/rayjob-" in name)
    assert values["image"] not in job
    assert ".Values.image .Values.job | toJson | sha256sum" in job, "its name changes with them"
    code = next(text for name, text in made.texts.items() if "/configmap-" in name)
    assert """x = '{{ "{{" }} not helm }}'""" in code
    assert "VALUE" not in "".join(made.texts.values())


def test_a_service_of_a_chart_has_a_pod_for_each_replica() -> None:
    made = service("7", "helm")
    values = yaml.safe_load(made.texts["values.yaml"])
    assert (values["service"]["replicas"], values["models"]) == (3, {"digits": "models:/digits/7"})
    template = made.texts["templates/rayservice-digits.yaml"]
    for field in ("num_replicas", "replicas", "minReplicas", "maxReplicas"):
        assert f" {field}: {{{{ int64 .Values.service.replicas }}}}" in template
    cluster = built("job", form="cluster", controller="helm").texts["values.yaml"]
    numbers = yaml.safe_load(cluster)["cluster"]["groups"]["workers"]
    assert numbers.keys() == {"replicas", "minReplicas", "maxReplicas", "resources"}


@pytest.fixture(params=["argo", "helm"])
def repository(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a bundle that serves version 7."""
    for key, value in (("NAME", "a"), ("EMAIL", "a@example.com")):
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    write(tmp_path / "deploy", service("7", request.param).texts, "gitops")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "bundle")
    return tmp_path


def service(version: str, controller: Any) -> Built:
    return built("service", f"serving.model=models:/digits/{version}", form="service", controller=controller)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    ).stdout


def test_a_promotion_is_a_commit_with_nothing_else_in_it(repository: Path) -> None:
    folder = repository / "deploy"
    controller = "helm" if (folder / "Chart.yaml").exists() else "argo"
    named = "values.yaml" if controller == "helm" else "rayservice-digits.yaml"
    (repository / "other.txt").write_text("not mine")
    git(repository, "add", "other.txt")
    assert Served.read(folder, "digits").commit("8", "it is better")
    shown = git(repository, "show", "--format=%s, for %b", "--name-only")
    assert " ".join(shown.split()) == (
        f"Serve version 8 of digits instead of 7, for it is better deploy/.raystack deploy/{named}"
    )
    written = write(folder, service("8", controller).texts, "gitops")
    assert (written.removed, written.kept) == ((), ())
    assert git(repository, "status", "--porcelain", "deploy") == "", "a render of that version is the same"
    assert Served.read(folder, "digits").commit("8", "again") is None


@pytest.mark.parametrize("repository", ["argo"], indirect=True)
def test_what_is_no_bundle_of_the_model_or_not_committed_is_refused(repository: Path) -> None:
    with pytest.raises(ConfigError, match=r"no service with a version of models:/other"):
        Served.read(repository / "deploy", "other")
    file = repository / "deploy" / "rayservice-digits.yaml"
    before = file.read_text()
    file.write_text(before + "# mine\n")
    with pytest.raises(ConfigError, match="changes that are in no commit"):
        Served.read(repository / "deploy", "digits")
    file.write_text(before.replace("route_prefix", "beside: models:/digits/9\n      route_prefix", 1))
    with pytest.raises(ConfigError, match=r"serves several versions of models:/digits \(got 7, 9\)"):
        Served.read(repository / "deploy", "digits")


@pytest.mark.parametrize("repository", ["argo"], indirect=True)
def test_what_git_would_refuse_is_refused_before(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = repository / "deploy"
    git(repository, "checkout", "--quiet", "--detach")  # as pipelines have it
    assert Served.read(folder, "digits").commit("8", "it is better")
    for number, content in enumerate("ab"):
        git(repository, "checkout", "--quiet", "-B", f"branch-{number}", "HEAD~1" if number else "HEAD")
        (repository / "both.txt").write_text(content)
        git(repository, "add", "both.txt")
        git(repository, "commit", "--quiet", "-m", content)
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "merge", "--quiet", "branch-0")
    with pytest.raises(LaunchError, match=r"git commit: .*partial commit during a merge"):
        Served.read(folder, "digits")
    git(repository, "merge", "--abort")
    for key in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(repository))
    git(repository, "config", "user.useConfigOnly", "true")
    with pytest.raises(LaunchError, match=r"git var: .*no email was given"):
        Served.read(folder, "digits")


@pytest.mark.parametrize("repository", ["argo"], indirect=True)
def test_the_alias_moves_only_where_the_commit_can_be_made(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Move(0.0, "promoted", "digits", "champion", "8", "7", "anna", "it is better")
    promotions: list[str | None] = []

    def promote(_: Experiment, version: str | None, **__: Any) -> Promotion:
        promotions.append(version)
        return Promotion(GateReport("models:/digits/8", ()), moved)

    monkeypatch.setattr(Experiment, "promote", promote)
    words = ["promote", str(EXAMPLES / "service.yaml"), "registry.model=digits", "--version", "8", "--commit"]
    assert run([*words, str(repository / "nowhere")]) == 2
    assert (promotions, "nowhere is no folder" in capsys.readouterr().err) == ([], True)
    assert run([*words, str(repository / "deploy")]) == 0
    assert promotions == ["8"]
    assert git(repository, "log", "-1", "--format=%s") == "Serve version 8 of digits instead of 7\n"


def condition(kind: str, status: bool, reason: str = "") -> Object:
    return {"type": kind, "status": str(status), "reason": reason, "message": ""}


UP = [condition("HeadPodReady", True), condition("RayClusterProvisioned", True)]
HEALTH = [
    ("RayCluster", {"conditions": UP, "readyWorkerReplicas": 2, "desiredWorkerReplicas": 2}, "Healthy"),
    ("RayCluster", {"conditions": UP, "readyWorkerReplicas": 1, "desiredWorkerReplicas": 2}, "Progressing"),
    ("RayCluster", {"conditions": [condition("ReplicaFailure", True)]}, "Degraded"),
    ("RayCluster", {"conditions": [condition("RayClusterSuspended", True)]}, "Suspended"),
    ("RayService", {"conditions": [condition("Ready", True)]}, "Healthy"),
    ("RayService", {"conditions": [condition("Ready", False, "InitializingTimeout")]}, "Degraded"),
    (
        "RayService",
        {
            "conditions": [condition("Ready", True)],
            "activeServiceStatus": {"applicationStatuses": {"a": {"status": "DEPLOY_FAILED"}}},
        },
        "Degraded",
    ),
    (
        "RayService",
        {
            "conditions": [condition("Ready", True)],
            "activeServiceStatus": {"applicationStatuses": {"a": {"status": "DEPLOYING"}}},
        },
        "Progressing",
    ),
    (
        "RayService",
        {"conditions": [condition("Ready", True), condition("UpgradeInProgress", True)]},
        "Progressing",
    ),
    ("RayService", {"conditions": [condition("Ready", True)], "observedGeneration": 1}, "Progressing"),
    ("RayJob", {"jobDeploymentStatus": "Initializing"}, "Progressing"),
    ("RayJob", {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "Healthy"),
    ("RayJob", {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "Healthy"),
    ("RayJob", {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "Degraded"),
    ("RayJob", {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, "Progressing"),
    ("RayJob", {"jobDeploymentStatus": "ValidationFailed"}, "Degraded"),
    ("RayJob", {"jobDeploymentStatus": "Suspended", "jobStatus": "STOPPED"}, "Suspended"),
    ("RayJob", None, "Progressing"),
]


def healthy(kind: str, status: Object | None, **metadata: Any) -> str:
    lupa = pytest.importorskip("lupa")
    lua = lupa.LuaRuntime()
    obj = {"metadata": {"generation": 2, **metadata}, "spec": {}, **({"status": status} if status else {})}
    lua.globals().obj = lua.table_from(obj, recursive=True)
    return str(lua.execute(LUA[kind]).status)


@pytest.mark.parametrize(("kind", "status", "expected"), HEALTH)
def test_health_is_what_the_status_means(kind: str, status: Object | None, expected: str) -> None:
    assert healthy(kind, status) == expected


@pytest.mark.parametrize(("kind", "status", "expected"), HEALTH)
def test_flux_comes_to_the_same_health(kind: str, status: Object | None, expected: str) -> None:
    """It asks these in this order; what none of them says is waited for."""
    cel = pytest.importorskip("cel")
    words = {"inProgress": "Progressing", "failed": "Degraded", "current": "Healthy"}
    obj = {"metadata": {"generation": 2}, "spec": {}, "status": status or {}}
    said = (word for field, word in words.items() if cel.evaluate(CEL[kind][field], obj) is True)
    assert next(said, "Progressing") == {"Suspended": "Progressing"}.get(expected, expected)


def test_a_hook_is_over_when_its_job_has_ended() -> None:
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    assert healthy("RayJob", running, annotations={f"{NOTE}/hook": "Sync"}) == "Progressing"


def test_flux_waits_for_each_of_kuberays_objects_that_has_a_health() -> None:
    made = built("service", "serving.model=models:/digits/7", form="service", controller="flux")
    source, kustomization = yaml.safe_load_all(made.texts["flux-kustomization.yaml"])
    assert (source["kind"], kustomization["spec"]["path"]) == ("GitRepository", "./deploy")
    (checked,) = kustomization["spec"]["healthChecks"]
    (health,) = kustomization["spec"]["healthCheckExprs"]
    assert checked["kind"] == health["kind"] == "RayService"
    assert health.items() >= CEL["RayService"].items()
    oci = built("job", "target.gitops.source=oci://registry.example.com/ml", controller="flux")
    assert "kind: OCIRepository" in oci.texts["flux-kustomization.yaml"]
