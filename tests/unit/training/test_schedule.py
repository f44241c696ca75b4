"""Learning rates at the places that a paper would name, and beside torch's own schedulers."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, PolynomialLR

from raystack.config.optimizer import Schedule
from raystack.errors import ConfigError, TrainingError
from raystack.training.schedule import factor_of, rate_factor

STEPS = 101


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule(kind="constant"), {0: 1.0, 100: 1.0}),
        (Schedule(kind="constant", warmup_steps=10), {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 100: 1.0}),
        (Schedule(kind="linear", warmup_steps=1), {0: 1.0, 1: 1.0, 50: 0.5 + 0.5 / 99, 100: 0.0}),
        (Schedule(kind="cosine", floor=0.1), {0: 1.0, 50: 0.55, 100: 0.1}),
        (Schedule(kind="cosine", warmup_fraction=0.2), {0: 0.05, 19: 1.0, 20: 1.0, 60: 0.5, 100: 0.0}),
        (Schedule(kind="wsd", warmup_steps=5, decay_fraction=0.2), {4: 1.0, 80: 1.0, 90: 0.5, 100: 0.0}),
        (Schedule(kind="wsd", floor=0.5, decay_fraction=1.0), {0: 0.5 + 0.5 * 100 / 101, 100: 0.5}),
        (Schedule(kind="inverse_sqrt", warmup_steps=4), {0: 0.25, 3: 1.0, 15: 0.5, 63: 0.25, 99: 0.2}),
        (Schedule(kind="inverse_sqrt", floor=0.3), {0: 1.0, 3: 0.5, 99: 0.3}),
        (Schedule(kind="polynomial", power=2.0), {0: 1.0, 50: 0.25, 100: 0.0}),
        (Schedule(kind="one_cycle"), {0: 0.04, 29: 1.0, 100: 0.0}),
        (Schedule(kind="one_cycle", warmup_steps=1), {0: 1.0, 50: 0.5, 100: 0.0}),
    ],
)
def test_rate_of_a_step(schedule: Schedule, rates: dict[int, float]) -> None:
    assert {step: rate_factor(schedule, step, STEPS) for step in rates} == pytest.approx(rates)


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear", "wsd", "polynomial", "inverse_sqrt"])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0, 2])
def test_a_short_run_has_rates_too(kind: str, steps: int, warmup: int) -> None:
    schedule = Schedule.model_validate({"kind": kind, "warmup_steps": warmup})
    assert all(0 <= rate_factor(schedule, step, steps) <= 1 for step in range(steps))


def test_one_cycle_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = OneCycleLR(optimizer, max_lr=1.0, total_steps=100, cycle_momentum=False)
    ours = Schedule(kind="one_cycle", warmup_fraction=0.3, floor=0.04 / 1e4)
    for step in range(100):
        assert rate_factor(ours, step, 100) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_polynomial_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = PolynomialLR(optimizer, total_iters=50, power=3.0)
    for step in range(51):  # torch's reaches zero in the step after the last, ours in the last
        ours = rate_factor(Schedule(kind="polynomial", power=3.0), step, 51)
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"kind": "cosine", "decay_fraction": 0.5}, "decay_fraction is for kind wsd"),
        ({"kind": "linear", "power": 2.0}, "power is for kind polynomial"),
        ({"kind": "wsd", "start": 0.5}, "start is for kind one_cycle"),
        ({"kind": "linear", "warmup_steps": 3, "warmup_fraction": 0.1}, "not both"),
        ({"kind": "task", "warmup_steps": 3}, "whole factor from the task"),
        ({"kind": "wsd", "warmup_fraction": 0.6, "decay_fraction": 0.6}, "longer than the run"),
    ],
)
def test_a_key_without_an_effect_is_refused(values: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Schedule.model_validate(values)


class Own:
    """A task as far as schedules go."""

    def lr_factor(self, step: int, steps: int) -> float:
        return math.nan if step == steps else 1 - step / steps


def test_a_task_has_its_own_schedule() -> None:
    own = factor_of(Schedule(kind="task"), Own())  # type: ignore[arg-type]
    assert [own(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    with pytest.raises(TrainingError, match="lr_factor returns a number of 0 or more"):
        own(4, 4)
    with pytest.raises(ConfigError, match="give it a method lr_factor"):
        factor_of(Schedule(kind="task"), object())  # type: ignore[arg-type]
