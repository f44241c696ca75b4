"""One instrument in the loop: what it is told, the report has as seconds and the watchdog as a place."""

import time
from collections.abc import Callable

import pytest
import torch

from raystack.code.archive import pack
from raystack.events import Event, Stepped
from raystack.plan import TrainPlan
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.phases import Phases
from raystack.training.throughput import Throughput
from raystack.training.watchdog.hang import Orders, StepPhase
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

WORLD = World(0, 1, torch.device("cpu"), 1)
STEP: tuple[StepPhase, ...] = ("data", "forward", "backward", "optimizer")


@pytest.fixture
def heartbeats() -> HeartbeatSender:
    return HeartbeatSender(lambda beat: Orders(), attempt=1, rank=0, world=1, node="here", folder=None)


def test_a_phase_is_timed_for_the_report_and_seen_by_the_watchdog(heartbeats: HeartbeatSender) -> None:
    throughput = Throughput(WORLD, None)
    phase = Phases(WORLD, throughput, heartbeats)
    seen: list[StepPhase] = []
    for step in range(3):
        phase.begin(step, precise=step == 2)
        for name in STEP:
            with phase(name):
                time.sleep(0.01 if name == "forward" else 0.001)
                seen.append(heartbeats.heartbeat().phase)
        throughput.end(samples=8, tokens=0)
    assert seen == [*STEP] * 3
    beat, report = heartbeats.heartbeat(), throughput.report()
    assert (beat.step, beat.phase) == (3, "idle")
    assert beat.pace is not None
    assert beat.pace.most == "forward"
    assert {name for name in report if name.endswith("_s")} >= {f"speed/{name}_s" for name in STEP}
    assert report["speed/forward_s"] == max(report[f"speed/{name}_s"] for name in STEP)


def test_the_phases_of_a_step_that_is_not_reported_cost_no_wait_for_the_device(
    heartbeats: HeartbeatSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(World, "synchronize", lambda world: waits.append(world.rank))
    phase = Phases(WORLD, Throughput(WORLD, None), heartbeats)
    for precise in (False, True):
        phase.begin(0, precise=precise)
        with phase("data"):
            pass
        assert len(waits) == precise


def test_a_phase_that_raises_stays_the_place_of_the_worker(heartbeats: HeartbeatSender) -> None:
    phase = Phases(WORLD, Throughput(WORLD, None), heartbeats)
    phase.begin(0, precise=True)
    with pytest.raises(ZeroDivisionError), phase("optimizer"):
        raise ZeroDivisionError
    assert heartbeats.heartbeat().phase == "optimizer"


def test_evaluations_and_checkpoints_are_places_too_and_no_step(
    plan_tiny: Callable[..., TrainPlan], heartbeats: HeartbeatSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[StepPhase] = []
    enter = heartbeats.enter

    def noted(phase: StepPhase) -> None:
        entered.append(phase)
        enter(phase)

    monkeypatch.setattr(heartbeats, "enter", noted)
    plan = plan_tiny("training.batch.accumulation=2", "training={epochs: 1, evaluate: {every_steps: 2}}")
    events: list[Event] = []
    folder = plan.config.task.folder
    assert folder is not None
    train(WorkerSpec(plan, pack(folder)), WORLD, events.append, GracefulStop(WORLD), heartbeats)
    step = ["idle", "data", "forward", "backward", "data", "forward", "backward", "optimizer", "idle"]
    evaluated, saved = ["evaluate", "idle"], ["save", "idle"]
    assert entered == [*step, *step, *evaluated, *step, *saved, *evaluated, "over"]
    reports = [event.metrics for event in events if isinstance(event, Stepped)]
    assert all(f"speed/{name}_s" in report for name in STEP for report in reports[1:])
