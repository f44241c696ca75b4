"""Predictions by actors of Ray Data: as in one process, also if a worker is lost or a row fails."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from driver import TINY

from raystack import Experiment
from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.errors import LaunchError, ServingError
from raystack.events import PredictionEvent, PredictionHalted
from raystack.plan.prediction import OnError
from raystack.task import Signature, TensorSpec

pytestmark = pytest.mark.ray
ROWS = 120
CODE = """
import os, signal
from pathlib import Path
from torch import nn

class Task:
    signature = None
    def __init__(self, ledger): self.ledger = Path(ledger)
    def model(self): return nn.Linear(2, 1)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        x = inputs["x"]
        with (self.ledger / f"{os.getpid()}.txt").open("a") as file:
            file.write(f"{len(x)}\\n")
        if bool((x == 13).any()): raise ValueError("a bad sample")
        if bool((x == 99).any()) and not (self.ledger / "killed").exists():
            (self.ledger / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if bool((x == 66).any()): os.kill(os.getpid(), signal.SIGKILL)
        return {"y": model(x)}
"""
Run = Callable[..., pd.DataFrame]


@pytest.fixture
def predict(tmp_path: Path, ray_cluster: str) -> Run:
    """Predicts rows, of which some have a number of their own, and returns the output."""
    code, folder = tmp_path / "code", tmp_path / "model"
    for made in (code, folder, tmp_path / "ledger"):
        made.mkdir()
    (code / "predicted_task.py").write_text(CODE)
    signature = Signature((TensorSpec("x", "float32", (-1, 2)),), (TensorSpec("y", "float32", (-1, 1)),))
    args = {"ledger": str(tmp_path / "ledger")}
    write_spec(folder, ModelSpec("predicted_task:Task", args, signature, "demo-1", 1, {}), pack(code))
    torch.manual_seed(0)
    write_weights(folder, torch.nn.Linear(2, 1).state_dict())
    x = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)

    def run(
        out: str,
        *overrides: str,
        marks: dict[int, int],
        events: list[PredictionEvent],
        on_error: OnError = "fail",
    ) -> pd.DataFrame:
        rows = x.copy()
        for row, mark in marks.items():
            rows[row, 0] = mark
        file = tmp_path / f"{out}.parquet"
        pd.DataFrame({"id": range(ROWS), "x": list(rows)}).to_parquet(file)
        experiment = Experiment(
            TINY,
            f"serving.model={folder}",
            f"experiment.storage={tmp_path}",
            "predict={batch: 8, part_rows: 16}",
            f"target.address={ray_cluster}",
            *overrides,
        )
        experiment.predict(file, tmp_path / out, on_event=events.append, on_error=on_error)
        return pd.read_parquet(tmp_path / out)

    return run


def test_two_workers_write_what_one_process_writes_also_if_one_of_them_is_lost(
    predict: Run, tmp_path: Path
) -> None:
    alone = predict("alone", "resources=inline", marks={}, events=[])
    ours = {path.name for path in (tmp_path / "ledger").iterdir()}
    two = predict("two", "resources.workers=2", marks={}, events=[])
    pd.testing.assert_frame_equal(two, alone)
    theirs = {path.name for path in (tmp_path / "ledger").iterdir()} - ours
    assert theirs, "other processes did it"
    lossy = predict("lossy", "resources.workers=2", marks={50: 99}, events=[])
    assert (tmp_path / "ledger" / "killed").exists()
    assert lossy["id"].tolist() == list(range(ROWS))
    others = [row for row in range(ROWS) if row != 50]
    assert lossy["y"].iloc[others].tolist() == alone["y"].iloc[others].tolist()


def test_a_row_that_fails_on_a_worker_is_named_or_skipped(predict: Run, tmp_path: Path) -> None:
    events: list[PredictionEvent] = []
    with pytest.raises(ServingError, match=r"out\.parquet, row 77: task: the task raised: ValueError: a bad"):
        predict("out", "resources.workers=1", marks={77: 13}, events=events)
    halted = events[-1]
    assert isinstance(halted, PredictionHalted)
    assert halted.kept == len(pd.read_parquet(tmp_path / "out"))
    assert halted.kept >= 64, "four parts of 16 rows came before"
    found = predict("skipped", "resources.workers=1", marks={77: 13}, events=[], on_error="skip")
    assert found["id"].tolist() == [row for row in range(ROWS) if row != 77]
    (line,) = (tmp_path / "skipped" / "_skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 77


def test_a_row_that_ends_every_worker_is_no_endless_loop(predict: Run) -> None:
    with pytest.raises(ServingError, match="workers are lost again and again"):
        predict("out", "resources.workers=1", marks={20: 66}, events=[])


def test_a_cluster_without_room_is_told_at_once(predict: Run) -> None:
    with pytest.raises(LaunchError, match=r"resources\.workers: the cluster has 4 CPU in all"):
        predict("out", "resources.workers=9", marks={}, events=[])
