"""A prediction as a job of a Ray cluster that was started by itself."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from driver import TINY
from processes import Command
from started import started

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_job_predicts_where_its_cluster_is(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    pd.DataFrame({"id": range(50), "x": list(x)}).to_parquet(tmp_path / "data.parquet")
    storage, words = f"experiment.storage={tmp_path}", [sys.executable, "-m", "raystack"]
    trained = Command([*words, "train", str(TINY), storage, "--json"])
    assert trained.wait() == 0, trained.output
    (checkpoint,) = [line.split('"')[3] for line in trained.lines if '"checkpoint"' in line]
    with started() as cluster:
        place = ["target=job", f"target.address={cluster.dashboard}", storage, "resources.workers=1"]
        files = ["--in", str(tmp_path / "data.parquet"), "--out", str(tmp_path / "out")]
        submitted = Command(
            [*words, "predict", str(TINY), *files, "--model", checkpoint, "--keep", "id", "--wait", *place],
            cluster.environment,
        )
        assert submitted.wait(120) == 0, submitted.output
    assert "50 rows of 1 file, in 1 worker" in submitted.output  # the driver's own words
    assert "is succeeded" in submitted.output
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text())["complete"] is True
    assert pd.read_parquet(tmp_path / "out")["id"].tolist() == list(range(50))
