"""The commands against a cluster: what is printed, what happens there, and the exit status."""

import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake import FakeCluster
from fake.operator import take_up

from raystack.cli.main import main
from raystack.errors import LaunchError
from raystack.kuberay.api.client import Client

pytestmark = pytest.mark.slow
TINY = str(Path(__file__).parents[1] / "tiny" / "config.yaml")
Raystack = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def raystack(in_process: FakeCluster, capsys: pytest.CaptureFixture[str]) -> Raystack:
    """Runs `raystack ...` in this process."""
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {}}
    in_process.put({**claim, "status": {"phase": "Bound"}})

    def run(*arguments: str) -> Done:
        code = main(arguments)
        return Done(code, *capsys.readouterr())

    return run


def config(*overrides: str) -> list[str]:
    """The tiny task on Kubernetes."""
    on = [
        "target=kuberay",
        "target.image=example.com/raystack:2.60.0",
        "resources.workers=2",
        "tracking.kind=off",
    ]
    place = ["experiment.storage=/data", "target.storage.volumes=[{kind: pvc, name: data, mount: /data}]"]
    return [TINY, *on, *place, *overrides]


def operator(cluster: FakeCluster, act: Callable[[str], object] = str) -> threading.Thread:
    """Takes up the first RayJob that comes, and then does something with it, beside the command that has sent
    it.
    """

    def run() -> None:
        client = Client(kubeconfig=str(cluster.kubeconfig))
        try:
            while not (found := client.list("RayJob")):
                time.sleep(0.05)
        except LaunchError:  # the cluster went away, and there was none
            return
        name = found[0]["metadata"]["name"]
        cluster.set_status("RayJob", name, {"jobDeploymentStatus": "Initializing"})
        act(name)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def state(job: str, deployment: str = "Running", **more: Any) -> dict[str, Any]:
    return {"jobDeploymentStatus": deployment, "jobStatus": job, "startTime": "2026-01-01T00:00:00Z", **more}


def test_train_submits_and_says_how_to_go_on(cluster: FakeCluster, raystack: Raystack) -> None:
    operator(cluster)
    done = raystack("train", *config())
    assert done.code == 0, done.err
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    name = rows["submitted"].removeprefix("rayjob/")
    assert rows["log"] == f"raystack logs -f rayjob/{name}"
    job = cluster.get("RayJob", name)
    assert job is not None
    assert job["spec"]["entrypoint"] == "python -m raystack.train /etc/raystack/config.yaml"
    assert cluster.get("ConfigMap", f"{name}-code") is not None
    assert f"rayjob/{name}" in raystack("status").out
    assert raystack("status", f"rayjob/{name}").out.startswith(f"rayjob/{name} is starting")


def test_a_submission_resumes_on_purpose_only_and_a_schedule_never(
    cluster: FakeCluster, raystack: Raystack
) -> None:
    operator(cluster)
    done = raystack("train", *config(), "--run", "digits-20261122-094500-1a2b")
    assert done.code == 0, done.err
    (job,) = cluster.all("RayJob")
    assert (
        job["spec"]["entrypoint"]
        == "python -m raystack.train /etc/raystack/config.yaml --run digits-20261122-094500-1a2b"
    )
    refused = raystack("train", *config("target.cron.schedule='0 3 * * *'"), "--resume")
    assert refused.code == 2
    assert "error: --resume: a schedule starts a new run each time" in refused.err


def test_a_dry_run_names_what_the_cluster_has_to_have_and_asks_nobody(
    cluster: FakeCluster, raystack: Raystack
) -> None:
    overrides = config(
        "target.cron.schedule='0 3 * * *'", "target.security.tls=true", "target.submission.retries=2"
    )
    done = raystack("train", *overrides, "--dry-run")
    assert done.code == 0, done.err
    needs = [line.removeprefix("needs").strip() for line in done.out.splitlines() if line.startswith("needs")]
    assert "the operator's feature gate RayCronJob=true, for target.cron.schedule" in needs
    assert any(need.startswith("KubeRay 1.7.0 or later") for need in needs)
    assert "the operator's feature gate RayClusterMTLS=true, for target.security.tls" in needs
    shown = json.loads(raystack("train", *overrides, "--dry-run", "--json").out)["kubernetes"]
    assert {"kind": "gate", "name": "RayCronJob", "why": "target.cron.schedule"} in shown["needs"]
    assert cluster.requests == []


@pytest.mark.parametrize(
    ("status", "code", "line"),
    [
        (state("SUCCEEDED", "Complete"), 0, "is succeeded"),
        (
            state(
                "FAILED",
                "Failed",
                reason="AppFailed",
                message="Job failed.\nerror: step 3: the loss is not a finite number",
            ),
            5,
            "step 3: the loss",
        ),
        (
            state("FAILED", "Failed", reason="AppFailed", message="driver failed with exit code 75."),
            75,
            "paused: ",
        ),
        (state("", "ValidationFailed", message="backoffLimit is negative"), 4, "backoffLimit is negative"),
    ],
    ids=["success", "failure", "paused", "invalid"],
)
def test_waiting_ends_with_the_status_of_the_run(
    cluster: FakeCluster, raystack: Raystack, status: dict[str, Any], code: int, line: str
) -> None:
    def act(name: str) -> None:
        cluster.set_status("RayJob", name, state("RUNNING"))
        time.sleep(0.3)
        cluster.set_status("RayJob", name, status)

    thread = operator(cluster, act)
    done = raystack("train", *config(), "--wait", "--timeout", "30")
    thread.join(10)
    assert done.code == code, done.err
    assert line in done.err
    assert done.out.startswith("rayjob/tiny-")


def test_the_time_is_over_and_the_job_goes_on(cluster: FakeCluster, raystack: Raystack) -> None:
    operator(cluster)
    done = raystack("train", *config(), "--wait", "--timeout", "0.5")
    assert done.code == 4
    assert "it has not ended in the time given" in done.err
    assert not [request for request in cluster.requests if request.startswith("DELETE")]


def test_ctrl_c_leaves_the_job(cluster: FakeCluster, raystack: Raystack) -> None:
    def act(name: str) -> None:
        time.sleep(1)
        signal.raise_signal(signal.SIGINT)

    thread = operator(cluster, act)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what a shell starts in the background ignores it
    done = raystack("train", *config(), "--wait", "--timeout", "60")
    signal.signal(signal.SIGINT, before)
    thread.join(10)
    assert done.code == 130
    assert "it goes on: `raystack logs -f rayjob/" in done.err
    assert not [request for request in cluster.requests if request.startswith("DELETE")]


def test_a_service_is_updated_after_the_operator_has_taken_it_up(
    cluster: FakeCluster, raystack: Raystack
) -> None:
    served = config("serving.model=/data/model", "serving.name=tiny")
    assert raystack("serve", *served).code == 0
    take_up(cluster, "RayService", "tiny")
    at = {
        "type": "Ready",
        "status": "False",
        "reason": "Initializing",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    cluster.set_status("RayService", "tiny", {"conditions": [at]})
    assert raystack("serve", *served).code == 0
    changed = [*served, "serving.cpus_per_replica=2"]
    told = raystack("render", *changed, "--as", "service", "--diff")
    assert "refused" not in told.out
    assert "rayservice/tiny: new cluster: " in told.out
    done = raystack("serve", *changed)
    assert done.code == 0, done.err
    assert "cpus_per_replica: 2" in (cluster.get("RayService", "tiny") or {})["spec"]["serveConfigV2"]


def test_what_is_served_keeps_its_name_and_a_change_is_told(cluster: FakeCluster, raystack: Raystack) -> None:
    served = config("serving.model=/data/model", "serving.name=tiny")
    assert raystack("serve", *served).code == 0
    assert cluster.get("RayService", "tiny") is not None
    done = raystack("render", *served, "--as", "service", "serving.cpus_per_replica=2", "--diff")
    assert done.code == 0, done.err
    assert "rayservice/tiny: new cluster: spec.rayClusterConfig" in done.out


def test_what_was_accepted_is_told_to_someone_who_may_read_little(
    cluster: FakeCluster, raystack: Raystack
) -> None:
    cluster.forbid("get list watch", "events", "pods", "raycronjobs", "rayclusters")
    operator(cluster)
    done = raystack("train", *config())
    assert done.code == 0, done.err
    name = done.out.splitlines()[0].split()[1]
    assert cluster.get("RayJob", name.removeprefix("rayjob/")) is not None
    assert [line for line in done.err.splitlines() if 'cannot list resource "events"' in line] != []
    assert len(done.err.splitlines()) == len(set(done.err.splitlines())) <= 2, done.err
    shown = raystack("status")
    assert shown.code == 0, shown.err
    assert name in shown.out
    assert len([line for line in shown.err.splitlines() if 'cannot list resource "raycronjobs"' in line]) == 1
    assert raystack("status", name).out.startswith(f"{name} is starting")


def test_what_was_accepted_is_told_to_someone_who_may_only_create(
    cluster: FakeCluster, raystack: Raystack
) -> None:
    cluster.forbid(
        "get list watch", "events", "pods", "jobs", "rayjobs", "rayclusters", "configmaps", "serviceaccounts"
    )
    done = raystack("train", *config())
    assert done.code == 0, done.err
    assert done.out.startswith("submitted")
    assert len(cluster.all("RayJob")) == 1
    refused = raystack("status")
    assert 'cannot list resource "rayjobs"' in refused.err


def test_a_job_that_may_be_read_and_not_watched_is_waited_for(
    cluster: FakeCluster, raystack: Raystack
) -> None:
    cluster.forbid("list watch", "rayjobs", "events", "pods")

    def ends() -> None:
        while not (found := cluster.all("RayJob")):
            time.sleep(0.05)
        cluster.set_status("RayJob", found[0]["metadata"]["name"], state("SUCCEEDED", "Complete"))

    thread = threading.Thread(target=ends)
    thread.start()
    done = raystack("train", *config(), "--wait", "--timeout", "30")
    thread.join(10)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].endswith("is succeeded")


def test_where_nothing_may_be_listed_that_is_said(cluster: FakeCluster, raystack: Raystack) -> None:
    cluster.forbid("list", "rayjobs", "rayservices", "rayclusters", "raycronjobs")
    done = raystack("status")
    assert done.code == 4
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["error"] * 4


def test_cancel_and_gc_go_on_without_the_logs_that_may_not_be_read(
    cluster: FakeCluster, raystack: Raystack
) -> None:
    cluster.forbid("get list watch", "events", "pods")
    operator(cluster)
    raystack("train", *config())
    name = Client(kubeconfig=str(cluster.kubeconfig)).list("RayJob")[0]["metadata"]["name"]
    cluster.put(
        {"kind": "RayCluster", "metadata": {"name": f"{name}-x"}, "spec": {"headGroupSpec": {"template": {}}}}
    )
    cluster.set_status(
        "RayJob",
        name,
        state("SUCCEEDED", "Complete", endTime="2026-01-01T01:00:00Z", rayClusterName=f"{name}-x"),
    )
    done = raystack("gc", "--yes")
    assert done.code == 0, done.err
    assert len([line for line in done.err.splitlines() if 'cannot list resource "pods"' in line]) == 1
    assert cluster.get("RayJob", name) is None
    operator(cluster)
    raystack("train", *config())
    name = Client(kubeconfig=str(cluster.kubeconfig)).list("RayJob")[0]["metadata"]["name"]
    done = raystack("cancel", f"rayjob/{name}")
    assert done.code == 0, done.err
    assert done.out.startswith(f"rayjob/{name} is stopped")
    assert cluster.get("RayJob", name) is None


def test_gc_keeps_the_logs_that_may_be_read_where_events_may_not(
    cluster: FakeCluster, raystack: Raystack, tmp_path: Path
) -> None:
    operator(cluster)
    raystack("train", *config())
    name = Client(kubeconfig=str(cluster.kubeconfig)).list("RayJob")[0]["metadata"]["name"]
    cluster.put(
        {"kind": "RayCluster", "metadata": {"name": f"{name}-x"}, "spec": {"headGroupSpec": {"template": {}}}}
    )
    labels = {"ray.io/cluster": f"{name}-x", "ray.io/node-type": "head"}
    cluster.put(
        {
            "kind": "Pod",
            "metadata": {"name": "a-head", "labels": labels},
            "spec": {"containers": [{"name": "ray-head", "image": "x"}]},
        }
    )
    cluster.set_status(
        "Pod", "a-head", {"containerStatuses": [{"name": "ray-head", "state": {"running": {}}}]}
    )
    cluster.log("a-head", "ray-head", "I am the head")
    cluster.set_status(
        "RayJob",
        name,
        state("SUCCEEDED", "Complete", endTime="2026-01-01T01:00:00Z", rayClusterName=f"{name}-x"),
    )
    cluster.forbid("get list watch", "events")
    done = raystack("gc", "--yes", "--keep", str(tmp_path / "kept"))
    assert done.code == 0, done.err
    (log,) = (tmp_path / "kept").rglob("ray-head.log")
    assert log.read_text() == "I am the head\n"
    assert "events" in (log.parents[1] / "missing.txt").read_text()
    assert cluster.get("RayJob", name) is None


def test_gc_deletes_nothing_unless_told_to(cluster: FakeCluster, raystack: Raystack) -> None:
    operator(cluster)
    raystack("train", *config())
    name = Client(kubeconfig=str(cluster.kubeconfig)).list("RayJob")[0]["metadata"]["name"]
    cluster.set_status("RayJob", name, state("SUCCEEDED", "Complete", endTime="2026-01-01T01:00:00Z"))
    young = raystack("gc", "--older", "1e12")
    assert young.out == ""
    assert f"kept: rayjob/{name} in namespace default: succeeded" in young.err
    assert "it is not yet as old as --older" in young.err
    done = raystack("gc")
    assert f"rayjob/{name}" in done.out
    assert "nothing was deleted: --yes does it" in done.err
    assert cluster.get("RayJob", name) is not None
    assert raystack("gc", "--yes").code == 0
    assert not raystack("gc").out


def test_doctor_names_what_a_config_needs_and_is_not_there(cluster: FakeCluster, raystack: Raystack) -> None:
    assert raystack("doctor", *config()).code == 0
    cluster.delete("PersistentVolumeClaim", "data")
    done = raystack("doctor", *config())
    assert done.code == 4
    assert "error: PersistentVolumeClaim data: not in namespace default" in done.err


NEEDS = [
    "target.secrets={HF: hf/token}",
    "target.service_account=trainer",
    "target.worker.priority_class=high",
    "target.queue.scheduler=kueue",
    "target.queue.name=team",
]


@pytest.mark.parametrize("verb", ["train", "serve"])
def test_what_is_known_to_be_missing_is_not_sent(cluster: FakeCluster, raystack: Raystack, verb: str) -> None:
    sent = [verb, *config(*NEEDS, "serving.model=/data/model", "serving.name=tiny")]
    cluster.delete("PersistentVolumeClaim", "data")
    done = raystack(*sent)
    assert done.code == 4
    said = [line.removeprefix("error: ").partition(":")[0] for line in done.err.splitlines()]
    assert sorted(said[:-1]) == [
        "LocalQueue team",
        "PersistentVolumeClaim data",
        "PriorityClass high",
        "Secret hf",
        "ServiceAccount trainer",
    ]
    assert "it was not sent; mend that, or send it all the same with --force" in done.err
    assert not [request for request in cluster.requests if not request.startswith("GET")]
    operator(cluster)
    assert raystack(*sent, "--force").code == 0
    refused = raystack("train", TINY, "--force")
    assert "--force: has no effect on target=local; drop it" in refused.err


def test_a_namespace_that_is_not_there_is_told_once(cluster: FakeCluster, raystack: Raystack) -> None:
    done = raystack("train", *config(*NEEDS), "-n", "team")
    assert done.code == 4
    first, last = done.err.splitlines()
    assert first == (
        "error: namespace team: there is none of that name; kubectl create namespace team, or change"
        " target.namespace"
    )
    assert "it was not sent" in last


def test_the_context_says_where(cluster: FakeCluster, raystack: Raystack) -> None:
    file = cluster.kubeconfig
    file.write_text(file.read_text().replace("namespace: default", "namespace: jobs"), encoding="utf-8")
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "jobs"}, "spec": {}}
    cluster.put({"apiVersion": "v1", **claim})
    operator(cluster)
    done = raystack("train", *config())
    assert done.code == 0, done.err
    (job,) = cluster.all("RayJob")
    assert job["metadata"]["namespace"] == "jobs"
    assert f"raystack status rayjob/{job['metadata']['name']}\n" in done.out
    assert f"rayjob/{job['metadata']['name']}" in raystack("status").out
    assert raystack("status", "-n", "default").out == ""


def asked(requests: list[str]) -> set[tuple[str, str, str]]:
    """Group, resource and verb of each request, as a role has them; discovery and reviews are for all."""
    found = set()
    for request in requests:
        method, _, url = request.partition(" ")
        path, _, query = url.partition("?")
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        if not rest or rest == ["selfsubjectaccessreviews"] or parts[0] == "version":
            continue
        if rest[0] == "namespaces" and len(rest) > 2:
            rest = rest[2:]
        resource, named = "/".join([rest[0], *rest[2:]]), len(rest) > 1
        reads = "get" if named else "watch" if "watch=true" in query else "list"
        found.add((group, resource, {"GET": reads}.get(method, method.lower())))
    return found


def test_a_role_has_all_that_its_verbs_ask_for(cluster: FakeCluster, raystack: Raystack) -> None:
    rendered = yaml.safe_load_all(raystack("render", *config(), "--as", "role").out)
    roles = {
        role["metadata"]["name"]: {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        for role in rendered
    }
    operator(cluster)
    sent = raystack("train", *config(*NEEDS), "--force")
    name = sent.out.splitlines()[0].split()[1]
    raystack("serve", *config("serving.model=/data/model", "serving.name=tiny"))
    raystack("render", *config("serving.model=/data/model", "serving.name=tiny"), "--as", "service", "--diff")
    both = roles["raystack-look"] | roles["raystack-run"]
    unknown = asked(cluster.requests) - both - roles["raystack-doctor"]
    assert unknown == set()
    for verb, more in (("status", ()), ("diagnose", ()), ("logs", ()), ("scale", ("3",)), ("cancel", ())):
        before = len(cluster.requests)
        raystack(verb, name, *more)
        allowed = roles["raystack-look"] | (
            roles["raystack-change"] if verb in ("scale", "cancel") else set()
        )
        assert asked(cluster.requests[before:]) - allowed == set(), verb


def test_what_is_not_there_is_told_in_one_line(cluster: FakeCluster, raystack: Raystack) -> None:
    assert raystack("status", "rayjob/none").out == "rayjob/none is gone\n"
    done = raystack("logs", "rayjob/none")
    assert done.code == 4
    assert len(done.err.splitlines()) == 1


def test_rendered_files_are_what_the_server_takes(
    cluster: FakeCluster, raystack: Raystack, tmp_path: Path
) -> None:
    done = raystack("render", *config("target.cron.schedule='@daily'"), "--as", "all", "-o", "out")
    assert done.code == 0, done.err
    client = Client(kubeconfig=str(cluster.kubeconfig))
    files = sorted((tmp_path / "out").glob("*.yaml"))
    assert [file.name for file in files] == ["cluster.yaml", "cron.yaml", "job.yaml"]
    for file in files:
        for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            client.apply(manifest, dry_run=True)
    assert raystack("lint", *(str(file) for file in files)).code == 0


def test_a_schedule_in_a_queue_says_where_it_is(cluster: FakeCluster, raystack: Raystack) -> None:
    queued = config("target.cron.schedule='@daily'", "target.queue.scheduler=kueue", "target.queue.name=team")
    cluster.put({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "team"}})
    done = raystack("train", *queued)
    assert done.code == 0, done.err
    assert cluster.get("CronJob", "tiny-cron") is not None
    assert "kubectl get cronjob tiny-cron -n default" in done.out
    assert "raycronjob/tiny-cron -" not in done.out
