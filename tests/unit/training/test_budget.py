"""A budget ends a run with a checkpoint; what was used is in its ledger, over all of its drivers."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raystack.checkpoint import CheckpointStore
from raystack.errors import BudgetError, PausedError
from raystack.events import Event, Warned
from raystack.plan import TrainPlan
from raystack.runs import ending, ledger
from raystack.storage import Storage
from raystack.training.driver import publish as publish  # slow to import, which a budget counts
from raystack.training.driver import run as run
from raystack.training.driver.fit import fit

PlanTiny = Callable[..., TrainPlan]


def test_a_run_whose_time_is_used_up_stops_with_a_checkpoint_and_goes_on_with_more(
    plan_tiny: PlanTiny,
) -> None:
    long = ("training.epochs=100000", "task.args.step_s=0.02")
    plan = plan_tiny(*long, "budget.time_s=4", "budget.warn_at=0.4", "prices.worker_per_hour=3600")
    heard: list[Event] = []
    with pytest.raises(BudgetError, match=r"budget.time_s: it is used up: .* of 4 s; step \d+: ") as caught:
        fit(plan, heard.append, resume=False)
    assert (caught.value.exit_code, isinstance(caught.value, PausedError)) == (8, True)
    assert next(event.text for event in heard if isinstance(event, Warned)).startswith("budget.time_s: ")
    step, left = CheckpointStore(plan.paths.checkpoints).newest(), ending.read(plan.paths.folder)
    assert left is not None
    assert (left.status, left.exit_code, left.outcome.step) == ("paused", 8, step)
    first = ledger.total(ledger.read(Storage(plan.paths.folder)))
    assert first.seconds >= 4
    assert first.money == pytest.approx(first.seconds)

    with pytest.raises(BudgetError, match="raise it, and go on with --resume"):
        fit(plan, heard.append, resume=True)
    assert CheckpointStore(plan.paths.checkpoints).newest() == step, "it has not trained"

    limit = first.seconds + 2
    more = plan_tiny(*long, f"budget.money={limit}", "prices.worker_per_hour=3600")
    with pytest.raises(BudgetError, match=r"budget.money: it is used up: .* USD; step "):
        fit(more, heard.append, resume=True)
    entries = ledger.read(Storage(plan.paths.folder))
    assert [entry.steps > 0 for entry in entries] == [True, True]
    assert limit <= (ledger.total(entries).money or 0)


def test_a_run_within_its_budget_ends_as_ever(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny("budget.time_s=600")
    assert fit(plan, lambda event: None, resume=False).step == 6
    (entry,) = ledger.read(Storage(plan.paths.folder))
    assert (entry.steps, entry.total_steps, entry.workers, entry.money) == (6, 6, 1, None)
    (metrics,) = Path(plan.paths.folder, "metrics").iterdir()
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert "eval/error" in lines[-1]
    assert json.loads(Path(plan.paths.folder, "plan.json").read_text())["run_id"] == plan.run_id


def test_a_store_that_takes_no_ledger_is_one_line_and_the_budget_holds(
    plan_tiny: PlanTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger, "write", full)
    monkeypatch.setattr("raystack.training.driver.meter.WRITE_S", 0.1)
    heard: list[Event] = []
    plan = plan_tiny("training.epochs=100000", "task.args.step_s=0.02", "budget.time_s=3")
    with pytest.raises(BudgetError):
        fit(plan, heard.append, resume=False)
    told = [event.text for event in heard if isinstance(event, Warned) and "ledger" in event.text]
    assert told == [
        "the run goes on, but its ledger and metrics are not written: [Errno 28] No space left on device"
    ]
    assert CheckpointStore(plan.paths.checkpoints).newest()


def test_a_budget_holds_while_the_store_hangs(plan_tiny: PlanTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "write", lambda *given: time.sleep(1.5))
    monkeypatch.setattr("raystack.training.driver.meter.LATE_S", 0.5)
    monkeypatch.setattr("raystack.training.driver.meter.PATIENCE_S", 0.1)
    heard: list[Event] = []
    plan = plan_tiny("training.epochs=100000", "task.args.step_s=0.02", "budget.time_s=3")
    with pytest.raises(BudgetError):
        fit(plan, heard.append, resume=False)
    assert any(isinstance(event, Warned) and "does not answer" in event.text for event in heard)
