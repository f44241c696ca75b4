"""Code that fits into no ConfigMap: `render` uploads it, or names nothing that nobody uploads."""

from pathlib import Path

import fsspec
import pytest
import yaml

from raystack.cli.main import main

CONFIG = """\
experiment: {name: demo, storage: "s3://large-code/demo"}
task: {entry: "task:Demo", folder: code}
training: {steps: 10, batch: {global: 48}}
resources: {workers: 4}
tracking: {uri: "http://mlflow.ml.svc:5000"}
target: {kind: kuberay, image: "registry.example.com/raystack:1", storage: {s3_secret: s3}}
"""


@pytest.fixture
def config(tmp_path: Path, object_store: object) -> str:
    """A config whose task has a large file, and an empty bucket."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "task.py").write_text("class Demo: ...\n")
    (code / "weights.bin").write_bytes(bytes(950 * 1024))
    (tmp_path / "config.yaml").write_text(CONFIG)
    fsspec.filesystem("s3").mkdir("large-code")
    return str(tmp_path / "config.yaml")


def test_large_code_is_uploaded_or_refused(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", config]) == 3
    shown = capsys.readouterr()
    assert "task.folder: is fetched by the pods from s3://large-code/demo/bundles/" in shown.err
    assert "add --upload" in shown.err
    assert shown.out == ""
    assert main(["render", config, "--upload"]) == 0
    *_, job = yaml.safe_load_all(capsys.readouterr().out)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    url = head["initContainers"][0]["command"][-2]
    assert fsspec.filesystem("s3").exists(url)
