"""The state of an automation, and what becomes of it: pure functions of the state, what is seen and the time.

A round begins with a trigger and is training, then checking, then releasing, then over. There is one at a
time. A trigger that may not begin a round yet is kept until it may.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, time
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from raystack.config.automation import Automation

DAY_S = 86400.0
KEPT = 1000
"""Rounds of the last day that the budget remembers."""

Cause = Literal["drift", "schedule", "data"]
Phase = Literal["training", "checking", "releasing", "over"]


@dataclass(frozen=True)
class Trigger:
    """A reason to train again."""

    cause: Cause
    at: float
    """When it came, in seconds since 1970."""
    what: str
    """In words: what has drifted, which data came."""


@dataclass(frozen=True)
class Round:
    """One way from a trigger to a served version, or to the reason why there is none."""

    id: str
    trigger: Trigger
    phase: Phase
    began: float
    run: str
    """Id of the run, or name of the study."""
    attempt: int = 0
    """Number of times that its training was started."""
    pid: int | None = None
    """Process of the training on this machine."""
    version: str | None = None
    """`models:/name/version`, once it is registered."""
    rollout: str | None = None
    """Id of the rollout, once it is started."""
    ended: float | None = None
    result: str | None = None
    """In words, once it is over."""
    good: bool = False
    """Whether it came to its end: promoted, rolled out or, with `then: nothing`, registered."""


@dataclass(frozen=True)
class State:
    """All that is remembered."""

    began: float
    """When the automation was started for the first time: what is older begins nothing."""
    pending: tuple[Trigger, ...] = ()
    """Triggers that could not begin a round yet, one for each cause at most."""
    held: str | None = None
    """The rule that keeps them, as it was last told."""
    data: str | None = None
    """Fingerprint of the data that is known."""
    changing: tuple[str, float] | None = None
    """Fingerprint of data that is other than that, and since when it has been the same."""
    drifting: Mapping[str, float] = field(default_factory=dict)
    """Since when each index of the metrics is above the threshold."""
    round: Round | None = None
    """The last round."""
    past: tuple[tuple[float, float], ...] = ()
    """Beginning and seconds of training of each round of the last day."""
    count: int = 0
    """Number of rounds."""
    stopped: bool = False
    """Whether the file that stops everything was there."""


class Drifted(NamedTuple):
    """An input or output that has drifted."""

    key: str
    since: float | None
    """Time of the event; None for an index, whose time is when it is first seen."""
    what: str


class Seen(NamedTuple):
    """What a look at the sources has found."""

    drifted: tuple[Drifted, ...] = ()
    fired: float | None = None
    """Last time of the schedule."""
    data: str | None = None
    """Fingerprint of the data; None if it is not looked at, or cannot be."""


class Held(NamedTuple):
    """Why no round may begin."""

    rule: str
    """The key of the config."""
    why: str


def observe(automation: Automation, state: State, seen: Seen, now: float) -> State:
    """Return the state after a look: with what is pending now."""
    state, triggers = _drift(automation, state, seen, now)
    if seen.fired is not None:
        triggers.append(Trigger("schedule", seen.fired, f"schedule {automation.triggers.schedule}"))
    state, arrived = _data(automation, state, seen, now)
    # Drift is there or not at every look; the others have come.
    pending: dict[Cause, Trigger] = {}
    pending |= {trigger.cause: trigger for trigger in state.pending if trigger.cause != "drift"}
    for trigger in (*triggers, *arrived):
        if trigger.at > _answered(state):
            pending[trigger.cause] = trigger
    return replace(state, pending=tuple(pending.values()))


def _answered(state: State) -> float:
    """Return the time up to which all triggers have had their training, or are too old for one."""
    return state.began if state.round is None else max(state.began, state.round.began)


def _drift(automation: Automation, state: State, seen: Seen, now: float) -> tuple[State, list[Trigger]]:
    drift = automation.triggers.drift
    if drift is None:
        return state, []
    indices = [each for each in seen.drifted if each.since is None]
    drifting = {each.key: state.drifting.get(each.key, now) for each in indices}
    since = [(drifting[each.key] if each.since is None else each.since, each.what) for each in seen.drifted]
    lasting = [(at, what) for at, what in since if now - at >= drift.for_s]
    triggers = [Trigger("drift", *max(lasting))] if lasting else []
    return replace(state, drifting=drifting), triggers


def _data(automation: Automation, state: State, seen: Seen, now: float) -> tuple[State, list[Trigger]]:
    source = automation.triggers.data
    if source is None or seen.data is None:
        return state, []
    if state.data is None or seen.data == state.data:
        return replace(state, data=seen.data, changing=None), []
    if state.changing is None or state.changing[0] != seen.data:
        state = replace(state, changing=(seen.data, now))
    assert state.changing is not None
    if now - state.changing[1] < source.settle_s:
        return state, []
    trigger = Trigger("data", now, f"new data at {source.url}")
    return replace(state, data=seen.data, changing=None), [trigger]


def hindrance(automation: Automation, state: State, now: float) -> Held | None:
    """Return why no round may begin now; None if one may."""
    last = state.round
    if last is not None and last.ended is None:
        return Held("round", f"round {last.id} is not over")
    if last is not None and last.ended is not None and now < last.ended + automation.cooldown_s:
        left = last.ended + automation.cooldown_s - now
        return Held("automation.cooldown_s", f"{left:.0f} s are left since round {last.id}")
    for hours in automation.quiet:
        if _within(hours, datetime.fromtimestamp(now, ZoneInfo(automation.timezone)).time()):
            return Held("automation.quiet", f"nothing begins in {hours} {automation.timezone}")
    limit = automation.budget.runs_per_day
    if limit is not None and (count := len(_lately(state.past, now))) >= limit:
        return Held("automation.budget.runs_per_day", f"{count} of {limit} runs in 24 hours")
    if left_s(automation, state, now) <= 0:
        used = f"{automation.budget.hours_per_day:g} hours of training in 24 are used"
        return Held("automation.budget.hours_per_day", used)
    return None


def left_s(automation: Automation, state: State, now: float) -> float:
    """Return the seconds for which a training may go on, or a new one may take."""
    last, longest = state.round, automation.action.longest_s
    running = last is not None and last.phase == "training"
    spent = now - last.began if last is not None and running else 0.0
    hours = automation.budget.hours_per_day
    if hours is None:
        return longest - spent
    used = sum(seconds for _, seconds in _lately(state.past, now))
    return min(longest, hours * 3600 - used) - spent


def begin(state: State, now: float, run: str) -> State:
    """Return the state with a new round, for the oldest trigger that is pending.

    The others are answered by the same training.
    """
    number = state.count + 1
    trigger = min(state.pending, key=lambda each: each.at)
    return replace(
        state,
        pending=(),
        held=None,
        round=Round(f"{number:04d}", trigger, "training", now, run),
        past=(*_lately(state.past, now), (now, 0.0)),
        count=number,
    )


def trained(state: State, ended: float, version: str) -> State:
    """Return the state after a training, whose version has to be checked."""
    return moved(_spent(state, ended), "checking", version=version, pid=None)


def over(state: State, now: float, result: str, *, good: bool = False) -> State:
    """Return the state with its round at its end."""
    assert state.round is not None
    after = _spent(state, now) if state.round.phase == "training" else state
    return moved(after, "over", ended=now, result=result, good=good, pid=None)


def moved(state: State, phase: Phase, **changes: Any) -> State:
    """Return the state with its round in a phase."""
    assert state.round is not None
    return replace(state, round=replace(state.round, phase=phase, **changes))


def _spent(state: State, ended: float) -> State:
    assert state.round is not None
    began = state.round.began
    past = tuple((at, max(0.0, ended - at) if at == began else seconds) for at, seconds in state.past)
    return replace(state, past=past)


def _lately(past: Iterable[tuple[float, float]], now: float) -> tuple[tuple[float, float], ...]:
    return tuple(each for each in past if each[0] > now - DAY_S)[-KEPT:]


def _within(hours: str, now: time) -> bool:
    first, last = (time.fromisoformat(each) for each in hours.split("-"))
    return first <= now < last if first <= last else now >= first or now < last
