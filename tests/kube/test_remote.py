"""What a Remote on KubeRay promises, against a Kubernetes whose operator is the test: lines, ends of waits,
logs, and what it refuses.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake import FakeCluster

from raystack.errors import LaunchError
from raystack.kuberay.api.client import Client
from raystack.kuberay.observe import logs
from raystack.launch import kuberay
from raystack.launch.kuberay import KubeRemote

Object = dict[str, Any]
Step = Callable[[], object]

QUEUE = {"kueue.x-k8s.io/queue-name": "team"}
PODS: Object = {"template": {"spec": {"containers": [{"name": "ray", "image": "registry/raystack:1"}]}}}
GROUP = {"groupName": "workers", "replicas": 2, "minReplicas": 2, "maxReplicas": 2, **PODS}
CLUSTER = {"headGroupSpec": PODS, "workerGroupSpecs": [GROUP]}
CHANGED = {"reason": "Reason", "lastTransitionTime": "2026-03-01T12:00:00Z"}


@dataclass(frozen=True)
class Operator:
    """Does by hand what KubeRay, the kubelet and Kueue do to the job `digits`, its cluster `digits-x` and
    their pods.
    """

    cluster: FakeCluster

    def send(self, spec: Object | None = None, **metadata: Any) -> None:
        spec = {"entrypoint": "python -m raystack.train", "shutdownAfterJobFinishes": True, **(spec or {})}
        self.cluster.put({"kind": "RayJob", "metadata": {"name": "digits", **metadata}, "spec": spec})

    def job(self, deployment: str, job: str = "", **status: Any) -> None:
        told = {"jobDeploymentStatus": deployment, "jobStatus": job, "rayClusterName": "digits-x", **status}
        self.cluster.set_status("RayJob", "digits", told)

    def up(self, ready: int, wanted: int = 2, *, head: bool = True, provisioned: bool = True) -> None:
        conditions = [
            {
                "type": "HeadPodReady",
                "status": str(head),
                **CHANGED,
                "message": "" if head else "the pod was deleted",
            },
            {"type": "RayClusterProvisioned", "status": str(provisioned), **CHANGED, "message": ""},
        ]
        counts = {"readyWorkerReplicas": ready, "desiredWorkerReplicas": wanted, "observedGeneration": 1}
        self.cluster.put(
            {
                "kind": "RayCluster",
                "metadata": {"name": "digits-x", "generation": 1},
                "spec": CLUSTER,
                "status": {**counts, "conditions": conditions},
            }
        )

    def pod(
        self,
        role: str,
        name: str | None = None,
        *,
        waiting: Object | None = None,
        ended: Object | None = None,
        **status: Any,
    ) -> str:
        """One that runs, or waits, or ended."""
        submits = role == "submitter"
        name, container = name or f"digits-{role}", "ray-job-submitter" if submits else f"ray-{role}"
        labels = (
            {"job-name": "digits"} if submits else {"ray.io/cluster": "digits-x", "ray.io/node-type": role}
        )
        state = {"waiting": waiting} if waiting else {"terminated": ended} if ended else {"running": {}}
        status = {
            "phase": "Pending" if waiting else "Succeeded" if ended else "Running",
            "conditions": [{"type": "Ready", "status": str(not waiting)}],
            "containerStatuses": [{"name": container, "state": state}],
            **status,
        }
        spec = {"nodeName": "node-1", "containers": [{"name": container, "image": "registry/raystack:1"}]}
        self.cluster.put(
            {"kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}
        )
        return name

    def submitter(self, name: str = "digits-submitter", **state: Any) -> None:
        self.cluster.put({"kind": "Job", "metadata": {"name": "digits"}, "spec": {}, "status": {}})
        self.pod("submitter", name, **state)

    def workload(self, *conditions: Object) -> None:
        job = self.cluster.get("RayJob", "digits")
        assert job is not None
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "digits", "uid": job["metadata"]["uid"]}
        metadata = {"name": "rayjob-digits", "ownerReferences": [owner]}
        self.cluster.put(
            {
                "kind": "Workload",
                "metadata": metadata,
                "spec": {"active": True},
                "status": {"conditions": [*conditions]},
            }
        )


@pytest.fixture
def operator(cluster: FakeCluster) -> Operator:
    return Operator(cluster)


@pytest.fixture
def digits(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubeRemote:
    """The RayJob `digits`, looked at often."""
    monkeypatch.setattr(kuberay, "LOOK_S", 0.3)
    monkeypatch.setattr(logs, "LOOK_S", 0.2)
    return KubeRemote(Client(kubeconfig=str(cluster.kubeconfig)), "rayjob", "digits", tmp_path / "kept")


def follow(job: KubeRemote, *steps: Step) -> list[str]:
    """What `watch` tells, with a step taken after each line; it has to end by itself."""
    lines, todo = [], iter(steps)
    for now in job.watch(timeout_s=20):
        lines.append(now.line.removeprefix(f"{job.kind}/{job.name} is "))
        next(todo, lambda: None)()
    assert next(todo, None) is None, f"it ended too early: {lines}"
    return lines


def test_a_job_from_its_start_to_success(operator: Operator, digits: KubeRemote) -> None:
    operator.send()

    def comes() -> None:
        operator.up(0, head=False, provisioned=False)
        operator.pod("head", waiting={"reason": "ContainerCreating"})
        operator.job("Initializing")

    def runs() -> None:
        operator.pod("head")
        operator.up(2)
        operator.job("Running", "RUNNING")

    lines = follow(
        digits,
        comes,
        runs,
        lambda: operator.up(1),
        lambda: operator.up(2),
        lambda: operator.job("Complete", "SUCCEEDED"),
    )
    assert lines == [
        "starting: its cluster is being made",
        "starting, 0/2 workers: 0 of 1 pods are ready",
        "running, 2/2 workers",
        "degraded, 1/2 workers: a worker is missing",
        "running, 2/2 workers",
        "succeeded",
    ]
    assert digits.diagnose().cause == "nothing is wrong: it has succeeded"


def test_a_retry_is_no_end_and_a_failure_says_what_the_driver_said(
    operator: Operator, digits: KubeRemote
) -> None:
    operator.send({"backoffLimit": 1})
    operator.up(2)
    operator.job("Running", "RUNNING")

    def retries() -> None:
        operator.submitter(ended={"exitCode": 1})
        operator.cluster.log(
            "digits-submitter", "ray-job-submitter", "step 1\nerror: task: no data at s3://bucket\n"
        )
        operator.job("Retrying", "FAILED", reason="AppFailed", failed=1)

    def fails() -> None:
        operator.job("Failed", "FAILED", reason="AppFailed", failed=2)

    lines = follow(digits, retries, lambda: operator.job("Running", "RUNNING", failed=1), fails)
    assert lines == [
        "running, 2/2 workers",
        "retrying, 2/2 workers, attempt 2: task: no data at s3://bucket",
        "running, 2/2 workers, attempt 2",
        "failed, attempt 2: task: no data at s3://bucket",
    ]
    assert digits.diagnose().remedy == "read its log: raystack logs rayjob/digits"


def test_a_pause_is_told_from_a_failure(operator: Operator, digits: KubeRemote) -> None:
    operator.send()
    operator.job(
        "Failed",
        "FAILED",
        reason="AppFailed",
        message="Job entrypoint command failed with exit code 75, last logs:\npaused: step 7",
    )
    assert follow(digits) == ["stopped: it stopped on request, with a checkpoint"]
    assert "submit it with --resume" in digits.diagnose().remedy


def test_what_the_operator_refuses_for_good_is_an_end(operator: Operator, digits: KubeRemote) -> None:
    operator.send()
    operator.cluster.event(
        "RayJob", "digits", "InvalidRayJobSpec", "spec.ttlSecondsAfterFinished must not be negative"
    )
    operator.job("ValidationFailed")
    assert follow(digits) == [
        "invalid: the operator refuses it: spec.ttlSecondsAfterFinished must not be negative"
    ]


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/2 nodes are available: 2 Insufficient cpu.",
}
STUCK: dict[str, tuple[Callable[[Operator], object], str, str]] = {
    "image": (
        lambda operator: operator.pod("head", waiting={"reason": "ErrImagePull", "message": "not found"}),
        "image registry/raystack:1 of the head cannot be pulled: there is no such image",
        "target.image",
    ),
    "node": (
        lambda operator: operator.pod(
            "head", waiting={"reason": "ContainerCreating"}, conditions=[UNSCHEDULABLE]
        ),
        "the head finds no node: 0/2 nodes are available: 2 Insufficient cpu",
        "target.head.cpus",
    ),
    "quota": (
        lambda operator: operator.cluster.event(
            "RayCluster",
            "digits-x",
            "FailedToCreateHeadPod",
            "exceeded quota: team, requested: pods=1, used: pods=4, limited: pods=4",
        ),
        "the head cannot be made: quota team is used up, requested: pods=1, used: pods=4, limited: pods=4",
        "raystack gc",
    ),
}


@pytest.mark.parametrize("why", STUCK)
def test_what_holds_a_start_up_is_told_while_it_waits(
    operator: Operator, digits: KubeRemote, why: str
) -> None:
    """Nothing of the RayJob itself changes."""
    happens, cause, remedy = STUCK[why]
    operator.send()
    operator.up(0, head=False, provisioned=False)
    operator.job("Initializing")
    late = {"reason": "PreRunningDeadlineExceeded"}
    lines = follow(digits, lambda: happens(operator), lambda: operator.job("Failed", **late))
    assert lines[1] == f"starting, 0/2 workers: {cause}"
    assert lines[2].startswith("failed: it did not run within")
    operator.job("Initializing")
    found = digits.diagnose()
    assert found.cause == cause
    assert remedy in found.remedy


def test_a_queue_holds_it_and_lets_it_go(operator: Operator, digits: KubeRemote) -> None:
    operator.send({"suspend": True}, labels=QUEUE)
    operator.workload(
        {
            "type": "QuotaReserved",
            "status": "False",
            "reason": "Pending",
            "message": "insufficient quota for cpu",
        }
    )
    operator.job("Suspended")

    def admitted() -> None:
        operator.workload({"type": "QuotaReserved", "status": "True"}, {"type": "Admitted", "status": "True"})
        operator.up(2)
        operator.send({"suspend": False}, labels=QUEUE)
        operator.job("Running", "RUNNING")

    lines = follow(digits, admitted, lambda: operator.job("Complete", "SUCCEEDED"))
    assert (lines[0], lines[-1]) == ("queued: queue team holds it: insufficient quota for cpu", "succeeded")
    assert "running, 2/2 workers" in lines


def test_a_head_that_is_lost_is_told(operator: Operator, digits: KubeRemote) -> None:
    operator.send()
    operator.up(2)
    operator.job("Running", "RUNNING")
    lines = follow(
        digits,
        lambda: operator.up(2, head=False),
        lambda: operator.job("Failed", "RUNNING", reason="DeadlineExceeded"),
    )
    assert lines[1] == "degraded, 2/2 workers: the head is lost: the pod was deleted"
    assert lines[2].startswith("failed: it took longer than its deadline")


def test_a_wait_ends_with_its_time_and_with_the_thing(operator: Operator, digits: KubeRemote) -> None:
    assert [now.phase for now in digits.watch()] == ["gone"]
    operator.send()
    assert [now.phase for now in digits.watch(timeout_s=0.5)] == ["starting"]
    goes = threading.Timer(0.5, operator.cluster.delete, ("RayJob", "digits"))
    goes.start()
    assert [now.phase for now in digits.watch(timeout_s=20)] == ["starting", "gone"]
    goes.join()


def test_suspend_and_resume(operator: Operator, digits: KubeRemote) -> None:
    operator.send()
    operator.up(2)
    operator.job("Running", "RUNNING")
    assert digits.suspend().line == "rayjob/digits is suspended, 2/2 workers: its pods are being deleted"
    operator.job("Suspended", rayClusterName="")
    assert digits.status().line == "rayjob/digits is suspended"
    assert digits.suspend().phase == "suspended"
    assert digits.resume().phase == "starting"
    assert (operator.cluster.get("RayJob", "digits") or {})["spec"]["suspend"] is False


def test_of_what_a_queue_runs_the_queue_takes_the_place_away(operator: Operator, digits: KubeRemote) -> None:
    operator.send({"suspend": True}, labels=QUEUE)
    with pytest.raises(LaunchError, match="has not taken notice"):
        digits.suspend()
    operator.workload()
    with pytest.raises(LaunchError, match="only the queue can let it go"):
        digits.resume()
    assert digits.suspend().phase == "suspended"
    assert (operator.cluster.get("Workload", "rayjob-digits") or {})["spec"]["active"] is False
    assert digits.resume().phase == "queued"


RULES = [{"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}]
FATAL: dict[str, tuple[Object, str, str]] = {
    "cluster stays": ({"shutdownAfterJobFinishes": False}, "Running", "cluster stays after its end"),
    "deletion rules": (
        {"deletionStrategy": {"deletionRules": RULES}, "shutdownAfterJobFinishes": False},
        "Running",
        "deletion rules",
    ),
    "cluster of others": (
        {"clusterSelector": {"ray.io/cluster": "shared"}},
        "Running",
        "a cluster that it did not make",
    ),
    "finished": ({}, "Complete", "nothing to suspend"),
    "interactive": ({"submissionMode": "InteractiveMode"}, "Waiting", "before you have submitted"),
}


@pytest.mark.parametrize("why", FATAL)
def test_a_job_that_suspending_would_end_is_not_suspended(
    operator: Operator, digits: KubeRemote, why: str
) -> None:
    spec, deployment, rule = FATAL[why]
    operator.send(spec)
    operator.job(deployment, "SUCCEEDED" if deployment == "Complete" else "RUNNING")
    with pytest.raises(LaunchError, match=rule):
        digits.suspend()
    assert "suspend" not in (operator.cluster.get("RayJob", "digits") or {})["spec"]
    assert not [request for request in operator.cluster.requests if request.startswith("PATCH")]


def test_the_log_of_the_driver_goes_on_through_a_retry(operator: Operator, digits: KubeRemote) -> None:
    operator.send()
    with pytest.raises(LaunchError, match="it has no log"):
        list(digits.logs(follow=False, everything=False))
    operator.up(2)
    operator.job("Running", "RUNNING")
    operator.submitter()
    operator.cluster.log("digits-submitter", "ray-job-submitter", "first attempt")
    seen = []
    for line in digits.logs(follow=True, everything=False):
        seen.append(line.text)
        for number, (text, then) in enumerate(
            [("first attempt", "second attempt"), ("second attempt", "third attempt")], start=2
        ):
            if line.text == text:
                for pod in operator.cluster.all("Pod"):
                    if "submitter" in pod["metadata"]["name"]:
                        operator.cluster.delete("Pod", pod["metadata"]["name"])
                operator.submitter(f"digits-submitter-{number}")
                operator.cluster.log(f"digits-submitter-{number}", "ray-job-submitter", then)
        if line.text == "third attempt":
            operator.cluster.log("digits-submitter-3", "ray-job-submitter", "the end")
            operator.submitter("digits-submitter-3", ended={"exitCode": 0})
            operator.job("Complete", "SUCCEEDED")
    again = "(the driver is started again, as digits-submitter-{})"
    assert seen == [
        "first attempt",
        again.format(2),
        "second attempt",
        again.format(3),
        "third attempt",
        "the end",
    ]


def test_everything_is_all_containers_that_have_started(operator: Operator, digits: KubeRemote) -> None:
    operator.send()
    operator.up(2)
    operator.job("Running", "RUNNING")
    operator.submitter()
    operator.pod("worker", "digits-worker-2", waiting={"reason": "ContainerCreating"})
    for role in ("head", "worker"):
        operator.cluster.log(operator.pod(role), f"ray-{role}", f"I am the {role}")
    operator.cluster.log("digits-submitter", "ray-job-submitter", "step 1\nstep 2")
    assert {(line.source, line.text) for line in digits.logs(follow=False, everything=True)} == {
        ("digits-head/ray-head", "I am the head"),
        ("digits-worker/ray-worker", "I am the worker"),
        ("driver", "step 1"),
        ("driver", "step 2"),
    }


def test_a_driver_without_a_pod_is_read_from_the_dashboard(operator: Operator, digits: KubeRemote) -> None:
    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            told = {
                "/api/jobs/digits-1/logs": {"logs": "step 1\nstep 2\n"},
                "/api/jobs/digits-1": {"status": "SUCCEEDED"},
            }
            self.wfile.write(json.dumps(told[self.path]).encode())

        def log_message(self, *_: object) -> None:
            pass

    operator.send({"submissionMode": "HTTPMode"})
    operator.up(2)
    operator.pod("head")
    operator.job("Running", "RUNNING", jobId="digits-1")
    with HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        operator.cluster.serve("digits-head", 8265, server.server_port)
        seen = [(line.source, line.text) for line in digits.logs(follow=False, everything=False)]
        server.shutdown()
        thread.join()
    assert seen == [("driver", "step 1"), ("driver", "step 2")]


def test_cancel_keeps_logs_and_events_first(operator: Operator, digits: KubeRemote) -> None:
    operator.send()
    operator.up(2)
    operator.job("Running", "RUNNING")
    operator.cluster.log(operator.pod("head"), "ray-head", "I am the head")
    operator.cluster.event("RayJob", "digits", "CreatedRayCluster", "made digits-x", type="Normal")
    ended = digits.cancel()
    assert ended.line == "rayjob/digits is stopped: it was deleted"
    folder = Path(ended.links["logs"])
    assert (folder / "digits-head" / "ray-head.log").read_text() == "I am the head\n"
    assert "made digits-x" in (folder / "events.txt").read_text()
    assert operator.cluster.get("RayJob", "digits") is None
    assert digits.cancel().phase == "gone"


def test_what_its_bundle_makes_again_is_told(operator: Operator, digits: KubeRemote) -> None:
    operator.send(annotations={"argocd.argoproj.io/tracking-id": "train:ray.io/RayJob:default/digits"})
    operator.job("Running", "RUNNING")
    assert digits.cancel().reason == (
        "it was deleted, and Argo CD's train makes it again while its bundle has it"
    )


def test_what_cannot_be_kept_is_not_deleted(operator: Operator, digits: KubeRemote, tmp_path: Path) -> None:
    operator.send()
    (tmp_path / "a file").touch()
    unwritable = replace(digits, kept=tmp_path / "a file")
    with pytest.raises(
        LaunchError,
        match=r"a file/digits: logs are kept there .* it cannot be written: Not a directory; go to a folder",
    ):
        unwritable.cancel()
    assert digits.status().phase != "gone"


def test_a_cluster_of_a_job_is_left_to_the_job(operator: Operator, digits: KubeRemote) -> None:
    operator.up(2)
    made = operator.cluster.get("RayCluster", "digits-x") or {}
    owner = {"kind": "RayJob", "name": "digits", "uid": "1", "apiVersion": "ray.io/v1"}
    operator.cluster.put({**made, "metadata": {**made["metadata"], "ownerReferences": [owner]}})
    part = KubeRemote(digits.client, "raycluster", "digits-x", digits.kept)
    for verb in (part.cancel, part.suspend):
        with pytest.raises(LaunchError, match="it belongs to rayjob/digits"):
            verb()


def test_scale(operator: Operator, digits: KubeRemote) -> None:
    operator.send()
    with pytest.raises(LaunchError, match="it has no cluster now"):
        digits.scale(3)
    operator.up(2)
    operator.job("Running", "RUNNING")
    digits.scale(3)
    group = (operator.cluster.get("RayCluster", "digits-x") or {})["spec"]["workerGroupSpecs"][0]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (3, 2, 3)
    operator.send(labels=QUEUE)
    operator.job("Running", "RUNNING")
    with pytest.raises(LaunchError, match="queue team has admitted it"):
        digits.scale(4)


def test_a_wait_for_a_cluster_ends_when_it_is_up_and_not_when_it_says_ready(
    operator: Operator, digits: KubeRemote
) -> None:
    made = KubeRemote(digits.client, "raycluster", "digits-x")
    operator.up(0, head=False, provisioned=False)
    assert follow(made, lambda: operator.up(1, provisioned=False), lambda: operator.up(2)) == [
        "starting, 0/2 workers",
        "starting, 1/2 workers",
        "running, 2/2 workers",
    ]


def test_a_service_that_was_suspended_answers_again(operator: Operator, digits: KubeRemote) -> None:
    service = KubeRemote(digits.client, "rayservice", "digits")
    operator.up(2)
    operator.cluster.put(
        {"kind": "RayService", "metadata": {"name": "digits"}, "spec": {"rayClusterConfig": CLUSTER}}
    )

    def answers() -> None:
        ready = {
            **CHANGED,
            "type": "Ready",
            "status": "True",
            "reason": "NonZeroServeEndpoints",
            "message": "",
        }
        on = {"rayClusterName": "digits-x", "applicationStatuses": {"model": {"status": "RUNNING"}}}
        live = operator.cluster.get("RayService", "digits") or {}
        status = {
            "conditions": [ready],
            "activeServiceStatus": on,
            "observedGeneration": live["metadata"]["generation"],
        }
        operator.cluster.put({**live, "status": status})

    assert follow(service, answers)[-1] == "running, 2/2 workers"
    operator.cluster.put(
        {
            **(operator.cluster.get("RayService", "digits") or {}),
            "spec": {"rayClusterConfig": CLUSTER, "suspend": True},
        }
    )
    assert service.status().phase == "suspended"
    assert service.resume().phase == "updating"
