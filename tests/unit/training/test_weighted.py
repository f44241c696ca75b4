"""Samples drawn by their weights: as often as the weights say, and the same ones whatever else is changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from begun_workers import lines, planned, run

from raystack.checkpoint import CheckpointStore
from raystack.errors import ConfigError
from raystack.training.data import BucketOrder, WeightedOrder

WEIGHTED = "training.data.weighted=true"


def order(count: int = 10, seed: int = 3) -> WeightedOrder:
    return WeightedOrder([float(index) for index in range(count)], seed)


def test_samples_come_as_often_as_their_weights_say() -> None:
    drawn = np.bincount(order().at(np.arange(90_000)), minlength=10)
    assert drawn[0] == 0  # its weight is 0
    # Binomial: 2,000 draws or more of each, so five standard deviations are below 12 %.
    assert drawn[1:] / 90_000 * 45 == pytest.approx(np.arange(1, 10), rel=0.12)
    last = WeightedOrder([0.0, 1.0, 0.0], 3).at(np.arange(1000))
    assert set(last.tolist()) == {1}


def test_each_position_is_drawn_by_itself() -> None:
    positions = np.arange(5000, 6000)
    whole = order().at(np.arange(6000))[5000:]
    assert np.array_equal(order().at(positions), whole)
    assert np.array_equal(order().at(positions[::-1])[::-1], whole)
    assert not np.array_equal(order(seed=4).at(positions), whole)
    # An epoch is not a permutation, and is another one each time.
    epochs = order().at(np.arange(20)).reshape(2, 10)
    assert len(set(epochs[0].tolist())) < 10
    assert epochs[0].tolist() != epochs[1].tolist()


def test_buckets_keep_the_draws_of_their_window() -> None:
    drawn, lengths = WeightedOrder([1.0, 2.0, 3.0, 4.0] * 8, 3), list(range(32))
    bucketed = BucketOrder(drawn, lengths, global_batch=4, batches=4)
    for window in (np.arange(16), np.arange(16, 32), np.arange(32, 48)):
        assert sorted(bucketed.at(window)) == sorted(drawn.at(window))


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_draws_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    whole = run(tmp_path, WEIGHTED, "training={epochs: null, steps: 10}", name="whole")
    assert whole
    for steps in (4, 10):
        run(tmp_path, WEIGHTED, f"training={{epochs: null, steps: {steps}}}", name="halves")
    drawn = [[line["samples"] for line in lines(tmp_path, "0", name)] for name in ("whole", "halves")]
    noise = [[line["drawn"] for line in lines(tmp_path, "0", name)] for name in ("whole", "halves")]
    assert drawn[0] == drawn[1]
    assert noise[0] == noise[1]
    flat = [index for samples in drawn[0] for index in samples]
    assert len(flat) == 80
    assert not any(index % 4 == 0 for index in flat)  # their weight is 0
    assert len(set(flat)) < 40

    (*_, last) = CheckpointStore(planned(tmp_path, run="halves").paths.checkpoints).manifests()
    assert last.weighted
    with pytest.raises(ConfigError, match=r"keeps its training.data.weighted, which was true \(got false\)"):
        run(tmp_path, "training={epochs: null, steps: 12}", name="halves")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.data.shuffle=false"], r"weighted draws the samples, and shuffle=false keeps"),
        (["task.args.bare=true"], r"training.data.weighted: needs samples by index and their weights"),
        (["task.args.change={weights: [1.0, 2.0]}"], r"`weights` has one entry for each of 40 .*\(got 2\)"),
        (["task.args={count: 2, change: {weights: [1.0, -2.0]}}"], r"not negative \(got -2.0 for sample 1\)"),
        (["task.args={count: 2, change: {weights: [0.0, 0.0]}}"], r"a sum above 0 \(got 0.0\)"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, WEIGHTED, *overrides)
    assert not lines(tmp_path, "0")


@pytest.mark.slow
def test_weights_that_are_not_asked_for_have_no_effect(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"as they are": "{}", "none": "{weights: null}"}
    for name, change in changes.items():
        run(tmp_path, f"task.args.change={change}", name=name.replace(" ", "-"))
    assert lines(tmp_path, "0", "as-they-are") == lines(tmp_path, "0", "none")
