"""RunConfig -> FollowPlan: which alias is followed, and what is done when it moves."""

import re
from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.follow import Follow
from raystack.config.names import ALIAS, MODEL
from raystack.config.target import Local
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, PlanError, Problem
from raystack.plan.training import plan_tracking


@dataclass(frozen=True)
class FollowPlan:
    """What `raystack follow` does, and where it remembers what it did."""

    model: str
    """Name of the registered model."""
    alias: str
    follow: Follow
    tracking: Tracking
    """The section with its `uri` decided."""
    folder: str
    """`<storage>/rollouts/<model>/follow`."""
    steps: bool
    """Whether a version is rolled out in steps; else it takes the place of the one that is served at once."""
    config: RunConfig

    @property
    def uri(self) -> str:
        """`models:/name@alias`."""
        return f"models:/{self.model}@{self.alias}"


def plan_follow(config: RunConfig) -> FollowPlan:
    """Decide what is followed. Raises ConfigError without a section, PlanError if no alias is named."""
    rollout = config.rollout
    if rollout is None or rollout.follow is None:
        remedy = "add it, e.g. rollout.follow.poll_s=2"
        raise ConfigError(Problem("rollout.follow", rule="the config has no such section", remedy=remedy))
    if not isinstance(config.target, Local):
        rule = "an alias is followed from the cluster that serves"
        remedy = "set target=local target.address=auto"
        raise PlanError(Problem("target", rule=rule, got=config.target.kind, remedy=remedy))
    if config.target.address is None:
        rule = "an alias is followed on a cluster that stays when this process ends"
        remedy = "start one with `ray start --head` and set target.address=auto"
        raise PlanError(Problem("target.address", rule=rule, remedy=remedy))
    name, alias = _followed(config, rollout.model)
    alias = rollout.follow.alias or alias or config.registry.alias
    if name is None or alias is None:
        remedy = "set rollout.follow.alias, and rollout.model or registry.model"
        raise PlanError(Problem("rollout.follow.alias", rule="names no alias of a model", remedy=remedy))
    uri = plan_tracking(config)[0]
    if uri is None:
        rule, remedy = "an alias is MLflow's, and tracking is off", "use tracking=local or a server"
        raise PlanError(Problem("rollout.follow", rule=rule, remedy=remedy))
    return FollowPlan(
        model=name,
        alias=alias,
        follow=rollout.follow,
        tracking=config.tracking.model_copy(update={"uri": uri}),
        folder=f"{config.experiment.storage}/rollouts/{name}/follow",
        steps=bool(rollout.steps),
        config=config,
    )


def of_version(plan: FollowPlan, version: str) -> RunConfig:
    """Return the config with which a version is rolled out, or served at once if there are no steps."""
    config = plan.config
    if not plan.steps:
        return config.model_copy(update={"serving": config.serving.model_copy(update={"model": version})})
    assert config.rollout is not None
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"model": version})})


def _followed(config: RunConfig, asked: str | None) -> tuple[str | None, str | None]:
    """Return the names of the model and of the alias, as far as a reference has them."""
    for reference in (asked, config.serving.model):
        if reference and (found := re.fullmatch(rf"models:/({MODEL})(?:@({ALIAS})|/\d+)", reference)):
            return found[1], found[2]
    return config.registry.model, None
