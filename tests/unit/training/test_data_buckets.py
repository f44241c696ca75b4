"""Buckets by length: another order of the same samples, still a function of seed, epoch and position."""

import numpy as np
import pytest

from raystack.config.data import Data
from raystack.training.data import BucketOrder, SampleOrder

GLOBAL = 8


def lengths(samples: int) -> list[int]:
    return [int(length) for length in np.random.default_rng(0).integers(1, 500, samples)]


def buckets(samples: int, batches: int, seed: int = 5) -> BucketOrder:
    return BucketOrder(SampleOrder(samples, seed), lengths(samples), GLOBAL, batches)


@pytest.mark.parametrize(("samples", "batches"), [(1, 1), (5, 3), (64, 2), (100, 3), (100, 50), (333, 4)])
def test_every_epoch_visits_every_sample_once(samples: int, batches: int) -> None:
    order = buckets(samples, batches)
    for epoch in range(4):
        assert sorted(order.at(np.arange(samples) + epoch * samples)) == list(range(samples))


def test_any_position_is_the_same_however_it_is_reached() -> None:
    whole = buckets(100, 3).at(np.arange(500))
    for start in (0, 1, 23, 99, 100, 101, 250, 499):
        assert buckets(100, 3).at(np.arange(start, 500)).tolist() == whole[start:].tolist()
    scattered = np.random.default_rng(1).permutation(500)
    assert buckets(100, 3).at(scattered).tolist() == whole[scattered].tolist()


def test_a_window_keeps_its_samples_and_changes_only_their_places() -> None:
    plain, order = SampleOrder(64, 5).at(np.arange(64)), buckets(64, 4).at(np.arange(64))
    assert sorted(plain[:32]) == sorted(order[:32])
    assert plain[:32].tolist() != order[:32].tolist()


def test_the_samples_of_a_batch_are_alike_and_the_batches_are_not_in_order() -> None:
    samples, length = 800, np.array(lengths(800))
    order = buckets(samples, 50)
    steps = length[order.at(np.arange(samples))].reshape(-1, GLOBAL)
    padded, plain = (
        steps.max(1).sum() * GLOBAL,
        length[SampleOrder(samples, 5).at(np.arange(samples))].reshape(-1, GLOBAL).max(1).sum() * GLOBAL,
    )
    assert padded < 1.05 * length.sum()
    assert plain > 1.5 * length.sum()
    assert (np.diff(steps, axis=1) >= 0).all()  # neighbours, which make one forward pass, are the most alike
    for window in (steps[:50, 0], steps[50:, 0]):
        assert abs(np.corrcoef(np.arange(len(window)), window)[0, 1]) < 0.4
    assert not np.array_equal(order.at(np.arange(samples)), order.at(np.arange(samples) + samples))
    assert not np.array_equal(
        order.at(np.arange(samples)), buckets(samples, 50, seed=6).at(np.arange(samples))
    )


def test_an_old_checkpoint_means_the_same_samples() -> None:
    order = BucketOrder(SampleOrder(10, 7), [9, 1, 8, 2, 7, 3, 6, 4, 5, 5], global_batch=2, batches=3)
    assert order.at(np.arange(12)).tolist() == [8, 9, 3, 5, 6, 0, 1, 7, 4, 2, 4, 0]


def test_buckets_and_the_datasets_own_order_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"bucket changes the order of the samples"):
        Data(bucket=4, shuffle=False)
