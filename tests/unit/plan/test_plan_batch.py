"""Batch arithmetic over a grid: every triple is satisfied exactly, or refused with the nearest ones that are
possible.
"""

import itertools
import re

import pytest

from raystack.config.training import Batch as BatchConfig
from raystack.errors import PlanError
from raystack.plan.batch import Batch, plan_batch

SIZES = (None, 1, 2, 3, 4, 6, 7, 12, 16)


def asked(global_: int | None, micro: int | None, accumulation: int | None) -> BatchConfig:
    return BatchConfig.model_validate({"global": global_, "micro": micro, "accumulation": accumulation})


def possible(micro: int | None, accumulation: int | None, workers: int) -> list[int]:
    """By trying: the global batches that can be made of what is given. With nothing given,
    accumulation is 1.
    """
    tried = range(1, 20)
    micros = tried if micro is None else [micro]
    accumulations = tried if accumulation is None and micro is not None else [accumulation or 1]
    return sorted({m * a * workers for m in micros for a in accumulations})


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_every_triple_is_satisfied_or_refused_with_the_nearest(workers: int) -> None:
    for global_, micro, accumulation in itertools.product(SIZES, SIZES, SIZES):
        config = asked(global_, micro, accumulation)
        if global_ is None and micro is None:
            with pytest.raises(PlanError, match="global or micro has to be given"):
                plan_batch(config, workers)
        elif global_ is None or global_ in possible(micro, accumulation, workers):
            batch = plan_batch(config, workers)
            assert batch.global_ == batch.micro * batch.accumulation * workers
            assert batch.workers == workers
            assert batch.global_ == global_ or global_ is None
            assert batch.micro == micro or micro is None
            assert batch.accumulation == accumulation or accumulation is None
        else:
            with pytest.raises(PlanError) as refused:
                plan_batch(config, workers)
            named = [int(size) for size in re.findall(r"training\.batch\.global=(\d+)", str(refused.value))]
            sizes = possible(micro, accumulation, workers)
            below, above = (
                [size for size in sizes if size < global_],
                [size for size in sizes if size > global_],
            )
            assert named == [*below[-1:], *above[:1]]
            for size in named:
                plan_batch(asked(size, micro, accumulation), workers)


def test_the_refusal_says_what_was_given() -> None:
    with pytest.raises(PlanError) as refused:
        plan_batch(asked(100, 8, None), 3)
    assert (
        str(refused.value)
        == "training.batch: global has to be a multiple of micro 8 x 3 workers (got global 100); "
        "nearest: training.batch.global=96 or training.batch.global=120"
    )


def test_what_is_left_out_is_worked_out() -> None:
    assert plan_batch(asked(64, None, None), 2) == Batch(global_=64, micro=32, accumulation=1, workers=2)
    assert plan_batch(asked(64, 8, None), 2) == Batch(global_=64, micro=8, accumulation=4, workers=2)
    assert plan_batch(asked(64, None, 4), 2) == Batch(global_=64, micro=8, accumulation=4, workers=2)
    assert plan_batch(asked(None, 8, 4), 2) == Batch(global_=64, micro=8, accumulation=4, workers=2)
