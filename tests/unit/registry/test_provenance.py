"""The run's page in MLflow says who, from which source and on which data; the model's says which run."""

import json
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from raystack import Experiment, config
from raystack.registry.provenance import source_tags, working_diff

pytestmark = pytest.mark.slow
TINY = Path(__file__).parents[2] / "tiny"


def git(folder: Path, *words: str) -> str:
    names = ("-c", "user.name=anna", "-c", "user.email=anna@example.com")
    return subprocess.check_output(["git", "-C", str(folder), *names, *words], text=True).strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The task in a repository of its own."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("task.py", "config.yaml"):
        (folder / name).write_bytes((TINY / name).read_bytes())
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a task")
    git(folder, "remote", "add", "origin", "https://anna:s3cret@example.com/models.git")
    return folder


def test_a_run_says_where_it_comes_from(folder: Path, tmp_path: Path) -> None:
    with (folder / "task.py").open("a") as file:
        file.write("# changed\n")
    (folder / "secret.txt").write_text("not known to git")
    store = tmp_path / "storage"
    named = [f"experiment.storage={store}", "tracking=local", "registry.model=tiny"]
    outcome = Experiment(folder / "config.yaml", *named).train(lambda event: None)
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    version = client.get_model_version("tiny", "1")
    run = client.get_run(str(version.run_id))
    kind = client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"
    tags = run.data.tags
    assert tags["mlflow.source.git.commit"] == git(folder, "rev-parse", "HEAD")
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert tags["mlflow.source.git.repoURL"] == "https://example.com/models.git"
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("task:Tiny", "LOCAL")
    assert tags["mlflow.user"]
    assert tags["raystack.folder"] == f"{store}/runs/{outcome.run_id}"
    diff = Path(client.download_artifacts(run.info.run_id, "git.diff", str(tmp_path))).read_text()
    assert "+# changed" in diff
    assert "not known to git" not in diff
    assert run.inputs is not None
    found = {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs}
    assert set(found) == {"train", "eval"}
    assert json.loads(str(found["eval"].profile)) == {"samples": 37}
    assert run.outputs is not None
    (model,) = run.outputs.model_outputs
    assert client.get_logged_model(model.model_id).source_run_id == run.info.run_id
    assert str(outcome.run_id) in str(version.description)
    assert "`y` to `x`" in str(client.get_registered_model("tiny").description)


def test_without_a_repository_there_is_no_word_of_git(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_bytes((TINY / "task.py").read_bytes())
    (tmp_path / "config.yaml").write_bytes((TINY / "config.yaml").read_bytes())
    alone = config.load(tmp_path / "config.yaml")
    assert not any("git" in name for name in source_tags(alone, "train", "/runs/x"))
    assert working_diff(alone) is None
