"""An interval's counters -> the evidence that the new version breaks a bound."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from raystack.config.rollout import Errors, Latency
from raystack.plan.rollout import RolloutPlan
from raystack.rollout.counts import Counts, bound_above, percentile_s
from raystack.rollout.evidence import Shown
from raystack.rollout.state import State, Test

ENOUGH = 100
"""Requests from which a percentile of the version that is served is taken."""


@dataclass(frozen=True)
class Interval:
    """What both versions did between two looks."""

    began: float
    """Seconds since 1970."""
    old: Counts
    new: Counts


def judged(plan: RolloutPlan, state: State, interval: Interval, bounds: tuple[float, ...]) -> State:
    """Return the state after an interval. `bounds` are those of the latency's counters, in seconds."""
    shown = _shown(plan, state, interval, bounds)
    tests = {
        name: _moved(state.tests.get(name, Test()), *shown[name], began=interval.began) for name in plan.tests
    }
    state = replace(state, tests=tests, old=state.old.plus(interval.old), new=state.new.plus(interval.new))
    return _timed(plan, state, bounds)


def broken(plan: RolloutPlan, state: State) -> str | None:
    """Return the bound that is broken, the first one in time; None if none is."""
    found = [name for name in plan.tests if name in state.tests and state.tests[name].e >= plan.wanted]
    return min(found, key=lambda name: state.tests[name].first_bad or 0.0, default=None)


def why(plan: RolloutPlan, state: State, name: str) -> str:
    """Return in words what the evidence against the new version is."""
    old, new, of = state.old, state.new, plan.analysis
    other = "the version that is served"
    its_errors = f"{new.errors:,} of its {new.tried:,} requests and copies failed"
    found = {
        "errors": f"{its_errors}, and {old.errors:,} of the {old.tried:,} of {other}",
        "errors_max": its_errors,
        "latency": f"its latency is {_ms(state.p_new_ms)} and that of {other} {_ms(state.p_old_ms)}",
        "difference": f"{new.different:,} of {new.compared:,} answers differ from those of {other}",
    }
    percentile = f" (p{of.latency.percentile:g})" if name == "latency" and of.latency else ""
    evidence = f"evidence {state.tests[name].e:.3g} of {plan.wanted:,.0f}"
    return f"{name.replace('_', ' ')}: {found[name]}{percentile}; {evidence}"


def _shown(
    plan: RolloutPlan, state: State, interval: Interval, bounds: tuple[float, ...]
) -> Mapping[str, tuple[Shown | None, Shown | None]]:
    """Return what the interval shows for each bound: two things, both to speak against the version."""
    of, old, new = plan.analysis, interval.old, interval.new
    shown: dict[str, tuple[Shown | None, Shown | None]] = {}
    if of.errors is not None:
        shown["errors"] = (_of_errors(of.errors, old, new),) * 2
        shown["errors_max"] = (Shown(new.errors, new.tried, of.errors.max),) * 2
    if of.latency is not None:
        shown["latency"] = _of_latency(of.latency, state, interval, bounds)
    if of.difference is not None:
        shown["difference"] = (Shown(new.different, new.compared, of.difference.share),) * 2
    return shown


def _of_errors(of: Errors, old: Counts, new: Counts) -> Shown:
    """Of the errors of an interval, which share is the new version's?

    If its rate is at most `ratio` times the other's, the expected share is at most its part of the requests,
    weighted so. What makes both fail, such as a broken client, is no evidence.
    """
    weighted = new.tried * of.ratio
    return Shown(new.errors, new.errors + old.errors, weighted / ((weighted + old.tried) or 1))


def _of_latency(
    of: Latency, state: State, interval: Interval, bounds: tuple[float, ...]
) -> tuple[Shown | None, Shown | None]:
    """Which share of the new version's requests is slow, and which share of the slow ones is its own?

    Slow is what took longer than a time that was known before the interval. In an interval without requests
    of the other version the first question stands for both.
    """
    index = None if state.slow_s is None else bound_above(state.slow_s, bounds)
    if index is None:
        return None, None
    old, new = interval.old, interval.new
    slow = new.slower(index)
    alone = Shown(slow, new.timed, 1 - of.percentile / 100)
    if not old.timed:
        return alone, alone
    return alone, Shown(slow, slow + old.slower(index), new.timed / (new.timed + old.timed))


def _moved(test: Test, shown: Shown | None, beside: Shown | None, *, began: float) -> Test:
    """Return what is known of a bound after an interval."""
    bets, against = test.bets.after(shown), test.beside.after(beside)
    # Each is an e-value of its own hypothesis, so the lesser one is an e-value of "one of them is true".
    e = min(bets.e, against.e)
    first = test.first_bad if e > 1 else None
    if first is None and shown is not None and shown.exceeds:
        first = began
    return Test(bets, against, e, max(test.highest, e), first)


def _timed(plan: RolloutPlan, state: State, bounds: tuple[float, ...]) -> State:
    """Return the state with the percentiles, and the time beyond which a request is slow from now on."""
    latency = plan.analysis.latency
    percentile = 99.0 if latency is None else latency.percentile
    known = state.old if state.old.timed >= ENOUGH else state.old.plus(state.history)
    old, new = percentile_s(known, percentile, bounds), percentile_s(state.new, percentile, bounds)
    slow = None
    if latency is not None and old is not None and known.timed >= ENOUGH:
        index = bound_above(max(latency.floor_ms / 1000, latency.ratio * old), bounds)
        slow = None if index is None else bounds[index]
    return replace(state, p_old_ms=_in_ms(old), p_new_ms=_in_ms(new), slow_s=slow)


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None or seconds == float("inf") else seconds * 1000


def _ms(value: float | None) -> str:
    return "beyond what is measured" if value is None else f"{value:.3g} ms"
