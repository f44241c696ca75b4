"""Which failure explains the others, and how often a run goes on after it."""

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError
from ray.train.torch import TorchConfig

from raystack.config.faults import Faults, Retry
from raystack.errors import ExhaustedError, PausedError, Problem, TrainingError, WorkerLostError
from raystack.ray_internals.train import (
    ForgivingBackend,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from raystack.training.driver.recovery import (
    Budget,
    FailureKind,
    classify,
    classify_start,
    controller_lost,
)

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
        ({0: DEAD, 1: FULL}, "rank 1 has left the training", "memory"),
        ({0: DEAD, 1: KILLED}, "rank 1 has given no sign of life", "memory"),
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


def test_what_a_worker_raised_while_it_started_is_named_and_not_the_worker() -> None:
    failure = RayTaskError("start", "Traceback ...", ImportError("no module 'x'")).as_instanceof_cause()
    (problem,) = classify_start(failure).error.problems
    assert problem.rule == "ImportError: no module 'x'"


def test_a_worker_that_was_ended_for_want_of_memory_does_not_keep_the_next_ones_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each start begins with the end of the workers before, which raised what had ended the dead one."""

    def ended(*_: object) -> None:
        raise OutOfMemoryError("1 worker(s) were killed")

    backend = ForgivingBackend(TorchConfig(backend="gloo"))
    monkeypatch.setattr(type(backend._backend), "on_shutdown", ended)
    backend.before_execution_group_shutdown(None)


@pytest.mark.parametrize("wrapped", [False, True])
def test_memory_that_is_missing_at_the_start_of_the_workers_is_no_lost_worker(wrapped: bool) -> None:
    failure: BaseException = OutOfMemoryError("1 worker(s) were killed")
    if wrapped:
        failure = RuntimeError("the workers failed to start")
        failure.__cause__ = OutOfMemoryError("1 worker(s) were killed")
    cause = classify_start(failure)
    assert cause.kind == "memory"
    assert "memory" in str(cause.error)
    assert "rank 0" not in str(cause.error), "nobody knows which worker it was"


def test_each_kind_has_its_own_budget_and_a_newer_checkpoint_renews_it() -> None:
    budget = Budget(Faults(lost=Retry(times=2, wait_s=10), memory=Retry(times=1)))
    assert [budget.take("lost", 0) for _ in range(3)] == [10, 20, None]
    assert budget.take("memory", 0) == 0
    assert [budget.take("lost", 5) for _ in range(3)] == [10, 20, None]
    assert budget.take("error", 9) is None
    assert [budget.take("resize", 9) for _ in range(50)] == [0.0] * 50


def test_a_run_that_fell_back_to_an_older_checkpoint_makes_progress_from_there() -> None:
    budget = Budget(Faults(lost=Retry(times=2)))
    assert [budget.take("lost", newest) for newest in (60, 45, 50)] == [0, 0, 0]
    assert budget.used("lost") == "1 of 2 in a row"


def test_a_controller_without_memory_is_told_as_memory() -> None:
    told = str(controller_lost(OutOfMemoryError("5 worker(s) were killed\nand much more")))
    assert told == (
        "Ray: Ray ended the run's controller, because its node ran out of memory; give the node more memory,"
        " or make training.batch.micro smaller; go on with --resume"
    )
    assert "ActorDiedError" in str(controller_lost(ActorDiedError()))
