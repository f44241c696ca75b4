"""A real Ray dataset: each row once per epoch, in order, on any number of workers, and the same losses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from raystack.config.data import Data
from raystack.config.training import Batch as BatchConfig
from raystack.config.training import Training
from raystack.events import Event, Stepped
from raystack.training.data import open_train_data, size

pytestmark = pytest.mark.ray

ROWS = 90
TASK = f"""
import os
from pathlib import Path

import ray
import torch
from torch import nn

from raystack.task import Signature, TensorSpec


class Rows:
    signature = Signature((TensorSpec("x", "float32", (-1, 1)),), (TensorSpec("y", "float32", (-1, 1)),))

    def __init__(self, ledger):
        self.ledger = Path(ledger)

    def model(self):
        return nn.Linear(1, 1)

    def train_data(self):
        rows = ray.data.range({ROWS}, override_num_blocks=4)
        return rows.map(lambda row: {{"id": row["id"], "x": row["id"] / {ROWS}}})

    def eval_data(self):
        return ray.data.range(7)

    def loss(self, model, batch):
        with (self.ledger / f"{{os.getpid()}}.txt").open("a") as file:
            file.write(" ".join(str(int(number)) for number in batch["id"]) + "\\n")
        return (model(batch["x"].float()[:, None]) - 1).pow(2).mean()

    def metrics(self, model, batch):
        return {{"number": batch["id"].float()}}

    def predict(self, model, inputs):
        return {{"y": model(inputs["x"])}}
"""
CONFIG = """
defaults: [resources: inline, strategy: ddp, tracking: "off", _self_]
experiment: {name: rows, seed: 3}
task: {entry: "rows_task:Rows"}
training:
  epochs: 2
  batch: {global: 16}
  data: {shuffle: false}
  log_every_steps: 1
"""


def test_the_rows_come_in_order_from_any_position(ray_cluster: str) -> None:
    import ray

    training = Training(steps=1, batch=BatchConfig(micro=1), data=Data(shuffle=False))
    opened = open_train_data(
        ray.data.range(500, override_num_blocks=7).map_batches(lambda batch: batch), training
    )
    assert size(opened) == 500
    for start in (0, 1, 123, 499):
        assert [int(row["id"]) for row in opened.stream(start)] == list(range(start, 500))  # type: ignore[union-attr]


def test_two_workers_consume_each_row_once_per_epoch_with_the_losses_of_one(
    tmp_path: Path, ray_cluster: str
) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "rows_task.py").write_text(TASK)
    (tmp_path / "task" / "config.yaml").write_text(CONFIG)
    train = _train_in(tmp_path)
    alone = train("alone")
    two = train("two", "resources.workers=2", f"target.address={ray_cluster}")
    assert two == pytest.approx(alone, rel=1e-5)
    assert len(alone) == 12
    for ledger in ("alone", "two"):
        lines = [file.read_text().split("\n")[:-1] for file in (tmp_path / ledger).iterdir()]
        consumed = [int(number) for worker in lines for line in worker for number in line.split()]
        # The last step's 4 rows are two for each worker, so no row is read again as padding.
        assert sorted(consumed) == sorted([*range(ROWS)] * 2)


def _train_in(folder: Path) -> Callable[..., dict[int, float]]:
    from raystack.config import load
    from raystack.plan import plan_training
    from raystack.training.driver.fit import fit

    def train(name: str, *overrides: str) -> dict[int, float]:
        (folder / name).mkdir()
        config = [f"experiment.storage={folder}", f"task.args.ledger={folder / name}", *overrides]
        events: list[Event] = []
        fit(plan_training(load(folder / "task" / "config.yaml", config), name), events.append, resume=False)
        return {event.step: event.metrics["train/loss"] for event in events if isinstance(event, Stepped)}

    return train
