"""A state -> the next decision. Pure: the caller measures, and carries out what was decided."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from raystack.plan.rollout import RolloutPlan
from raystack.rollout import judging
from raystack.rollout.state import Decision, State, Status
from raystack.rollout.store import Order

SUSPECT = 10.0
"""Evidence with which a version gets no larger share. A version that keeps its bounds seldom has it."""

LATE = 10
"""Intervals without a look after which the process of a rollout is taken to be away, and at least LATE_S."""
LATE_S = 30.0


class Decided(NamedTuple):
    """A decision, and the state that follows from it."""

    state: State
    decision: Decision


def decide(plan: RolloutPlan, state: State, now: float) -> Decided | None:
    """Decide after an interval; None if there is nothing to decide.

    A broken bound sends the version back, also while the rollout is paused.
    """
    if (bound := judging.broken(plan, state)) is not None:
        first = state.tests[bound].first_bad
        return back(plan, state, now, "rolled back", judging.why(plan, state, bound), first=first)
    if (found := _broken_metric(plan, state)) is not None:
        name, reason = found
        return back(plan, state, now, "rolled back", reason, first=state.metrics[name].first_bad)
    if state.status == "paused":
        return None
    lacking = _lacking(plan, state, now)
    if not lacking:
        return _completed(plan, state, now)
    if now - state.waits_since < plan.rollout.patience_s:
        return None
    why = f"{_nth(plan, state)} still lacks {lacking} after {now - state.waits_since:.0f} s"
    return _decided(plan, replace(state, status="paused", paused_by="patience", cause=why), now, "pause", why)


def answer(plan: RolloutPlan, state: State, order: Order, now: float) -> Decided:
    """Decide on an order. One that has no meaning now is refused, and changes nothing."""
    refusal = _refusal(state, order)
    if refusal is not None:
        return _decided(plan, replace(state, order=order.name), now, "refuse", refusal, order)
    given, why = replace(state, order=order.name), order.why or "by order"
    match order.verb:
        case "abort":
            return back(plan, given, now, "aborted", order.why or f"{order.who} aborted it", order=order)
        case "pause":
            cause = f"{order.who} paused it" + (f": {order.why}" if order.why else "")
            paused = replace(given, status="paused", paused_by="order", cause=cause)
            return _decided(plan, paused, now, "pause", why, order)
        case "resume" if state.paused_by != "step":
            return _decided(plan, _going(given, now), now, "resume", why, order)
        case _:
            return _onward(plan, given, now, why, order)


def back(
    plan: RolloutPlan,
    state: State,
    now: float,
    ending: Status,
    why: str,
    *,
    first: float | None = None,
    order: Order | None = None,
) -> Decided:
    """Decide that all traffic goes back. `first` is the time of the first bad interval."""
    gone = replace(
        state, status="running", doing="go back", ending=ending, cause=why, weight=0.0, first_bad=first
    )
    what = {"rolled back": "roll back", "aborted": "abort"}.get(ending, "fail")
    return _decided(plan, gone, now, what, why, order)


def away_s(plan: RolloutPlan, state: State, now: float) -> float:
    """Return the seconds since the last look, if they are so many that the rollout has no process; else 0."""
    if state.over or state.doing != "watch" or not state.read_at:
        return 0.0
    silent = now - state.read_at
    return silent if silent >= max(LATE_S, LATE * plan.analysis.every_s) else 0.0


def numbers(plan: RolloutPlan, state: State) -> Mapping[str, Any]:
    """Return what a decision was made with."""
    latency = plan.analysis.latency
    return {
        "step": state.step + 1,
        "weight": state.weight,
        "in_step": state.in_step,
        "stable": _counted(state, "old"),
        "candidate": _counted(state, "new"),
        "percentile": None if latency is None else latency.percentile,
        "slow_ms": None if state.slow_s is None else state.slow_s * 1000,
        "evidence": {name: test.e for name, test in state.tests.items()},
        "evidence_needed": plan.wanted,
        "metrics": {name: value.value for name, value in state.metrics.items()},
    }


def _counted(state: State, which: str) -> Mapping[str, Any]:
    counts = state.old if which == "old" else state.new
    return {
        "version": state.stable if which == "old" else state.candidate,
        "requests": counts.requests,
        "errors": counts.errors,
        "latency_ms": state.p_old_ms if which == "old" else state.p_new_ms,
        "compared": counts.compared,
        "different": counts.different,
        "dropped": counts.dropped,
        "largest": counts.largest,
    }


def _completed(plan: RolloutPlan, state: State, now: float) -> Decided:
    why = f"{_nth(plan, state)} is complete: {state.in_step:,} requests in {now - state.since:.0f} s"
    if plan.steps[state.step].pause:
        paused = replace(state, status="paused", paused_by="step", cause=f"{why}; resume or promote it")
        return _decided(plan, paused, now, "pause", why)
    return _onward(plan, state, now, why)


def _onward(plan: RolloutPlan, state: State, now: float, why: str, order: Order | None = None) -> Decided:
    """Go to the next step, or to the end after the last one."""
    state = _going(state, now)
    if state.step + 1 == len(plan.steps):
        return _decided(plan, replace(state, doing="promote"), now, "promote", why, order)
    number = state.step + 1
    weight = plan.steps[number].weight
    moved = replace(state, step=number, weight=weight, doing="steer", since=0.0, before=state.new.answered)
    return _decided(plan, moved, now, "step", f"{why}; the weight is {weight:g} now", order)


def _going(state: State, now: float) -> State:
    return replace(state, status="running", paused_by=None, cause="", waits_since=now)


def _lacking(plan: RolloutPlan, state: State, now: float) -> str:
    """Return in words what the step waits for; empty if nothing."""
    step = plan.steps[state.step]
    if state.in_step < step.min_requests:
        return f"requests: {state.in_step:,} of {step.min_requests:,}"
    if now - state.since < step.min_s:
        return f"time: {now - state.since:.0f} s of {step.min_s:g}"
    for name, test in state.tests.items():
        if test.e >= SUSPECT:
            return f"trust: the evidence against it is {test.e:.3g} ({name.replace('_', ' ')})"
    for name in plan.analysis.metrics:
        found = state.metrics.get(name)
        if found is None or found.value is None:
            return f"the metric {name}" + (f": {found.trouble}" if found and found.trouble else "")
        if found.broken:
            return f"the metric {name} within its bounds: it is {found.value:g}"
    return ""


def _broken_metric(plan: RolloutPlan, state: State) -> tuple[str, str] | None:
    for name, metric in plan.analysis.metrics.items():
        found = state.metrics.get(name)
        if found is not None and found.value is not None and found.broken >= metric.broken:
            low, high = metric.min, metric.max
            bound = f"less than {low:g}" if low is not None and found.value < low else f"more than {high:g}"
            return name, f"metric {name}: {found.value:g} is {bound}, {found.broken} times in a row"
    return None


def _refusal(state: State, order: Order) -> str | None:
    """Return why an order has no meaning now."""
    if state.over:
        return f"the rollout is over: {state.status}"
    if state.ending is not None:
        return "all traffic goes back already"
    if state.doing in ("promote", "tidy", "alias"):
        return "the version takes the place of the other already"
    if order.verb == "pause" and state.status == "paused":
        return "it is paused already"
    if order.verb == "resume" and state.status != "paused":
        return "it is not paused"
    if order.verb == "promote" and not state.read_at:
        return "the version is being loaded"
    return None


def _nth(plan: RolloutPlan, state: State) -> str:
    return f"step {state.step + 1} of {len(plan.steps)}"


def _decided(
    plan: RolloutPlan, state: State, now: float, what: str, why: str, order: Order | None = None
) -> Decided:
    who, name = ("raystack", "") if order is None else (order.who, order.name)
    return Decided(state, Decision(now, what, why, who, name, numbers(plan, state)))
