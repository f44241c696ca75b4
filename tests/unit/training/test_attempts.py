"""Attempts are counted by the run's coordinator: no machine's clock decides which is the newer one."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raystack.checkpoint.fence import Fence, Holder
from raystack.config.faults import Watchdog
from raystack.plan import TrainPlan
from raystack.training.driver.coordinator import JUDGE_S, RunCoordinator
from raystack.training.loop import WorkerSpec
from raystack.training.watchdog import hang
from raystack.training.watchdog.hang import HangDetector, Heartbeat
from raystack.training.world import World


def started(coordinator: RunCoordinator) -> World:
    """The only worker of a new start."""
    return World.join(0, 1, torch.device("cpu"), lambda: asyncio.run(coordinator.next_attempt()))


def stalled(world: World) -> Heartbeat:
    """In a step that will not end."""
    return Heartbeat(world.attempt, 0, 1, "a", 100 + world.attempt, 6, "data", 9999.0, None, False, None)


def test_a_later_attempt_is_heard_also_where_its_clock_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = RunCoordinator(Watchdog())
    first = started(coordinator)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    second = started(coordinator)
    assert (first.attempt, second.attempt) == (1, 2)
    detector = HangDetector(Watchdog(multiple=10, min_s=60, startup_s=1))
    detector.observe(stalled(first), 0)
    detector.observe(stalled(second), 1)
    detector.check(1)
    assert detector.observe(stalled(second), 2).dump, "it is heard, and asked for its stacks"
    assert not detector.observe(stalled(first), 2).dump, (
        "of an attempt that is over nothing is asked any more"
    )


def test_an_attempt_that_has_ended_raises_no_alarm_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers, stopped for a resize, may give no sign of life until others start."""
    monkeypatch.setattr(hang, "COLLECT_S", 0.0)

    async def ended() -> str | None:
        coordinator = RunCoordinator(Watchdog(multiple=10, min_s=0.01, startup_s=0.01))
        attempt = await coordinator.next_attempt()
        await coordinator.heartbeat(Heartbeat(attempt, 0, 1, "a", 1, 6, "data", 0.0, None, False, None))
        await coordinator.begin(0.0)
        for _ in range(8):
            await asyncio.sleep(JUDGE_S / 4)
            await coordinator.take(0.0)
        return (await coordinator.state()).alarm

    assert asyncio.run(ended()) is None


def test_no_two_attempts_of_a_run_have_one_name(plan_tiny: Callable[..., TrainPlan], tmp_path: Path) -> None:
    """Not of one driver, not of the next one, and not of two that took the run in the same moment."""
    plan = plan_tiny()
    drivers = [
        WorkerSpec(plan, None, Fence(str(tmp_path), Holder(number, token, "here", 1)))
        for number, token in ((1, "a"), (2, "b"), (2, "c"))
    ]
    names = [driver.attempt_name(attempt) for driver in drivers for attempt in (1, 2)]
    assert len(set(names)) == len(names)
    assert [name.rpartition("-")[0] for name in names] == ["1-1", "1-2", "2-1", "2-2", "2-1", "2-2"]
