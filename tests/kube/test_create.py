"""A schedule's pod creates the RayJob of a real config, once, and says why where it may not."""

from pathlib import Path

import pytest
import yaml
from fake import FakeCluster

from raystack.code.bundle import Bundle
from raystack.config import load
from raystack.kuberay.inpod import create
from raystack.kuberay.manifest import render
from raystack.plan import plan_kuberay

pytestmark = pytest.mark.kube

EXAMPLE = Path(__file__).parents[2] / "examples" / "05_kubernetes" / "cron.yaml"


@pytest.fixture
def file(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the pod finds, beside a kubeconfig that leads to the fake."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    manifests = render(plan_kuberay(load(EXAMPLE), "digits-1", "cron"), Bundle({"config.yaml": b"a: 1\n"}))
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}})
    file = tmp_path / "rayjob.yaml"
    file.write_text(manifests[-2]["data"]["rayjob.yaml"])
    return file


def test_a_pod_that_is_tried_again_makes_no_second_job(
    cluster: FakeCluster, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [create.main([str(file), "digits-29400000"]) for _ in range(2)] == [0, 0]
    found = cluster.get("RayJob", "digits-29400000", "ml")
    assert found is not None
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert found["metadata"]["generation"] == 1
    assert "rayjob/digits-29400000 is created" in capsys.readouterr().err


def test_what_is_refused_ends_the_pod_with_its_reason(
    cluster: FakeCluster, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = yaml.safe_load(file.read_text())
    wanted["spec"]["rayClusterSpec"]["headGroupSpek"] = {}
    file.write_text(yaml.safe_dump(wanted))
    assert create.main([str(file), "digits-29400001"]) == 4
    assert "headGroupSpek" in capsys.readouterr().err
    assert cluster.get("RayJob", "digits-29400001", "ml") is None
