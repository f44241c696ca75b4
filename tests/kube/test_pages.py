"""What the pages tell a reader to type for Kubernetes does what they say, against the fake cluster, in a new
home folder.

kuberay/README.md is typed from top to bottom as well. What installs an operator or builds an image needs a
real cluster and a registry: of `helm` and `docker` the files are looked at.
"""

import os
import re
import shlex
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake import FakeCluster
from pages import ROOT, commands, on_kubernetes

pytestmark = [pytest.mark.kube, pytest.mark.slow]
NOW = "2026-01-01T00:00:00Z"
PAGE = ROOT / "kuberay" / "README.md"
ELSEWHERE = ("raystack connect",)  # a port-forward leads to pods: test_submit.py
COMMANDS = [command for command in commands() if on_kubernetes(command) and not command.startswith(ELSEWHERE)]


@pytest.fixture
def operated(cluster: FakeCluster) -> Iterator[FakeCluster]:
    """A cluster in which every job succeeds and every service answers, soon after it was created."""
    over = threading.Event()
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "raystack"}}
    cluster.put({**claim, "spec": {}})  # of kuberay/storage.yaml

    def operate() -> None:
        while not over.wait(0.1):
            for job in cluster.all("RayJob"):
                if not job.get("status"):
                    name = job["metadata"]["name"]
                    cluster.set_status(
                        "RayJob",
                        name,
                        {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "startTime": NOW},
                    )
            for service in cluster.all("RayService"):
                if not service.get("status"):
                    cluster.set_status("RayService", service["metadata"]["name"], _answering(service))

    thread = threading.Thread(target=operate)
    thread.start()
    yield cluster
    over.set()
    thread.join(10)


def _answering(service: dict[str, Any]) -> dict[str, Any]:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "NonZeroServeEndpoints",
        "message": "",
        "lastTransitionTime": NOW,
    }
    active = {"rayClusterName": "digits-x", "applicationStatuses": {"digits": {"status": "RUNNING"}}}
    return {
        "conditions": [ready],
        "activeServiceStatus": active,
        "observedGeneration": service["metadata"]["generation"],
    }


class Reader:
    """Somebody with a new home folder, in which there is the kubeconfig of a cluster."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        home = folder / "home"
        (home / ".kube").mkdir(parents=True)
        shutil.copy(cluster.kubeconfig, home / ".kube" / "config")
        own = {"HOME": str(home)}
        foreign = ("KUBE", "RAY_", "RAYSTACK_STORAGE")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            **own,
        }

    def type(self, command: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run it in the checkout, to its end. Where a page is about a folder of its own, the file is found
        all the same.
        """
        own = "tuning.yaml" if command.startswith("raystack tune") else "config.yaml"
        here = command.replace(" config.yaml", f" kuberay/{own}").replace("deploy/", f"{self.folder}/deploy/")
        words = [
            str(file)
            for word in shlex.split(here)
            for file in (sorted(ROOT.glob(word)) if "*" in word and "=" not in word else [word])
        ]
        done = subprocess.run(
            words, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == status, done.stderr
        if status == 0:
            self._look(command, words, done)
        return done

    def _look(self, command: str, words: list[str], done: "subprocess.CompletedProcess[str]") -> None:
        said, cluster = done.stdout, self.cluster
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
                assert cluster.get("RayCronJob", "digits-cron") is not None
            case ["raystack", "train" | "tune"]:
                assert cluster.all("RayJob")
                assert "--wait" not in words or re.match(r"rayjob/digits-\S+ is succeeded", said)
            case ["raystack", "serve"]:
                assert cluster.get("RayService", "digits") is not None
                assert "--wait" not in words or "rayservice/digits is running" in done.stderr
            case _:
                assert words[:2] in (["raystack", "lint"], ["raystack", "doctor"])
                assert said == "" or words[1] == "doctor"


@pytest.fixture
def reader(operated: FakeCluster, tmp_path: Path) -> Reader:
    return Reader(operated, tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_for_kubernetes_does_what_its_page_says(command: str, reader: Reader) -> None:
    if command.startswith("raystack doctor"):
        reader.cluster.delete("PersistentVolumeClaim", "raystack")
        done = reader.type(command, status=4)
        assert "error: PersistentVolumeClaim raystack: not in namespace default; create it" in done.stderr
    else:
        reader.type(command)


def test_the_page_leads_from_nothing_to_a_served_model(reader: Reader) -> None:
    for command in commands([PAGE]):
        match shlex.split(command):
            case ["helm", "repo", "add", "kuberay", address]:
                assert address.startswith("https://")
            case ["helm", "upgrade", *words]:
                values = yaml.safe_load((ROOT / words[words.index("-f") + 1]).read_text())
                assert values["resources"]
            case ["docker", "build", "-f", file, *_, folder]:
                _look_at_image(ROOT / file, ROOT / folder)
            case ["docker", "push", image]:
                assert f"-t {image} " in PAGE.read_text()
            case ["raystack", "connect", reference]:
                assert reader.cluster.get("RayService", reference.removeprefix("rayservice/")) is not None
            case _:
                reader.type(command)


def _look_at_image(file: Path, folder: Path) -> None:
    """Whatever is copied is there, and whatever extras are installed are known."""
    text = file.read_text()
    sources = [
        source
        for line in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", text, re.MULTILINE)
        for source in line.split()
    ]
    assert sources
    assert all((folder / source).exists() for source in sources)
    extras = re.search(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)
    assert extras is not None
    known = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(known)
