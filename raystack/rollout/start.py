"""The start of a rollout: what cannot be is refused before anything changes."""

import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

from raystack import registry
from raystack.config.target import Local, Target
from raystack.display.console import say
from raystack.errors import ConfigError, LaunchError, PlanError, Problem
from raystack.launch.local import cluster
from raystack.plan.naming import run_id
from raystack.plan.rollout import RolloutPlan
from raystack.plan.serving import DEPLOYMENT
from raystack.registry.files import placed
from raystack.rollout.alone import alone
from raystack.rollout.handle import RolloutHandle
from raystack.rollout.state import Decision, State
from raystack.rollout.store import RolloutStore, current, make_current

ENDS_S = 120.0
"""Seconds in which a rollout that another one takes the place of has to go back."""
POLL_S = 0.25


def start(plan: RolloutPlan, *, supersede: bool = False, verbose: bool = False) -> RolloutHandle:
    """Start a rollout beside what is served, and return.

    One of the same model that runs is refused, or with `supersede` sent back first. Raises ConfigError for
    that and for a version that is served already, LaunchError if nothing is served, PlanError if a gate
    refuses the version.
    """
    what = f"the start of a rollout of '{plan.name}'"
    with alone(f"{plan.folder}/start", what, say), _cluster(plan, verbose=verbose):
        plan = _decided(plan)
        measured = _passed(plan)
        _end_other(plan, supersede=supersede)
        # The other one may have been past going back, and is what is served then.
        decided = _decided(plan)
        return _begin(decided, measured if decided.stable == plan.stable else _passed(decided))


def resume(
    handle: RolloutHandle, target: Target, *, who: str, why: str = "", verbose: bool = False
) -> Decision | None:
    """Have a rollout go on, with a new process on `target` if it has none; None if it was not paused.

    The cluster may be another one than that on which it began. Raises LaunchError if the model is not served
    there.
    """
    state = handle.state
    if not state.over:
        with _cluster(handle.on(target), verbose=verbose):
            _settings(state.name)
            from raystack.rollout.actor import controller

            controller(state.name, handle.folder)
        if state.status != "paused":
            return None
    return handle.order("resume", who=who, why=why)


def _cluster(plan: RolloutPlan, *, verbose: bool) -> AbstractContextManager[str | None]:
    target = plan.config.target
    assert isinstance(target, Local), "plan_rollout refuses other targets"
    return cluster(target, verbose=verbose)


def _decided(plan: RolloutPlan) -> RolloutPlan:
    """Return the plan with both versions as they are now: what is served, and what an alias points to."""
    stable = _settings(plan.name).get("model") or _pinned(plan.stable, plan)
    with placed("rollout.model"):
        candidate = _pinned(plan.candidate, plan)
    if candidate == stable:
        rule = f"{candidate} is served already"
        raise ConfigError(Problem("rollout.model", rule=rule, got=plan.candidate))
    return plan.pinned(stable, candidate)


def _settings(name: str) -> Mapping[str, Any]:
    """Return the settings of the model that is served. Raises LaunchError if there is none."""
    from raystack.ray_internals import serve as internals

    settings: Mapping[str, Any] | None = internals.user_config(name, DEPLOYMENT)
    if settings is None:
        rule = f"there is no '{name}' on the cluster, beside which a version could be rolled out"
        remedy = "raystack serve config.yaml --detach"
        raise LaunchError(Problem("serving", rule=rule, remedy=remedy))
    return settings


def _pinned(model: str, plan: RolloutPlan) -> str:
    if model.startswith("models:/"):
        return registry.pin(model, plan.serve.tracking)
    return model if "://" in model else str(Path(model).expanduser().absolute())


def _passed(plan: RolloutPlan) -> Mapping[str, Any]:
    """Return what the gates of `registry.gates` measured. Raises PlanError if one refuses the version."""
    if plan.config.registry.gates is None:
        return {}
    from raystack.registry.gates import check, refused, whoever  # they may predict, and import PyTorch

    tracking, storage = plan.serve.tracking, plan.config.experiment.storage
    report = check(plan.config, plan.candidate, tracking, alias=plan.alias, served=plan.served)
    if not report.passed:
        if plan.registered is not None:
            refused(report, tracking, storage, alias=plan.alias, who=whoever())
        problems = [Problem(each.where, rule=each.reason) for each in report.refused]
        raise PlanError(problems)
    return report.measured


def _end_other(plan: RolloutPlan, *, supersede: bool) -> None:
    other = current(plan.folder)
    state = None if other is None else other.state()
    if other is None or state is None or state.over:
        return
    if not supersede:
        rule = f"the rollout {state.id} of '{plan.name}' is not over: {state.status}, {state.candidate}"
        remedy = "raystack rollout abort config.yaml"
        raise ConfigError(Problem("rollout", rule=rule, remedy=remedy))
    from raystack.rollout.actor import controller

    controller(plan.name, other.folder)  # it may have been lost
    other.order("abort", who="raystack", why=f"superseded by {plan.candidate}")
    until = time.monotonic() + ENDS_S
    while not other.state().over:
        if time.monotonic() > until:
            rule = f"the rollout {state.id} has not gone back within {ENDS_S:g} s"
            raise LaunchError(Problem("rollout", rule=rule, remedy="look at `raystack rollout status`"))
        time.sleep(POLL_S)


def _begin(plan: RolloutPlan, measured: Mapping[str, Any]) -> RolloutHandle:
    from raystack.rollout.actor import controller

    now = time.time()
    identity = run_id(plan.name, datetime.now(), secrets.token_hex(2))
    weight = plan.steps[0].weight
    state = State(identity, plan.name, plan.stable, plan.candidate, began=now, weight=weight)
    why = f"{plan.candidate} beside {plan.stable}, with the weight {weight:g} at first"
    store = RolloutStore(f"{plan.folder}/{identity}")
    store.create(plan.config, state, Decision(now, "start", why, numbers={"gates": measured}))
    make_current(plan.folder, identity)
    controller(plan.name, store.folder)
    return RolloutHandle(identity, store.folder)
