"""Seeds: the same numbers for the same tuple, others for another one, and a draw of any generator is seen."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from raystack.training.seeds import drawn_since, mixed, seed_host


def draws() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_numbers_are_a_function_of_what_they_are_for() -> None:
    seen = []
    for position in [*range(1000), *range(1000)]:
        seed_host(mixed(7, position))
        seen.append(draws())
    assert seen[:1000] == seen[1000:]
    columns = np.array(seen[:1000]).T
    assert all(len(set(column)) == 1000 for column in columns)
    # Uniform, and one generator's numbers say nothing about another's or about those of the next position.
    assert columns.mean(1) == pytest.approx([0.5] * 3, abs=0.04)
    assert np.corrcoef(np.concatenate([columns[:, 1:], columns[:, :-1]])) == pytest.approx(
        np.eye(6), abs=0.12
    )


@pytest.mark.parametrize(
    ("draw", "seen"),
    [
        (lambda: torch.rand(3), True),
        (lambda: torch.randperm(5), True),
        (lambda: np.random.permutation(5), True),
        (lambda: random.shuffle([1, 2, 3]), True),
        (lambda: np.random.default_rng(3).random(), False),
        (lambda: torch.zeros(3), False),
    ],
)
def test_a_draw_is_seen(draw: Callable[[], object], seen: bool) -> None:
    seed_host(5)
    draw()
    assert drawn_since(5) is seen
