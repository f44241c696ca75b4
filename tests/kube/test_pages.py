"""What the pages tell a reader to type for Kubernetes does what they say, against the fake cluster."""

import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake import FakeCluster
from pages import ROOT, commands, on_kubernetes

pytestmark = pytest.mark.kube
NOW = "2026-01-01T00:00:00Z"
ELSEWHERE = ("raystack connect",)  # a port-forward leads to pods: test_submit.py
COMMANDS = [command for command in commands() if on_kubernetes(command) and not command.startswith(ELSEWHERE)]


@pytest.fixture
def operated(cluster: FakeCluster) -> Iterator[FakeCluster]:
    """A cluster in which every job succeeds and every service answers, soon after it was created."""
    over = threading.Event()

    def operate() -> None:
        while not over.wait(0.1):
            for job in cluster.all("RayJob"):
                if not job.get("status"):
                    name = job["metadata"]["name"]
                    cluster.set_status("RayJob", name, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "startTime": NOW})
            for service in cluster.all("RayService"):
                if not service.get("status"):
                    cluster.set_status("RayService", service["metadata"]["name"], _answering(service))

    thread = threading.Thread(target=operate)
    thread.start()
    yield cluster
    over.set()
    thread.join()


def _answering(service: dict[str, Any]) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": "", "lastTransitionTime": NOW}
    active = {"rayClusterName": "digits-x", "applicationStatuses": {"digits": {"status": "RUNNING"}}}
    return {"conditions": [ready], "activeServiceStatus": active, "observedGeneration": service["metadata"]["generation"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_for_kubernetes_does_what_its_page_says(command: str, operated: FakeCluster, tmp_path: Path) -> None:
    here = command.replace(" config.yaml", " kuberay/config.yaml").replace("deploy/", f"{tmp_path}/deploy/")
    words = [str(file) for word in shlex.split(here) for file in (sorted(ROOT.glob(word)) if "*" in word and "=" not in word else [word])]
    where = {"KUBECONFIG": str(operated.kubeconfig), "KUBECACHEDIR": str(tmp_path), "RAYSTACK_IMAGE": "example.com/raystack:2.60.0"}
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **where}, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    if command.startswith("raystack doctor"):
        assert done.returncode == 4
        assert "error: PersistentVolumeClaim raystack: not in namespace default; create it" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    said = done.stdout
    match words[:2]:
        case ["kubectl", "apply"]:
            assert re.search(r"(created|serverside-applied)$", said, re.MULTILINE)
        case ["raystack", "render"] if "-o" in words:
            assert said
            assert all(Path(line).is_file() for line in said.splitlines())
        case ["raystack", "render"]:
            assert re.search(r"^kind: Ray(Job|Service)$", said, re.MULTILINE)
        case ["raystack", "train"] if "--dry-run" in words:
            assert re.search(r"^needs +KubeRay [\d.]+ or later", said, re.MULTILINE)
        case ["raystack", "train"] if "cron" in command:
            assert operated.get("RayCronJob", "digits-cron") is not None
        case ["raystack", "train"]:
            assert operated.all("RayJob")
            assert "--wait" not in words or re.match(r"rayjob/digits-\S+ is succeeded", said)
        case ["raystack", "serve"]:
            assert operated.get("RayService", "digits") is not None
            assert "--wait" not in words or "rayservice/digits is running" in done.stderr
        case _:
            assert words[:2] == ["raystack", "lint"]
            assert said == ""
