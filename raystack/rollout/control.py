"""A rollout from one interval to the next: measure, decide, write it down, carry it out.

It may be killed between any two lines. What is decided is written before it is carried out, and what is
carried out may be done twice.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from raystack.config.rollout import Metric
from raystack.errors import RaystackError, ServingError
from raystack.plan.rollout import RolloutPlan
from raystack.rollout import counts
from raystack.rollout.counts import Counts
from raystack.rollout.deciding import Decided, answer, away_s, back, decide, numbers
from raystack.rollout.judging import Interval, judged
from raystack.rollout.state import Decision, State, Value
from raystack.rollout.store import RolloutStore
from raystack.rollout.traffic import Traffic

TRIES = 3
"""Times that the service may refuse what is asked of it before the version goes back."""

logger = logging.getLogger(__name__)

Ask = Callable[[Metric, str, str], float]
"""Ask Prometheus for the number of a metric, of a name and version. Raises ValueError, OSError."""
Promote = Callable[[RolloutPlan, State], None]
"""Move the alias. Raises ServingError while MLflow is away, another RaystackError if it refuses."""
Back = Callable[[RolloutPlan, State], None]
"""Record that the version went back."""


@dataclass(frozen=True)
class Outside:
    """What a rollout has to do with: the service, Prometheus, MLflow, the time."""

    traffic: Traffic
    ask: Ask
    promote: Promote
    back: Back
    clock: Callable[[], float] = time.time


class UncountedError(Exception):
    """The counters cannot be read now: the interval is left out."""


class Control:
    """The control of one rollout, for one process at a time."""

    def __init__(self, plan: RolloutPlan, store: RolloutStore, outside: Outside) -> None:
        self._plan, self._store, self._outside = plan, store, outside
        self._tries = 0

    def begin(self) -> State:
        """Return the state at the start of this process; the service may have forgotten what it was told.

        A long time without a process is no part of the step or of an interval, and nobody has waited in it.
        """
        state = self._store.state()
        if state.doing == "watch" and not state.over:
            if away := away_s(self._plan, state, self._now()):
                since, waits_since = state.since + away, state.waits_since + away
                state = replace(state, since=since, waits_since=waits_since, read_at=state.read_at + away)
            state = replace(state, doing="load")
            self._store.write(state)
        return state

    def tick(self) -> State:
        """Go on by one interval; return the state."""
        state = self._store.state()
        if state.over:
            return state
        state = self._ordered(state)
        if state.doing == "watch":
            state = self._watch(state)
        while not state.over and state.doing != "watch":
            done = self._try(state)
            if done is None:
                return self._store.state()
            state = done
        return state

    def _now(self) -> float:
        return self._outside.clock()

    def _ordered(self, state: State) -> State:
        """Decide on what is asked."""
        for order in self._store.orders(state.order):
            state = self._keep(answer(self._plan, state, order, self._now()))
        return state

    def _keep(self, decided: Decided) -> State:
        logger.info("%s: %s", decided.decision.what, decided.decision.why)
        return self._store.decide(*decided)

    def _watch(self, state: State) -> State:
        """Measure, judge, and decide."""
        plan, traffic, now = self._plan, self._outside.traffic, self._now()
        try:
            read = self._counted(state)
            if (other := self._other(state)) is not None:
                return self._replaced(state, other)
        except UncountedError as error:
            return self._troubled(state, error)
        new = counts.since(state.seen, read)
        interval = Interval(
            state.read_at, new.get(state.stable, Counts()), new.get(state.candidate, Counts())
        )
        state = replace(
            judged(plan, state, interval, traffic.bounds), seen=_last(state, read), read_at=now, trouble=""
        )
        state = self._looked(state, now)
        self._store.write(state)
        decided = decide(plan, state, now)
        return state if decided is None else self._keep(decided)

    def _counted(self, state: State) -> Mapping[str, tuple[str, Counts]]:
        """Return the counters as they are now. Raises UncountedError."""
        try:
            return counts.read(self._outside.traffic.seen(state.name))
        except Exception as error:  # Ray's and Serve's, while the service is away
            raise UncountedError(_line(error)) from error

    def _other(self, state: State) -> str | None:
        """Return the version that somebody else has served meanwhile; None if it is one of both."""
        try:
            served = self._outside.traffic.served(state.name)
        except Exception as error:
            raise UncountedError(_line(error)) from error
        return None if served in (None, state.stable, state.candidate) else served

    def _replaced(self, state: State, other: str) -> State:
        """End without a change of the service: what is served is not the rollout's any more."""
        why = f"{other} is served meanwhile, which is none of both versions"
        state = replace(state, status=state.ending or "failed", cause=state.cause or why)
        self._outside.back(self._plan, state)
        return self._keep(self._ended(state, self._now(), why))

    def _looked(self, state: State, now: float) -> State:
        """Return the state with the numbers of Prometheus, when it is time to look."""
        of = self._plan.analysis
        if not of.metrics or now - state.metrics_at < of.metrics_s:
            return state
        found = {
            name: self._number(state, metric, state.metrics.get(name, Value()), now)
            for name, metric in of.metrics.items()
        }
        return replace(state, metrics=found, metrics_at=now)

    def _number(self, state: State, metric: Metric, before: Value, now: float) -> Value:
        try:
            value = self._outside.ask(metric, state.name, state.candidate)
        except (OSError, ValueError) as error:
            return replace(before, value=None, broken=0, trouble=str(error))
        kept = (metric.min is None or value >= metric.min) and (metric.max is None or value <= metric.max)
        if kept:
            return Value(value)
        return Value(value, before.broken + 1, before.first_bad or now)

    def _try(self, state: State) -> State | None:
        """Do what is to be done; None if it has to be tried again after an interval."""
        try:
            done = self._do(state)
        except RaystackError as error:
            self._tries += 1
            if state.doing == "load" or (state.doing in ("steer", "promote") and self._tries >= TRIES):
                self._tries = 0
                return self._keep(back(self._plan, state, self._now(), "failed", _line(error)))
            self._troubled(state, error)
            return None
        except Exception as error:  # Ray's and Serve's, while the service is away
            self._troubled(state, error)
            return None
        self._tries = 0
        return done

    def _do(self, state: State) -> State:
        plan, traffic, name = self._plan, self._outside.traffic, state.name
        if state.doing not in ("tidy", "alias") and (other := self._other(state)) is not None:
            return self._replaced(state, other)
        match state.doing:
            case "load":
                traffic.add(plan.at(0.0), name, self._still_wanted)
                state = self._store.state()  # orders may have been answered meanwhile
                return self._write(replace(state, doing="steer")) if state.doing == "load" else state
            case "steer":
                return self._steered(state)
            case "promote":
                traffic.take_over(plan.promoted, name)
                return self._write(replace(state, doing="tidy", weight=1.0))
            case "tidy":
                traffic.remove(plan.promoted, name)
                return self._write(replace(state, doing="alias"))
            case "alias":
                return self._finished(state)
            case _:
                return self._gone_back(state)

    def _still_wanted(self) -> bool:
        """Decide on what is asked while a version is loading; return whether it is to go on loading."""
        try:
            return self._ordered(self._store.state()).doing == "load"
        except Exception as error:  # a storage that is away
            logger.warning("orders are looked for again: %s", _line(error))
            return True

    def _steered(self, state: State) -> State:
        """Give the versions their shares, and begin to watch from what the counters say then."""
        traffic = self._outside.traffic
        traffic.steer(self._plan.at(state.weight), state.name)
        now = self._now()  # the step begins when the weight is given
        if not state.read_at:
            read = self._counted(state)
            history = counts.since({}, read).get(state.stable, Counts())
            state = replace(state, seen=_last(state, read), history=history)
        if not state.since:
            state = replace(state, since=now, waits_since=now)
        return self._write(replace(state, doing="watch", read_at=state.read_at or now))

    def _gone_back(self, state: State) -> State:
        traffic, plan = self._outside.traffic, self._plan.at(None)
        traffic.steer(plan, state.name)
        if state.reaction_s is None and state.first_bad is not None:
            state = self._write(replace(state, reaction_s=self._now() - state.first_bad))
        traffic.remove(plan, state.name)
        assert state.ending is not None
        self._outside.back(self._plan, state)
        why = f"all requests go to {state.stable}"
        if state.reaction_s is not None:
            why += f", {state.reaction_s:.1f} s after the first bad interval began"
        return self._keep(self._ended(replace(state, status=state.ending), self._now(), why))

    def _finished(self, state: State) -> State:
        """Move the alias, and end. While MLflow is away it is tried again for `patience_s`."""
        trouble = ""
        try:
            self._outside.promote(self._plan, state)
        except ServingError as error:
            since = state.trouble_since or self._now()
            if self._now() - since < self._plan.rollout.patience_s:
                raise
            trouble = f"; the alias was not moved: {_line(error)}"
        except RaystackError as error:
            trouble = f"; the alias was not moved: {_line(error)}"
        why = f"{state.candidate} answers all requests{trouble}"
        return self._keep(self._ended(replace(state, status="finished", cause=why), self._now(), why))

    def _ended(self, state: State, now: float, why: str) -> Decided:
        found = {**numbers(self._plan, state), "reaction_s": state.reaction_s}
        state = replace(state, doing="watch", trouble="")
        return Decided(state, Decision(now, "end", f"{state.status}: {why}", numbers=found))

    def _write(self, state: State) -> State:
        state = replace(state, trouble="", trouble_since=0.0)
        self._store.write(state)
        return state

    def _troubled(self, state: State, error: Exception) -> State:
        """Note why something does not succeed; it is tried again. A version must not stay unwatched."""
        line, now = _line(error), self._now()
        since = state.trouble_since or now
        if state.trouble != line:
            logger.warning("%s: %s", state.doing, line)
        waits = now - since > self._plan.rollout.patience_s and state.ending is None
        state = replace(state, trouble=line, trouble_since=since)
        if waits and state.doing in ("load", "steer", "watch", "promote"):
            return self._keep(back(self._plan, state, now, "failed", f"the service does not answer: {line}"))
        if waits and state.doing == "tidy":
            state = replace(state, doing="alias")  # what is left there gets no request
        self._store.write(state)
        return state


def _last(state: State, read: Mapping[str, tuple[str, Counts]]) -> dict[str, Counts]:
    """Return the counters to compare the next ones with. A replica that did not answer may come again."""
    return {**state.seen, **{key: own for key, (_, own) in read.items()}}


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.partition("\n")[0]
