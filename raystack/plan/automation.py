"""RunConfig -> AutomationPlan: what `raystack automate` does, and where its record is."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from raystack.config import RunConfig
from raystack.config.automation import Automation
from raystack.config.target import Local
from raystack.errors import ConfigError, PlanError, Problem
from raystack.plan.kuberay.schedule import schedule_mistake
from raystack.plan.rollout import RolloutPlan, plan_rollout
from raystack.plan.training import plan_tracking


@dataclass(frozen=True)
class AutomationPlan:
    """What `raystack automate` does, and where its record is."""

    name: str
    folder: str
    """`<storage>/automation/<name>`."""
    automation: Automation
    model: str
    """Registered model of the trainings."""
    alias: str | None
    """Alias that a version gets at the end."""
    stop: str
    """File that stops everything."""
    config: RunConfig


def plan_automation(config: RunConfig) -> AutomationPlan:
    """Decide on an automation. Raises ConfigError without a section, PlanError for one that cannot work."""
    automation, registry = config.automation, config.registry
    if automation is None:
        remedy = "add it, with automation.triggers"
        raise ConfigError(Problem("automation", rule="the config has no such section", remedy=remedy))
    problems = list(_problems(config, automation))
    if problems or registry.model is None:
        raise PlanError(problems)
    plan_tracking(config)  # raises PlanError if MLflow is off
    if automation.then == "rollout":
        plan_release(config, f"models:/{registry.model}/1")  # what cannot be is refused before a training
    folder = f"{config.experiment.storage}/automation/{config.experiment.name}"
    return AutomationPlan(
        name=config.experiment.name,
        folder=folder,
        automation=automation,
        model=registry.model,
        alias=registry.alias,
        stop=automation.stop or f"{folder}/stop",
        config=config,
    )


def _problems(config: RunConfig, automation: Automation) -> Iterator[Problem]:
    schedule, registry = automation.triggers.schedule, config.registry
    if schedule is not None:
        mistake = schedule_mistake(schedule)
        if schedule.startswith("@every"):
            mistake = "should have five fields, or be @hourly, @daily, @weekly, @monthly or @yearly"
        if mistake:
            yield Problem("automation.triggers.schedule", rule=mistake, got=schedule)
    if registry.model is None:
        rule, remedy = "a version that is trained without a hand has to be registered", "name the model"
        yield Problem("registry.model", rule=rule, remedy=remedy)
    elif registry.alias is None and automation.then != "nothing":
        rule, remedy = "is what moves to a version that is promoted", "set it, e.g. to champion"
        yield Problem("registry.alias", rule=rule, remedy=remedy)
    if automation.then == "rollout" and config.rollout is None:
        rule, remedy = "needs the section `rollout`", "add it, or set automation.then=promote"
        yield Problem("automation.then", rule=rule, got="rollout", remedy=remedy)
    if automation.action.verb == "tune" and config.tuning is None:
        yield Problem("automation.action.verb", rule="needs the section `tuning`", got="tune")
    if not isinstance(config.target, Local):
        rule = "an automation trains on the machine, or the Ray cluster, that it runs on"
        remedy = "set target=local, with target.address=auto in a cluster"
        yield Problem("target", rule=rule, got=config.target.kind, remedy=remedy)
    elif automation.then == "rollout" and config.target.address is None:
        rule, remedy = "a rollout is one of a cluster that serves", "set target.address=auto"
        yield Problem("target.address", rule=rule, remedy=remedy)


def plan_release(config: RunConfig, version: str) -> RolloutPlan:
    """Decide on the rollout of a version. Raises as `plan_rollout` does."""
    assert config.rollout is not None, "plan_automation refuses a config without"
    section = config.rollout.model_copy(update={"model": version})
    return plan_rollout(config.model_copy(update={"rollout": section}))


def overrides(plan: AutomationPlan, run: str) -> tuple[str, ...]:
    """Return the overrides of a round's training.

    The alias is not the training's to move: it moves when the version has passed all that is asked.
    """
    own = plan.automation.action
    named = (f"tuning.name={run}",) if own.verb == "tune" else ()
    return (*own.overrides, *named, "registry.alias=null", "experiment.resume=null")


def firings(schedule: str, timezone: str, after: float, until: float) -> Iterator[float]:
    """Yield the times of a schedule after `after`, up to `until`, in seconds since 1970.

    Raises ConfigError if the package that reads schedules is not installed.
    """
    times = _croniter()(schedule, _at(after, timezone))
    while (at := float(times.get_next(datetime).timestamp())) <= until:
        yield at


def last_firing(schedule: str, timezone: str, until: float) -> float:
    """Return the last time of a schedule up to `until`. Raises as `firings` does."""
    return float(_croniter()(schedule, _at(until + 1, timezone)).get_prev(datetime).timestamp())


def _at(seconds: float, timezone: str) -> datetime:
    return datetime.fromtimestamp(seconds, ZoneInfo(timezone))


def _croniter() -> Any:
    try:
        from croniter import croniter  # an extra
    except ImportError:
        remedy = "pip install 'raystack-ml[automation]'"
        raise ConfigError(
            Problem("automation.triggers.schedule", rule="needs the package croniter", remedy=remedy)
        ) from None
    return croniter
