"""The sample order: every sample once per epoch, a function of position alone, on any number of workers."""

import numpy as np
import pytest

from raystack.plan.batch import Batch
from raystack.training.data import BatchPlan, Permutation, SampleOrder


@pytest.mark.parametrize("length", [1, 2, 3, 10, 64, 1000])
def test_a_permutation_visits_every_sample_once(length: int) -> None:
    assert sorted(Permutation(length, seed=7, epoch=0)(np.arange(length))) == list(range(length))


def test_the_order_is_a_function_of_seed_epoch_and_position() -> None:
    order = SampleOrder(length=10, seed=7)
    whole = order.at(np.arange(30))
    assert order.at(np.array([25, 3, 14])).tolist() == whole[[25, 3, 14]].tolist()
    assert whole[:10].tolist() != whole[10:20].tolist()
    assert whole[:10].tolist() != SampleOrder(length=10, seed=8).at(np.arange(10)).tolist()
    assert whole[:10].tolist() == [
        5,
        3,
        6,
        8,
        9,
        0,
        1,
        4,
        2,
        7,
    ]  # a checkpoint of an older version has to mean the same


def test_every_place_gets_every_sample_about_equally_often() -> None:
    counts = np.zeros((10, 10))
    for seed in range(2000):
        counts[np.arange(10), Permutation(10, seed, 0)(np.arange(10))] += 1
    assert counts.min() > 150
    assert counts.max() < 260


def test_without_shuffling_the_dataset_keeps_its_order() -> None:
    assert SampleOrder(length=3, seed=7, shuffle=False).at(np.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("workers", "micro", "accumulation"), [(1, 12, 1), (2, 6, 1), (3, 2, 2), (4, 3, 1), (12, 1, 1)]
)
@pytest.mark.parametrize("total", [12, 31, 100])
def test_the_workers_split_each_step_without_gap_or_overlap(
    workers: int, micro: int, accumulation: int, total: int
) -> None:
    batch = Batch(12, micro, accumulation, workers)
    schedules = [BatchPlan(batch, total, rank) for rank in range(workers)]
    for step in range(schedules[0].steps):
        micro_batches = [
            micro_batch for schedule in schedules for micro_batch in schedule.micro_batches(step)
        ]
        positions = [
            position
            for micro_batch in micro_batches
            for position in range(micro_batch.start, micro_batch.stop)
        ]
        assert positions == list(range(12 * step, min(12 * step + 12, total)))
        assert sum(micro_batch.weight for micro_batch in micro_batches) == pytest.approx(workers)
    assert schedules[0].consumed(schedules[0].steps) == total
