"""Which failure explains the others, and how often a run goes on after it."""

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from raystack.config.training import Faults, Retry
from raystack.errors import ExhaustedError, PausedError, Problem, TrainingError, WorkerLostError
from raystack.ray_internals.train import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from raystack.training.driver.recovery import Budget, FailureKind, classify, classify_start

OWN = TrainingError(Problem("step 3", rule="ValueError: a bad sample"))
LOST = WorkerLostError(Problem("step 3", rule="the connection to the other workers is gone"))
FULL = ExhaustedError(Problem("step 3", rule="CUDA out of memory"))
DEAD = WorkerHealthCheckFailedError("a check failed", ActorDiedError())
KILLED = WorkerHealthCheckFailedError("a check failed", OutOfMemoryError("ran out"))


@pytest.mark.parametrize(
    ("failures", "alarm", "kind"),
    [
        ({0: LOST, 1: OWN}, None, "error"),
        ({0: LOST, 1: OWN}, "rank 1 hangs", "error"),
        ({0: LOST, 1: DEAD}, "rank 1 hangs", "hang"),
        ({0: LOST, 1: DEAD}, None, "lost"),
        ({0: LOST, 1: LOST}, None, "lost"),
        ({0: LOST, 1: FULL}, None, "memory"),
        ({0: DEAD, 1: KILLED}, None, "memory"),
        ({0: LOST, 1: WorkerHealthCheckTimeoutError("no answer")}, None, "lost"),
        ({0: PausedError(Problem("step 3", rule="stopped"), "resize")}, None, "resize"),
        ({0: PausedError(Problem("step 3", rule="stopped"), "drain"), 1: LOST}, None, "preemption"),
        ({0: PausedError(Problem("step 3", rule="stopped"), "terminate")}, None, "terminate"),
        ({0: KeyError("what nobody knows")}, None, "error"),
    ],
)
def test_one_failure_explains_the_others(
    failures: dict[int, BaseException], alarm: str | None, kind: FailureKind
) -> None:
    assert classify(failures, alarm).kind == kind


def test_workers_that_do_not_start_are_tried_again() -> None:
    assert classify_start(RuntimeError("address already in use")).kind == "lost"
    assert classify_start(OWN).kind == "error"


def test_each_kind_has_its_own_budget_and_a_newer_checkpoint_renews_it() -> None:
    budget = Budget(Faults(lost=Retry(times=2, wait_s=10), memory=Retry(times=1)))
    assert [budget.take("lost", 0) for _ in range(3)] == [10, 20, None]
    assert budget.take("memory", 0) == 0
    assert [budget.take("lost", 5) for _ in range(3)] == [10, 20, None]
    assert budget.take("error", 9) is None
    assert [budget.take("resize", 9) for _ in range(50)] == [0.0] * 50
