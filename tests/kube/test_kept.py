"""A run outlives its cluster: what was kept answers `status`, `logs` and `diagnose` when all else is gone."""

from pathlib import Path

import pytest
from fake import FakeCluster
from test_remote import Operator

from raystack.errors import LaunchError
from raystack.job_context import RUN_FOLDER
from raystack.kuberay.api.client import Client
from raystack.launch.kuberay import KubeRemote

pytestmark = pytest.mark.slow


def test_a_run_answers_when_its_cluster_was_deleted(cluster: FakeCluster, tmp_path: Path) -> None:
    operator, folder = Operator(cluster), tmp_path / "runs" / "digits"
    folder.mkdir(parents=True)
    client = Client(kubeconfig=str(cluster.kubeconfig))
    digits = KubeRemote(client, "rayjob", "digits", tmp_path / "here", str(tmp_path))
    operator.send(annotations={RUN_FOLDER: str(folder)})
    operator.up(2)
    head = operator.pod("head")
    operator.submitter(ended={"exitCode": 5})
    operator.cluster.log(head, "ray-head", "I am the head")
    operator.cluster.log("digits-submitter", "ray-job-submitter", "step 1\nerror: step 2: not a number")
    operator.cluster.event("RayJob", "digits", "CreatedRayCluster", "made digits-x", type="Normal")
    operator.job("Failed", "FAILED", reason="AppFailed", message="driver failed with exit code 5.")
    before, why = list(digits.watch(timeout_s=5))[-1], digits.diagnose()
    for kind, name in (("RayJob", "digits"), ("RayCluster", "digits-x"), ("Job", "digits")):
        client.delete(kind, name)
    for pod in (head, "digits-submitter"):
        client.delete("Pod", pod)
    after = digits.status()
    assert (after.phase, after.reason, after.exit_code) == ("failed", before.reason, 5)
    lines = [line.text for line in digits.logs(follow=False, everything=False)]
    assert lines == ["step 1", "error: step 2: not a number"]
    every = {line.source: line.text for line in digits.logs(follow=False, everything=True)}
    assert every["digits-head/ray-head"] == "I am the head"
    assert "made digits-x" in every["events"]
    assert digits.diagnose().cause == why.cause
    with pytest.raises(LaunchError):
        list(KubeRemote(client, "rayjob", "other", storage=str(tmp_path)).logs(follow=False, everything=True))
