"""What was left of a run and those nested in it is sent by a later one."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from raystack.registry.command import STATUS_TAG, Command, End, Metrics, Params, Run, Tags
from raystack.registry.replay import replay
from raystack.registry.spool import Spool
from raystack.registry.store import Store

pytestmark = pytest.mark.slow


def test_a_nested_run_finds_the_run_whose_own_commands_had_been_sent(
    tmp_path: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = Run(
        tracking_uri=uri, experiment="e", run_id="r", artifacts=None, tags={}, started_ms=0, name="study"
    )
    nested = run.model_copy(update={"run_id": "r-1", "parent": "r", "name": None})
    commands: list[Command] = [
        Params(values={"lr": "0.1"}),
        Metrics(points=(("eval/accuracy", 0.5, 1, 5),), once=True),
        Tags(values={STATUS_TAG: "pruned"}),
        End(status="KILLED", ended_ms=1),
    ]
    store = Store(uri, None)
    parent = store.open(run)
    spool = Spool(tmp_path / "spool", run)
    spool.append([(nested, command) for command in commands])
    spool.close()
    (path,) = (tmp_path / "spool").iterdir()
    left, notes = path.read_bytes(), list[str]()

    assert replay(tmp_path / "spool", uri, store.open, notes.append) == []
    assert not path.exists()
    path.write_bytes(left)  # as if the process that sent it had ended before it could delete it
    assert replay(tmp_path / "spool", uri, store.open, notes.append) == []

    client = MlflowClient(uri)
    runs = {run.info.run_name: run for run in client.search_runs([parent.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {"study": "RUNNING", "r-1": "KILLED"}
    sent = runs["r-1"]
    assert sent.data.tags[MLFLOW_PARENT_RUN_ID] == parent.id
    assert (sent.data.params, sent.data.tags[STATUS_TAG]) == ({"lr": "0.1"}, "pruned")
    points = client.get_metric_history(sent.info.run_id, "eval/accuracy")
    assert [(point.step, point.value) for point in points] == [(5, 0.5)]
    assert notes == ["MLflow now has what it had not got of run r: 4 commands"] * 2
