"""Learning rates at the places that a paper would name."""

import pytest
from torch import nn

from raystack.config.optimizer import SGD, AdamW, Schedule
from raystack.training.optimizer import learning_rate, make_optimizer


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule(kind="constant"), {0: 1.0, 100: 1.0}),
        (Schedule(kind="constant", warmup_steps=10), {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 100: 1.0}),
        (Schedule(kind="linear", warmup_steps=1), {0: 1.0, 1: 1.0, 50: 0.5 + 0.5 / 99, 100: 0.0}),
        (Schedule(kind="cosine", floor=0.1), {0: 1.0, 50: 0.55, 100: 0.1}),
    ],
)
def test_rate_of_a_step(schedule: Schedule, rates: dict[int, float]) -> None:
    assert {step: learning_rate(1.0, schedule, step, total=101) for step in rates} == pytest.approx(rates)


@pytest.mark.parametrize("config", [AdamW(weight_decay=0.5), SGD(kind="sgd", weight_decay=0.5)])
def test_biases_do_not_decay(config: AdamW | SGD) -> None:
    groups = make_optimizer(config, nn.Linear(3, 2).parameters()).param_groups
    assert [
        (group["weight_decay"], [parameter.dim() for parameter in group["params"]]) for group in groups
    ] == [(0.5, [2]), (0.0, [1])]
