"""One driver at a time: who holds a run, who takes it over, and what becomes of the one that was taken for
dead.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raystack import job_context
from raystack.checkpoint import CheckpointStore, fence
from raystack.checkpoint.fence import Holder
from raystack.code.archive import pack
from raystack.errors import LaunchError, TrainingError
from raystack.events import Event, Stepped
from raystack.plan import TrainPlan
from raystack.ray_internals.variables import JOB_CONFIG
from raystack.runs import lease
from raystack.storage import Storage
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

pytestmark = pytest.mark.slow


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A run's."""
    return str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path}/run"


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leases are renewed all the time, and SIGTERM is what it is in a verb."""
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def take(folder: str, **changes: object) -> Holder:
    """Another machine's driver takes the run."""
    storage = Storage(folder)
    before = fence.read(storage)
    other = Holder(before.number + 1 if before else 1, "other", "elsewhere", 7)
    fence.write(storage, replace(other, **changes), time.time())  # type: ignore[arg-type]
    return other


@contextmanager
def held_elsewhere(folder: str) -> Iterator[None]:
    """By a driver of another process, as far as can be: one that is not asked to stop."""
    begun, end = threading.Event(), threading.Event()

    def drive() -> None:
        with lease.hold(folder, print):
            begun.set()
            end.wait()

    driver = threading.Thread(target=drive)
    driver.start()
    assert begun.wait(10)
    yield
    end.set()
    driver.join()


def in_job(monkeypatch: pytest.MonkeyPatch, attempt: int) -> None:
    metadata = {job_context.RUN: "run", job_context.ATTEMPT: str(attempt)}
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"runtime_env": {}, "metadata": metadata}))


def test_a_run_is_held_for_the_time_of_the_block_and_each_driver_has_the_next_number(
    folder: str, hurry: None
) -> None:
    assert lease.holder(folder, print) is None
    with lease.hold(folder, print) as first:
        assert str(lease.holder(folder, print)).startswith(f"process {os.getpid()} on ")
        first.check()
    now = fence.read(Storage(folder))
    assert now is not None
    assert not now.held  # so that nobody has to wait until it is sure
    assert lease.holder(folder, print) is None
    with lease.hold(folder, print) as second:
        assert second.holder.number == first.holder.number + 1


def test_a_driver_whose_run_was_taken_ends_and_leaves_the_run_to_the_other(folder: str, hurry: None) -> None:
    def drive() -> None:
        with lease.hold(folder, print):
            take(folder)
            for _ in range(500):
                time.sleep(0.01)

    with pytest.raises(
        TrainingError, match=r"another driver has taken this run.*process 7 on elsewhere.*publishes nothing"
    ):
        drive()
    now = fence.read(Storage(folder))
    assert now is not None
    assert (now.token, now.held) == ("other", True)


@pytest.mark.parametrize("moment", ["before it looks again", "later"])
def test_of_two_drivers_that_take_a_run_at_the_same_moment_one_goes_on(
    folder: str, hurry: None, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = fence.write

    def overwritten(storage: Storage, holder: Holder, time: float) -> None:
        write(storage, holder, time)
        monkeypatch.setattr(fence, "write", write)
        take(folder, number=holder.number)

    def drive() -> None:
        with lease.hold(folder, print) as mine:
            take(folder, number=mine.holder.number)
            for _ in range(500):
                time.sleep(0.01)

    if moment != "later":
        monkeypatch.setattr(fence, "write", overwritten)
    with pytest.raises(TrainingError, match=r"another driver has taken this run.*process 7 on elsewhere"):
        drive()
    now = fence.read(Storage(folder))
    assert now is not None
    assert (now.token, now.held) == ("other", True)


def test_an_interrupt_that_has_another_reason_stays_one(folder: str, hurry: None) -> None:
    with pytest.raises(KeyboardInterrupt), lease.hold(folder, print):
        raise KeyboardInterrupt


def test_a_driver_that_begins_late_is_refused_while_a_newer_attempt_goes_on(
    folder: str, hurry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_job(monkeypatch, 2)
    with held_elsewhere(folder):
        in_job(monkeypatch, 1)
        late = r"began late: attempt 2, process \d+ on .*\(got attempt 1 of job run\)"
        with pytest.raises(LaunchError, match=late), lease.hold(folder, print):
            pass
        in_job(monkeypatch, 3)
        with lease.hold(folder, print) as third:
            assert third.holder.number == 2
    monkeypatch.setattr(lease, "EXPIRED_S", 0.6)
    # Whoever is dead is nobody's rival, whatever its number was.
    take(folder, job="run", attempt=9)
    in_job(monkeypatch, 1)
    with lease.hold(folder, print) as again:
        assert again.holder.number == 4


def test_a_training_ends_with_the_first_checkpoint_after_it_was_taken_over(
    plan_tiny: Callable[..., TrainPlan],
) -> None:
    plan = plan_tiny("training.checkpoint.every_steps=1", "task.args.step_s=0.05")
    world, events = World.join(0, 1, torch.device("cpu")), list[Event]()

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Stepped) and event.step == 3:
            take(plan.paths.folder)

    pulse = HeartbeatSender(
        lambda beat: Orders(), attempt=world.attempt, rank=0, world=1, node="here", folder=None
    )
    with lease.hold(plan.paths.folder, print) as held:
        job = WorkerSpec(plan, pack(str(plan.config.task.folder)), held)
        with pytest.raises(TrainingError, match="another driver has taken this run"):
            train(job, world, listen, GracefulStop(world), pulse)
    assert (
        max((manifest.step for manifest in CheckpointStore(plan.paths.checkpoints).manifests()), default=0)
        < 3
    )
