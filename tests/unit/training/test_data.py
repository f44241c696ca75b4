"""The sample order: every sample once per epoch, a function of position alone, on any number of workers."""

import numpy as np
import pytest

from raystack.plan.batch import Batch
from raystack.training.data import BatchPlan, MicroBatch, Permutation, SampleOrder
from raystack.training.data.batch_plan import split


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
    ("workers", "micro", "accumulation"),
    [(1, 12, 1), (1, 4, 3), (2, 6, 1), (2, 2, 3), (3, 2, 2), (4, 3, 1), (12, 1, 1)],
)
@pytest.mark.parametrize("total", [12, 31, 100, 97])
def test_the_workers_split_each_step_without_gap_or_overlap(
    workers: int, micro: int, accumulation: int, total: int
) -> None:
    batch = Batch(12, micro, accumulation, workers)
    schedules = [BatchPlan(batch, total, rank) for rank in range(workers)]
    for step in range(schedules[0].steps):
        by_worker = [schedule.micro_batches(step) for schedule in schedules]
        assert len({len(passes) for passes in by_worker}) == 1
        counted = [one for passes in by_worker for one in passes if one.weight]
        positions = [position for one in counted for position in range(one.start, one.stop)]
        assert positions == list(range(12 * step, min(12 * step + 12, total)))
        assert sum(one.weight for one in counted) == pytest.approx(workers)
    assert schedules[0].consumed(schedules[0].steps) == total


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_a_smaller_step_leaves_out_passes_that_no_worker_needs(workers: int, micro: int) -> None:
    full = 3 * micro * workers
    for size in range(1, full + 1):
        by_worker = [split(size, micro, workers, rank) for rank in range(workers)]
        assert {len(passes) for passes in by_worker} == {-(-size // (micro * workers))}
        assert all(counts for *_, counts in by_worker[0])
        sizes = [stop - start for passes in by_worker for start, stop, _ in passes]
        assert min(sizes) > 0
        assert max(sizes) <= micro
        # Padding repeats a pass that counts, so it can fail only where that one does.
        counted = {(start, stop) for passes in by_worker for start, stop, counts in passes if counts}
        assert {(start, stop) for passes in by_worker for start, stop, _ in passes} == counted
        if micro > 2:
            assert size < 2 or min(sizes) >= 2


def test_a_plan_goes_on_from_the_samples_consumed_whatever_the_steps_before_it_held() -> None:
    batch = Batch(32, 16, 1, 2)
    plan = BatchPlan(batch, 200, 0, first=4, origin=100)  # after an epoch of 100, whose last step had 4
    assert plan.steps == 8
    assert [plan.consumed(step) for step in range(4, 9)] == [100, 132, 164, 196, 200]
    assert plan.micro_batches(4) == [MicroBatch(100, 116, 1.0)]
    assert BatchPlan(batch, 100, 0, first=4, origin=100).steps == 4
