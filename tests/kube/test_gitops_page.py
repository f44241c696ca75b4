"""docs/gitops.md, typed from top to bottom in an empty repository: bundles are committed, pushed and applied,
and a promotion is a commit.
"""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake import FakeCluster
from pages import ROOT

from raystack import Experiment
from raystack.cli.main import main
from raystack.registry.audit import Move
from raystack.registry.gates import GateReport, Promotion

pytestmark = [pytest.mark.kube, pytest.mark.slow]
PAGE = (ROOT / "docs" / "gitops.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip().partition("  #")[0]
    for line in re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL).splitlines()
    if line.startswith("    ")
]


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def reader(in_process: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """Somebody in an empty repository, whose config has what the page says, and whose cluster has Argo CD;
    MLflow is not asked.
    """
    settings = {"kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "argocd"}}
    in_process.put({"apiVersion": "v1", **settings, "data": {"url": "https://argocd.example.com"}}, "helm")
    for key, value in (("NAME", "a"), ("EMAIL", "a@example.com")):
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    git("init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git("clone", "--quiet", "origin.git", "repository")
    monkeypatch.chdir(tmp_path / "repository")
    wanted = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0])
    config = yaml.safe_load((ROOT / "kuberay" / "config.yaml").read_text(encoding="utf-8"))
    config["task"]["folder"] = str(ROOT / "examples" / "01_digits")
    config["serving"]["model"] = "models:/digits/7"
    config["target"] |= {**wanted["target"], "image": f"registry.example.com/raystack@sha256:{'0' * 64}"}
    Path("config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def promote(_: Experiment, version: str | None, *, why: str, **__: Any) -> Promotion:
        moved = Move(0.0, "promoted", "digits", "champion", str(version), "7", "anna", why)
        return Promotion(GateReport(f"models:/digits/{version}", ()), moved)

    monkeypatch.setattr(Experiment, "promote", promote)
    return in_process


def test_the_page_leads_from_an_empty_folder_to_a_promotion(
    reader: FakeCluster, kubectl: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in COMMANDS:
        for words in (shlex.split(each) for each in command.split(" && ")):
            match words[0]:
                case "raystack":
                    assert main(words[1:]) == 0, capsys.readouterr().err
                case "git":
                    git(*(["push", "--quiet", "origin", "HEAD"] if words[1:] == ["push"] else words[1:]))
                case "kubectl":
                    kubectl(*words[1:])
                case other:
                    assert other == "helm", command
                    assert Path(words[4], "Chart.yaml").is_file(), "it is tried by hand"
    applications = {each["metadata"]["name"]: each["spec"]["source"] for each in reader.all("Application")}
    assert {name: source["path"] for name, source in applications.items()} == {
        "digits-job": "deploy/train",
        "digits": "deploy/serve",
    }
    assert "namespace/ml" not in capsys.readouterr().err
    pushed = git("--git-dir", "../origin.git", "log", "-2", "--format=%s").splitlines()
    assert pushed == ["Serve version 8 of digits instead of 7", "Train and serve"]
    kubectl("apply", "--server-side", "-f", "deploy/serve/argo-health.yaml")
    settings = (reader.get("ConfigMap", "argocd-cm", "argocd") or {})["data"]
    assert {"url", "resource.customizations.health.ray.io_RayService"} <= settings.keys()
    for folder in ("deploy/train", "deploy/serve"):
        assert "kind: Ray" in kubectl("kustomize", folder).stdout
