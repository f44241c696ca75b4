"""A rollout that was started: what is known of it, and what can be asked of it. Needs its files alone."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.target import Target
from raystack.errors import ConfigError, LaunchError, PlanError, Problem
from raystack.plan.rollout import RolloutPlan, plan_rollout, rollouts_of
from raystack.rollout.state import Decision, State
from raystack.rollout.store import RolloutStore, Verb, current

POLL_S = 0.25
ANSWER_S = 30.0
"""Seconds that an order may take to be decided on."""


@dataclass(frozen=True)
class RolloutHandle:
    """A rollout, by its folder."""

    id: str
    folder: str

    @property
    def state(self) -> State:
        """Return where it is."""
        return RolloutStore(self.folder).state()

    @property
    def plan(self) -> RolloutPlan:
        """Return the plan, with both versions decided."""
        return plan_rollout(RolloutStore(self.folder).config())

    def on(self, target: Target) -> RolloutPlan:
        """Return the plan for another cluster. Raises PlanError for one that no rollout can be on."""
        config = RolloutStore(self.folder).config()
        return plan_rollout(config.model_copy(update={"target": target}))

    @property
    def decisions(self) -> list[Decision]:
        """Return every decision with its numbers, the first one first."""
        return RolloutStore(self.folder).decisions()

    def watch(self, every_s: float = 1.0) -> Iterator[State]:
        """Yield where it is, again and again, until it is over."""
        while True:
            state = self.state
            yield state
            if state.over:
                return
            time.sleep(every_s)

    def order(self, verb: Verb, *, who: str, why: str = "", timeout_s: float = ANSWER_S) -> Decision:
        """Ask for something, and return what was decided.

        Raises PlanError if it is refused, LaunchError if nobody has decided in time: the order is kept.
        """
        store, state = RolloutStore(self.folder), self.state
        if state.over:
            rule = f"the rollout is over: {state.status}"
            raise PlanError(Problem(self.id, rule=rule, remedy="start another one"))
        name, until = store.order(verb, who=who, why=why), time.monotonic() + timeout_s
        while time.monotonic() < until:
            new = store.decisions(state.decided)
            decision = next((each for each in new if each.order == name), None)
            if decision is not None and decision.what == "refuse":
                raise PlanError(Problem(self.id, rule=f"{verb} is refused: {decision.why}"))
            if decision is not None:
                return decision
            time.sleep(POLL_S)
        rule = f"the order to {verb} is kept, and nobody has taken it for {timeout_s:g} s"
        remedy = "`raystack rollout resume` starts the rollout's process again, if the cluster is there"
        raise LaunchError(Problem(self.id, rule=rule, remedy=remedy))


def find(config: RunConfig) -> RolloutHandle:
    """Return the rollout of a config's model that was started last. Raises ConfigError if there is none."""
    name, folder = rollouts_of(config)
    store = current(folder)
    if store is None:
        rule, remedy = f"there is no rollout of '{name}' yet", "raystack rollout start config.yaml"
        raise ConfigError(Problem(folder, rule=rule, remedy=remedy))
    return RolloutHandle(store.folder.rpartition("/")[2], store.folder)
