"""`training.deterministic`: the same bits in each run, a named error where that cannot be, and no trace of it
afterwards.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deterministic_workers import STEPS
from strategy_workers import STRATEGIES

from raystack.config import load
from raystack.errors import PlanError
from raystack.events import Event, Stepped
from raystack.plan import TrainPlan, plan_training
from raystack.training.determinism import WORKSPACE
from raystack.training.driver.run import run, worker_environment

HERE = Path(__file__).parent
MakePlan = Callable[..., TrainPlan]


@pytest.fixture
def make_plan(tmp_path: Path) -> MakePlan:
    """(run id, overrides) -> a plan of the task beside, in this process."""
    file = HERE / "exact" / "config.yaml"
    return lambda run_id, *overrides: plan_training(
        load(file, [f"experiment.storage={tmp_path}", *overrides]), run_id
    )


def losses(plan: TrainPlan) -> list[float]:
    seen: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            seen.append(event.metrics["train/loss"])
            assert torch.are_deterministic_algorithms_enabled()
            assert os.environ[WORKSPACE] == ":4096:8"

    run(plan, listen)
    return seen


@pytest.mark.slow
def test_two_runs_have_the_same_bits(make_plan: MakePlan) -> None:
    first, second = losses(make_plan("one")), losses(make_plan("two"))
    assert len(first) == 8
    assert first == second


def test_the_process_is_then_as_it_was(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    losses(make_plan("one"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (True, False)
    assert WORKSPACE not in os.environ


def test_an_operation_without_a_deterministic_form_ends_the_first_step_with_its_name(
    make_plan: MakePlan,
) -> None:
    with pytest.raises(PlanError) as raised:
        run(make_plan("one", "task.args.broken=true"), lambda event: None)
    (problem,) = raised.value.problems
    assert problem.where == "training.deterministic"
    assert problem.rule == "put_ has no deterministic form (step 1, rank 0)"
    assert "see task.py:" in str(problem.remedy)
    assert not torch.are_deterministic_algorithms_enabled()


def test_without_it_the_same_operation_is_fine(make_plan: MakePlan) -> None:
    plan = make_plan("one", "task.args.broken=true", "training.deterministic=false", "training.steps=1")
    assert run(plan, lambda event: None).step == 1


def test_workers_start_with_cublas_workspace(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    assert worker_environment(make_plan("one"))[WORKSPACE] == ":4096:8"
    assert WORKSPACE not in worker_environment(make_plan("one", "training.deterministic=false"))
    monkeypatch.setenv(WORKSPACE, ":16:8")
    assert worker_environment(make_plan("one"))[WORKSPACE] == ":16:8"


@pytest.mark.slow
def test_two_workers_have_the_same_bits_under_every_strategy(tmp_path: Path) -> None:
    script = HERE / "deterministic_workers.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=200)
    twice = json.loads((tmp_path / "twice.json").read_text())
    assert sorted(twice) == sorted(STRATEGIES)
    for name, (first, second) in twice.items():
        assert len(first) == STEPS
        assert first == second, name
