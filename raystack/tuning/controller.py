"""The trials of a study on Ray Tune: which come next, what they report, and how they end.

Whatever happens to a trial is written to the record before anything else is asked.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from raystack.errors import ConfigError, PlanError, Problem, nearest
from raystack.events import Listener, TrialEnded, TrialExploited, TrialReported, TrialStarted
from raystack.plan import TrainPlan, TunePlan
from raystack.plan.tuning import plan_trial, trial_config
from raystack.ray_internals.tune import Callback, SearchAlgorithm, make_trial, pointed
from raystack.ray_internals.tune import Trial as TuneTrial
from raystack.tuning.record import Exploit, Report, Status, StudyStore, Trial, pareto, ranked, value
from raystack.tuning.search import Search
from raystack.tuning.tracking import StudyTracker
from raystack.tuning.worker import COMPLETE, ERROR, OWN, PAUSED, STEP, TRACE

INFEASIBLE = 200
"""Infeasible points in a row after which the space is taken to be impossible."""
LOST = "its process is gone"


@dataclass
class _Live:
    """A trial that Ray Tune knows."""

    trial: Trial
    tune: TuneTrial
    began: float | None = None
    """Monotonic time at which its present attempt began; None while it does not run."""
    before: float = 0.0
    """Seconds of its earlier attempts."""
    last: Mapping[str, Any] = field(default_factory=dict)
    """Its latest result."""

    def clock(self) -> None:
        """Bring the trial's seconds up to date; a trial that waits with a checkpoint uses none."""
        if self.began is not None:
            self.trial.seconds = self.before + time.monotonic() - self.began
            if self.tune.status == TuneTrial.PAUSED:
                self.began = None


class Trials:
    """The trials of a study. Ray Tune asks it through `Asking` and tells it through `Watching`."""

    def __init__(
        self,
        plan: TunePlan,
        store: StudyStore,
        search: Search,
        tracker: StudyTracker,
        tell: Listener,
        trials: Sequence[Trial],
        *,
        trainable: str,
        scratch: str,
        total: Mapping[str, float],
    ) -> None:
        self._plan, self._store, self._search, self._tracker, self._tell = plan, store, search, tracker, tell
        self._trainable, self._scratch, self._total = trainable, scratch, total
        self.all = list(trials)
        """All trials, by number."""
        self.live: dict[str, _Live] = {}
        self._waiting = [trial for trial in self.all if not trial.over]
        self._order = 1 + max((each.order for trial in trials for each in trial.reports), default=-1)
        self.finished = False
        """True if no more trials are to come."""
        self.error: Exception | None = None
        """Why the study cannot go on."""
        self.ended = 0
        """Number of trials that have ended in this start of the study."""
        self._before, self._recorded = list(trials), False
        self._cleaned = {trial.number for trial in trials if trial.over} - {one.number for one in self.kept()}
        self.ending: Status | None = None
        """What halted trials become: `stopped` by a limit, or `running` if the study pauses."""

    def next(self) -> TuneTrial | None:
        """Return the next trial for Ray Tune; None if there is none now, or no more at all."""
        if self.finished or not self._room():
            return None
        trial = self._waiting.pop(0) if self._waiting else self._new()
        if trial is None:
            self.finished = True
            return None
        return self._queued(trial)

    def _room(self) -> bool:
        """Return whether a trial could start now, so that the search knows all that there is to know."""
        if self._plan.tuning.scheduler.kind in ("pbt", "pb2"):
            return True  # a population takes turns
        running = [
            live.trial
            for live in self.live.values()
            if not live.trial.over and live.tune.status != TuneTrial.PAUSED
        ]
        if self._plan.tuning.parallel is not None:
            return len(running) < self._plan.tuning.parallel
        if not running:
            return True
        needs = min((trial.resources for trial in running), key=lambda each: sum(each.values()))
        used = {name: sum(trial.resources.get(name, 0.0) for trial in running) for name in needs}
        return all(used[name] + amount <= self._total.get(name, 0.0) for name, amount in needs.items())

    def _new(self) -> Trial | None:
        """Ask the search for a trial that can run; None if there are enough, or no more."""
        for _ in range(INFEASIBLE):
            if sum(trial.status != "infeasible" for trial in self.all) >= self._plan.trials:
                return None
            number = len(self.all)
            point = self._search.ask(number)
            if point is None:
                return None
            trial = Trial(number=number, id=f"{self._plan.name}-{number:04d}", point=dict(point))
            self.all.append(trial)
            try:
                self._planned(trial)
            except (ConfigError, PlanError) as error:
                trial.status, trial.reason = "infeasible", str(error.problems[0])
                self._see_end(trial)
                continue
            self._store.write(trial)
            return trial
        rule = f"{INFEASIBLE} points in a row were infeasible, the last one: {self.all[-1].reason}"
        self.error = PlanError(Problem("tuning.space", rule=rule, remedy="narrow the space"))
        return None

    def _planned(self, trial: Trial) -> TrainPlan:
        """Plan a trial; raise ConfigError or PlanError if it cannot be."""
        plan = plan_trial(self._plan, trial.id, trial.point)
        trial.workers = plan.workers.count
        trial.resources = {
            name: amount * plan.workers.count for name, amount in plan.workers.resources.items()
        }
        missing = [name for name, amount in trial.resources.items() if amount > self._total.get(name, 0.0)]
        if missing and plan.workers.wait_s == 0:
            name = missing[0]
            needed, there = trial.resources[name], self._total.get(name, 0.0)
            rule = f"a trial needs {needed:g} {name}, and the cluster has {there:g}"
            raise PlanError(Problem("resources", rule=rule))
        return plan

    def _queued(self, trial: Trial) -> TuneTrial:
        plan = self._planned(trial)
        each = plan.workers.resources
        # Several workers are placed by Ray Train, in the bundles after the driver's, which needs none.
        bundles = [each] if plan.workers.inline else [{}, *([each] * plan.workers.count)]
        tune = make_trial(
            self._trainable,
            trial.id,
            trial.point,
            bundles,
            plan.workers.placement,
            scratch=self._scratch,
            failures=plan.training.faults.lost.times,
        )
        self.live[trial.id] = _Live(trial, tune)
        return tune

    def started(self, tune: TuneTrial) -> None:
        """See a trial start, or go on."""
        if not self._recorded:
            self._recorded = True
            # Not earlier: importing MLflow takes seconds of CPU that the start of the actors needs.
            self._tracker.start(self._before)
        live = self.live[tune.trial_id]
        trial = live.trial
        live.began, live.before = time.monotonic(), trial.seconds
        if dict(tune.config) != trial.point:
            self._exploited(live)
        if trial.started is None:
            trial.started = time.time()
            self._store.write(trial)
        self._tracker.trial_started(trial, trial_config(self._plan, trial.point))
        self._tell(TrialStarted(trial.number, dict(trial.point), trial.workers))

    def _exploited(self, live: _Live) -> None:
        """Record that a trial goes on from another one's checkpoint."""
        trial = live.trial
        folder = self._store.folder
        origin = pointed(live.tune.latest_checkpoint_result).removeprefix(f"{folder}/runs/")
        donor, _, step = origin.partition("/")
        number = next(each.number for each in self.all if each.id == donor)
        trial.point = dict(live.tune.config)
        exploit = Exploit(
            report=len(trial.reports), donor=number, step=int(step.rpartition("-")[2]), point=trial.point
        )
        trial.exploits.append(exploit)
        self._store.write(trial)
        self._tell(TrialExploited(trial.number, number, exploit.step, trial.point))

    def reported(self, tune: TuneTrial, result: Mapping[str, Any]) -> None:
        """See a result."""
        live = self.live[tune.trial_id]
        live.clock()
        live.last = result
        metrics = {
            name: float(number)
            for name, number in result.items()
            if "/" in name and not name.startswith(OWN) and isinstance(number, (int, float))
        }
        if metrics:
            self._see_report(live.trial, result, metrics)
        self._store.write(live.trial)

    def _see_report(self, trial: Trial, result: Mapping[str, Any], metrics: dict[str, float]) -> None:
        lacks = [each.metric for each in self._plan.objectives if each.metric not in metrics]
        if lacks and self.error is None:
            close = nearest(lacks[0], metrics)
            remedy = f"did you mean {close}?" if close else f"it reports {', '.join(sorted(metrics))}"
            rule = "no trial reports this metric"
            self.error = ConfigError(Problem("tuning.metric", rule=rule, got=lacks[0], remedy=remedy))
        number = int(result["training_iteration"])
        report = Report(
            number=number, step=result[STEP], seconds=trial.seconds, metrics=metrics, order=self._order
        )
        self._order += 1
        # A trial that goes on from a checkpoint makes its later reports again.
        trial.reports = [*(each for each in trial.reports if each.number < number), report]
        self._search.report(trial, report)
        self._tracker.trial_report(trial, report)
        now = value(trial, self._plan.objectives[0], self._plan)
        self._tell(TrialReported(trial.number, number, report.step, metrics, now))

    def completed(self, tune: TuneTrial) -> None:
        """See a trial end: by itself, by its scheduler, or because it was halted."""
        live = self.live[tune.trial_id]
        live.clock()
        live.began = None
        trial, last = live.trial, live.last
        if trial.over:
            return
        if (reason := last.get(ERROR)) is not None:
            trial.status, trial.reason = "failed", str(reason)
            if last.get(TRACE):
                self._store.write_trace(trial, str(last[TRACE]))
        elif last.get(COMPLETE):
            trial.status = "finished"
        elif self.ending is not None:
            trial.status = self.ending
        elif last.get(PAUSED):
            trial.status, trial.reason = "failed", "it was told to stop by another process"
        else:
            trial.status = "pruned"
        if trial.over:
            self._see_end(trial)
        else:
            self._store.write(trial)

    def failed(self, tune: TuneTrial, error: BaseException | None) -> None:
        """See a trial whose process was lost once too often."""
        live = self.live[tune.trial_id]
        live.clock()
        live.began = None
        if not live.trial.over:
            lines = [line for line in str(error or "").splitlines() if line.strip()]
            live.trial.status = "failed"
            live.trial.reason = LOST if error is None or "died" in str(error) else lines[0] if lines else LOST
            self._see_end(live.trial)

    def _see_end(self, trial: Trial) -> None:
        self.ended += trial.status != "infeasible"
        self._store.write(trial)
        self._search.end(trial)
        self._tracker.trial_ended(trial)
        kept = self.kept()
        self._tell(
            TrialEnded(
                trial.number,
                trial.status,
                value(trial, self._plan.objectives[0], self._plan),
                trial in kept[:1] if len(self._plan.objectives) == 1 else trial in kept,
                trial.reason,
                trial.seconds,
            )
        )
        self.clean(kept)

    def kept(self) -> list[Trial]:
        """Return the trials whose checkpoints are kept, the best first."""
        over = [trial for trial in self.all if trial.over and trial.status != "infeasible"]
        if len(self._plan.objectives) > 1:
            return pareto(over, self._plan)
        return ranked(over, self._plan)[: self._plan.tuning.keep]

    def clean(self, kept: Iterable[Trial]) -> None:
        """Delete the checkpoints of trials that are over and not kept."""
        left = self._cleaned | {trial.number for trial in kept}
        for trial in self.all:
            if trial.status in ("finished", "pruned", "failed") and trial.number not in left:
                self._store.storage.delete(f"runs/{trial.id}/checkpoints")
                self._cleaned.add(trial.number)

    def close(self) -> None:
        """Delete what trials of this start have still written, once no process of theirs is left."""
        self._cleaned -= {live.trial.number for live in self.live.values()}
        self.clean(self.kept())

    def refresh(self) -> None:
        """Bring the seconds of running trials up to date."""
        for live in self.live.values():
            live.clock()


class Asking(SearchAlgorithm):
    """Where Ray Tune gets its trials from."""

    metric = None

    def __init__(self, trials: Trials) -> None:
        self._trials = trials

    def next_trial(self) -> TuneTrial | None:
        return self._trials.next()

    def is_finished(self) -> bool:
        return self._trials.finished

    def set_finished(self) -> None:
        self._trials.finished = True


class Watching(Callback):
    """What Ray Tune tells of its trials."""

    def __init__(self, trials: Trials) -> None:
        self._trials = trials

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keep an error of the block; Ray Tune would take it for the trial's, and start that again."""
        try:
            yield
        except Exception as error:
            self._trials.error = self._trials.error or error
            raise

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        with self._kept():
            self._trials.started(trial)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        with self._kept():
            self._trials.reported(trial, result)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        with self._kept():
            self._trials.completed(trial)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        with self._kept():
            self._trials.failed(trial, trial.get_pickled_error())
