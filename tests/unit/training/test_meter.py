"""The meter's figures, by a clock that the test turns: attempts with other workers, drivers, limits."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from raystack.checkpoint.fence import Fence, Holder
from raystack.errors import BudgetError, PausedError, Problem
from raystack.events import Event, Started, Stepped, Warned
from raystack.plan import TrainPlan
from raystack.runs import ledger
from raystack.storage import Storage
from raystack.training.driver import meter as metering
from raystack.training.driver.meter import Meter

PlanTiny = Callable[..., TrainPlan]
PAID = (
    "resources.workers=4",
    "resources.gpus_per_worker=1",
    "prices.worker_per_hour=2",
    "prices.head_per_hour=1",
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metering, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 0.0))
    monkeypatch.setattr(metering, "LOOK_S", 0.01)
    monkeypatch.setattr(metering, "LATE_S", 1e9)
    return clock


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def make(plan_tiny: PlanTiny, heard: list[Event]) -> Callable[..., Meter]:
    def make(*overrides: str, driver: int = 1) -> Meter:
        plan = plan_tiny(*PAID, *overrides)
        folder = Storage(plan.paths.folder)
        folder.make("")
        fence = Fence(plan.paths.folder, Holder(driver, f"{driver}", "host", 1))
        return Meter(plan, fence, heard.append, lambda storage: None)

    return make


def begin(workers: int, step: int) -> Started:
    return Started(step, 1000, 96, 37, 10, "cuda", workers)


def step(number: int) -> Stepped:
    return Stepped(number, {})


def test_each_attempt_counts_with_its_own_workers(make: Callable[..., Meter], clock: Clock) -> None:
    meter = make()
    with meter:
        clock.pass_by(900)  # Ray starts: four workers are paid for, and hold no GPU yet
        meter(begin(4, 0))
        clock.pass_by(3600)
        meter(step(100))
        clock.pass_by(900)  # a node is lost, and two workers go on from step 80
        meter(begin(2, 80))
        clock.pass_by(1800)
        meter(step(130))
    spent, entry = meter.spent, ledger.read(Storage(meter._storage.url))[0]
    assert spent.seconds == 7200
    assert spent.gpu_hours == pytest.approx(4 * 1.25 + 2 * 0.5)
    assert spent.money == pytest.approx(1.5 * (1 + 4 * 2) + 0.5 * (1 + 2 * 2))
    assert (entry.workers, entry.steps, entry.trained_s, entry.total_steps) == (2, 100 + 50, 5400, 1000)


def test_drivers_add_up_and_what_is_used_up_starts_nothing(
    make: Callable[..., Meter], clock: Clock, heard: list[Event]
) -> None:
    with make() as first:
        clock.pass_by(3600)
        first(begin(4, 0))
        clock.pass_by(3600)
    with make("budget.gpu_hours=4.5", driver=2) as second:
        assert second.spent == first.spent
    with pytest.raises(BudgetError, match=r"budget.gpu_hours: it is used up: 4 of 4 GPU-hours; raise it"):
        make("budget.gpu_hours=4", driver=3).__enter__()
    assert [entry.driver for entry in ledger.read(Storage(first._storage.url))] == [1, 2]


def test_a_budget_that_the_start_uses_up_starts_no_worker(make: Callable[..., Meter], clock: Clock) -> None:
    with make("budget.money=9") as meter:
        clock.pass_by(3601)
        used_up = pytest.raises(BudgetError, match=r"budget.money: it is used up: 9\.\d+ of 9 USD; raise")
        with used_up, meter.stoppable(lambda: None):
            raise AssertionError("workers are started")


def test_the_most_used_limit_warns_once_and_asks_once(
    make: Callable[..., Meter], clock: Clock, heard: list[Event]
) -> None:
    asked: list[int] = []
    with make("budget={time_s: 1000, gpu_hours: 2, warn_at: 0.5}") as meter:
        meter(begin(4, 0))
        with meter.stoppable(lambda: asked.append(1)):
            clock.pass_by(600)
            until(lambda: bool(heard))
            clock.pass_by(600)
            until(lambda: bool(asked))
    assert asked == [1]
    texts = [event.text for event in heard if isinstance(event, Warned)]
    assert texts == ["budget.time_s: 600 of 1000 s is used; at the limit it stops"]
    paused = PausedError(Problem("step 7", rule="the run stopped", remedy="go on"), "terminate")
    told = meter.explained(paused)
    assert str(told).startswith(
        "budget.time_s: it is used up: 1200 of 1000 s; step 7: the run stopped; raise it"
    )


def test_a_stop_that_another_asked_for_is_none_of_the_budget(
    make: Callable[..., Meter], clock: Clock
) -> None:
    with make("budget.time_s=1000") as meter:
        assert meter.explained(PausedError(Problem("step 7", rule="it stopped"), "terminate")) is None


def until(true: Callable[[], bool]) -> None:
    """Wait for the meter's thread, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
