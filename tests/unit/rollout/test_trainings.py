"""A training of an automation outlives it, and is taken up again by its run."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raystack import config
from raystack.config.automation import Automation
from raystack.errors import ConfigError
from raystack.plan.automation import AutomationPlan, plan_automation
from raystack.rollout.automation.loop import Ended
from raystack.rollout.automation.rounds import Round, Trigger
from raystack.rollout.automation.trainings import Trainings

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
LONGEST_S = 90.0
RUN = "tiny-20261127-120000-0000"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., AutomationPlan]:
    def make(*overrides: str) -> AutomationPlan:
        action = {"overrides": ["training.steps=40", "training.epochs=null", *overrides]}
        section = {"triggers": {"schedule": "@daily"}, "then": "nothing", "action": action}
        automation = Automation.model_validate(section, strict=False)
        named = [
            f"experiment.storage={tmp_path}",
            "tracking=local",
            "registry.model=tiny",
            "registry.alias=a",
        ]
        base = config.load(TINY, [*named, "training.checkpoint.every_steps=5"])
        return plan_automation(base.model_copy(update={"automation": automation}))

    return make


def attempt(number: int, pid: int | None = None) -> Round:
    return Round("0001", Trigger("schedule", 0.0, "a test"), "training", 0.0, RUN, number, pid)


def until_ended(trainings: Trainings, round: Round) -> Ended:
    deadline = time.monotonic() + LONGEST_S
    while (ended := trainings.ended(round)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return ended


def test_a_killed_training_goes_on_from_its_checkpoint_and_another_process_sees_its_end(
    make: Callable[..., AutomationPlan], tmp_path: Path
) -> None:
    plan = make("task.args.step_s=0.1")
    first = Trainings(plan, print)
    pid = first.start(attempt(1))
    checkpoints = tmp_path / "runs" / RUN / "checkpoints"
    deadline = time.monotonic() + LONGEST_S
    while not list(checkpoints.glob("step-*/manifest.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert Trainings(plan, print).ended(attempt(1, pid)) is None, "it runs, whoever asks"
    os.kill(pid, signal.SIGKILL)
    assert until_ended(first, attempt(1, pid)).lost
    second = attempt(2, first.start(attempt(2)))
    ended = until_ended(Trainings(plan, print), second)
    assert ended == until_ended(first, second)
    assert ended.version == "models:/tiny/1"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [RUN]
    assert (tmp_path / "runs" / RUN / "drivers").is_dir()


def test_it_is_stopped_with_a_checkpoint(make: Callable[..., AutomationPlan]) -> None:
    trainings = Trainings(make("task.args.step_s=0.2"), print)
    round = replace(attempt(1), pid=trainings.start(attempt(1)))
    trainings.stop(round)
    ended = trainings.ended(round)
    assert ended is not None
    assert ended.version is None


def test_a_training_that_cannot_begin_says_why(make: Callable[..., AutomationPlan]) -> None:
    trainings = Trainings(make("task.args.broken=build"), print)
    round = replace(attempt(1), pid=trainings.start(attempt(1)))
    ended = until_ended(trainings, round)
    assert not ended.lost
    assert "no such table" in ended.problem


def test_an_override_that_is_wrong_is_refused_at_the_start(make: Callable[..., AutomationPlan]) -> None:
    with pytest.raises(ConfigError, match=r"training\.stps"):
        Trainings(make("training.stps=3"), print)
