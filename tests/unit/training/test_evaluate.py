"""Metrics are exact however the eval data is split."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from raystack.code.loading import load
from raystack.config.data import Data
from raystack.config.task import Task as TaskConfig
from raystack.errors import TrainingError
from raystack.task import MapDataset
from raystack.training.data import eval_batches
from raystack.training.evaluate import evaluate, sums
from raystack.training.meters import MeterSet
from raystack.training.world import World

TINY = Path(__file__).parents[2] / "tiny"
ALONE = World(0, 1, torch.device("cpu"))
NONE = MeterSet(load(TaskConfig(entry="task:Tiny", folder=str(TINY))), ALONE, None)


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
        evaluate(Wrong(), nn.Identity(), batches(), ALONE, NONE)  # type: ignore[arg-type]


class Recalls:
    """Recall of each class that a batch has; a class that none has is counted 0 of 0 at the end."""

    def metrics(self, model: nn.Module, batch: torch.Tensor) -> dict[str, Any]:
        found = {f"recall_{int(one)}": ((batch == one).sum(), (batch == one).sum()) for one in batch.unique()}
        return {**found, "recall_9": (0, 0), "positive": batch > 0, "whole": batch.int()}


def test_metrics_are_told_apart_by_name_and_one_of_nothing_is_nan() -> None:
    batches = iter([(torch.tensor([2, 1, 1]), 3), (torch.tensor([3, 1]), 2), (torch.tensor([7]), 0)])
    found = evaluate(Recalls(), nn.Identity(), batches, ALONE, NONE)  # type: ignore[arg-type]
    assert math.isnan(found.pop("eval/recall_9"))
    assert found == {
        "eval/positive": 1.0,
        "eval/recall_1": 1.0,
        "eval/recall_2": 1.0,
        "eval/recall_3": 1.0,
        "eval/whole": 8 / 5,
    }


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (0.5, r"task: metrics: metrics returns a mapping from names to values \(got float\)"),
        ({1: torch.zeros(4)}, r"task: metrics: metrics returns a mapping"),
        ({"f1": 0.5}, r"task: metrics\['f1'\]: .* one value per sample, or a pair .* \(got float\)"),
        ({"f1": (1, 2, 3)}, r"task: metrics\['f1'\]: .* \(got tuple\)"),
        ({"f1": torch.zeros(4, 1)}, r"task: metrics\['f1'\]: .* \(got shape \[4, 1\]\)"),
    ],
)
def test_what_is_no_metric_is_refused_by_name(metrics: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        sums(metrics, 4, NONE)
