"""Metrics are exact however the eval data is split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from raystack.code.loading import load
from raystack.config.task import Task as TaskConfig
from raystack.config.training import Data
from raystack.errors import TrainingError
from raystack.task import MapDataset
from raystack.training.data import eval_batches
from raystack.training.evaluate import evaluate
from raystack.training.world import World

TINY = Path(__file__).parents[2] / "tiny"
ALONE = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("workers", [1, 2, 5, 40])
@pytest.mark.parametrize("size", [1, 8, 64])
def test_every_sample_counts_once_and_all_workers_get_as_many_batches(workers: int, size: int) -> None:
    task = load(TaskConfig(entry="task:Tiny", folder=str(TINY)))
    data = cast(MapDataset, task.eval_data())
    parts = [
        list(eval_batches(task, data, size, rank, workers, Data(), 3, pin=False)) for rank in range(workers)
    ]
    assert len({len(part) for part in parts}) == 1
    ids = [int(index) for part in parts for batch, count in part for index in batch[2][:count]]
    assert sorted(ids) == list(range(37))


def test_a_metric_of_the_wrong_shape_is_refused() -> None:
    class Wrong:
        def metrics(self, model: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": batch.mean()}

    def batches() -> Iterator[tuple[Any, int]]:
        yield torch.zeros(4), 4

    with pytest.raises(
        TrainingError,
        match=r"task: metrics\['loss'\]: .* shape \[4\], one value per sample.* \(got shape \[\]\)",
    ):
        evaluate(Wrong(), nn.Identity(), batches(), ALONE)  # type: ignore[arg-type]
