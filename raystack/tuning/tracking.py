"""Recording of a study in MLflow: a run for the study, and in it a nested run for each trial.

Only the study's driver has a tracker, and only `register` and `finish` wait for MLflow. A trial that is
recorded again, because its driver was killed, is recorded in the same MLflow run, and nothing twice.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from raystack import config as configs
from raystack.checkpoint import CONFIG, ModelSpec
from raystack.config import RunConfig
from raystack.config.space import Domain
from raystack.errors import ConfigError
from raystack.plan import TunePlan
from raystack.plan.tuning import perturbed, trial_config
from raystack.registry import STATUS_TAG, Recording, Registered, Run, RunStatus, flatten, now_ms
from raystack.registry.provenance import source_tags
from raystack.tuning.record import Report, Status, StudyStore, Trial, feasible, value

SPACE = "space.yaml"
STUDY_TAG, TRIAL_TAG = "raystack.study", "raystack.trial"
REASON_TAG, BEST_TAG = "raystack.reason", "raystack.best"
INTERRUPTED = "interrupted"
"""STATUS_TAG of a trial that goes on with the study."""

ENDS: Mapping[Status, RunStatus] = {
    "finished": "FINISHED",
    "pruned": "KILLED",
    "stopped": "KILLED",
    "infeasible": "KILLED",
    "failed": "FAILED",
}
"""MLflow's status of a trial that is over. It has none for `pruned` and the like, which STATUS_TAG tells."""


class StudyTracker(Protocol):
    """Interface through which the driver records a study."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, e.g. that MLflow was unavailable. Complete after `finish`."""

    @property
    def links(self) -> Mapping[str, str]:
        """URLs or commands that show the study, by the name of the tool."""

    def start(self, trials: Iterable[Trial] = ()) -> None:
        """Start sending. Return at once; MLflow is imported by a thread, which takes seconds of CPU.

        `trials` are those of earlier starts of the study: what MLflow has not got of them is sent.
        """

    def trial_started(self, trial: Trial, config: RunConfig) -> None:
        """See a trial start or go on; with another point, if it took over another trial's checkpoint."""

    def trial_report(self, trial: Trial, report: Report) -> None:
        """See a report of a trial."""

    def trial_ended(self, trial: Trial) -> None:
        """See a trial that is over, whatever its status, and whether it has started or not."""

    def register(self, folder: Path, card: ModelSpec) -> Registered | None:
        """Register the `model/` folder of a trial's checkpoint as the config says, and wait for that.

        Returns None if the config names no model, or if MLflow rejects it (noted) or is unavailable: then the
        version is created from the same folder once MLflow is back, and `finish` notes it.
        """

    def finish(self, status: RunStatus, best: Trial | None, texts: Mapping[str, str]) -> None:
        """End the study's run and wait for MLflow for a limited time. `texts` are files by name.

        Trials that have not ended are recorded as interrupted. Unsent data is kept on disk and noted.
        """


def open_study_tracker(plan: TunePlan, warn: Callable[[str], None]) -> StudyTracker:
    """Return the plan's tracker, not started yet. Raise ConfigError if a secret for the login is missing.

    `warn` is called from a thread, with a line for the user that should not wait for the end of the study.
    """
    if plan.tracking_uri is None:
        return NoStudyTracker()
    return MlflowStudyTracker(plan, plan.tracking_uri, warn)


class NoStudyTracker:
    """Tracker that records nothing."""

    notes: tuple[str, ...] = ()

    @property
    def links(self) -> Mapping[str, str]:
        return {}

    def start(self, trials: Iterable[Trial] = ()) -> None:
        pass

    def trial_started(self, trial: Trial, config: RunConfig) -> None:
        pass

    def trial_report(self, trial: Trial, report: Report) -> None:
        pass

    def trial_ended(self, trial: Trial) -> None:
        pass

    def register(self, folder: Path, card: ModelSpec) -> Registered | None:
        return None

    def finish(self, status: RunStatus, best: Trial | None, texts: Mapping[str, str]) -> None:
        pass


class MlflowStudyTracker:
    """Tracker that records in MLflow from one background thread, whatever the number of trials."""

    def __init__(self, plan: TunePlan, uri: str, warn: Callable[[str], None]) -> None:
        self._plan = plan
        self._study = Run(
            tracking_uri=uri,
            experiment=plan.experiment,
            run_id=_study_id(plan),
            artifacts=plan.artifacts,
            tags={**plan.config.experiment.tags, STUDY_TAG: plan.name},
            started_ms=now_ms(),
            name=plan.name,
        )
        self._recording = Recording(self._study, plan.config, warn)
        self._runs: dict[str, Run] = {}  # of all trials that were seen, by id
        self._running: dict[str, None] = {}  # ids of those that have not ended
        self._perturbed = perturbed(plan.tuning, plan.space)
        self._counts: Counter[Status] = Counter()
        self._best: dict[str, float] = {}  # of the trials that ended, by metric
        self._recording.params(_study_params(plan))
        self._recording.tags(source_tags(plan.config, "study", plan.paths.folder))
        self._recording.text(CONFIG, configs.dump(plan.config))
        self._recording.text(SPACE, _space_file(plan))

    @property
    def notes(self) -> tuple[str, ...]:
        return self._recording.notes

    @property
    def links(self) -> Mapping[str, str]:
        return self._recording.links

    def start(self, trials: Iterable[Trial] = ()) -> None:
        over = [trial for trial in trials if trial.over]
        for trial in sorted(over, key=_ended_ms):
            self._open(trial, None)
            self._end(trial, _ended_ms(trial))
        self._recording.start()

    def trial_started(self, trial: Trial, config: RunConfig) -> None:
        if trial.id not in self._running:
            self._open(trial, config)
            return
        # Where its point is another one now, it has exploited another trial.
        run = self._runs[trial.id]
        self._recording.params(_trial_params(trial, config), run)
        self._record_points(trial, run)

    def trial_report(self, trial: Trial, report: Report) -> None:
        if trial.id not in self._running:
            self._open(trial, None)  # with its reports
            return
        # A trial that goes on from a checkpoint makes later reports again; only one that exploited another
        # trial has something new to tell of a step.
        run, once = self._runs[trial.id], not trial.exploits
        self._recording.metrics(report.step, report.metrics, now_ms(), run, once=once)

    def trial_ended(self, trial: Trial) -> None:
        if trial.id not in self._running:
            self._open(trial, None)
        self._end(trial, now_ms())

    def register(self, folder: Path, card: ModelSpec) -> Registered | None:
        run = self._runs.get(card.run_id)
        over = run.model_copy(update={"over": True}) if run is not None else None
        return self._recording.register(self._plan.config.registry, folder, card, over)

    def finish(self, status: RunStatus, best: Trial | None, texts: Mapping[str, str]) -> None:
        at = now_ms()
        for trial_id in self._running:
            self._recording.tags({STATUS_TAG: INTERRUPTED}, self._runs[trial_id])
            self._recording.end(self._runs[trial_id], "KILLED", at)
        counts = {f"trials/{name}": float(self._counts[name]) for name in ENDS}
        self._recording.metrics(self._counts.total(), counts, at)
        if best is not None:
            self._recording.tags({BEST_TAG: best.id})
        for path, text in texts.items():
            self._recording.text(path, text)
        self._recording.finish(status)

    def _open(self, trial: Trial, config: RunConfig | None) -> None:
        """Record what there is of a trial that this tracker has not seen. MLflow may have it already."""
        running: Status = "running"
        started_ms = now_ms() if trial.started is None else int(trial.started * 1000)
        run = Run(
            tracking_uri=self._study.tracking_uri,
            experiment=self._study.experiment,
            run_id=trial.id,
            artifacts=self._study.artifacts,
            tags={
                **self._plan.config.experiment.tags,
                STUDY_TAG: self._plan.name,
                TRIAL_TAG: str(trial.number),
                STATUS_TAG: trial.status,
            },
            started_ms=started_ms,
            parent=self._study.run_id,
            over=trial.over,
        )
        self._runs[trial.id] = run
        self._running[trial.id] = None
        if config is None and trial.status != "infeasible":
            config = _config(self._plan, trial)
        self._recording.params(_trial_params(trial, config), run)
        if trial.reports and trial.status == running:
            self._recording.tags({STATUS_TAG: running}, run)
        for report in trial.reports:
            at = started_ms + int(report.seconds * 1000)
            self._recording.metrics(report.step, report.metrics, at, run, once=True)
        self._record_points(trial, run)

    def _record_points(self, trial: Trial, run: Run) -> None:
        """Record the numbers of a population's trial as metrics, because they change during the trial."""
        points = [(0, trial.point)] if not trial.exploits else []
        points += [(exploit.step, exploit.point) for exploit in trial.exploits]
        for step, point in points:
            numbers = {
                f"point/{path}": float(point[path])
                for path in self._perturbed
                if isinstance(point.get(path), (int, float))
            }
            self._recording.metrics(step, numbers, now_ms(), run, once=True)

    def _end(self, trial: Trial, at_ms: int) -> None:
        run = self._runs[trial.id]
        reason = {REASON_TAG: trial.reason} if trial.reason else {}
        self._recording.tags({STATUS_TAG: trial.status, **reason}, run)
        self._recording.end(run, ENDS[trial.status], at_ms)
        self._counts[trial.status] += 1
        del self._running[trial.id]
        for objective in self._plan.objectives:
            number = value(trial, objective, self._plan) if feasible(trial, self._plan) else None
            if number is not None:
                better = max if objective.mode == "max" else min
                self._best[objective.metric] = better(number, self._best.get(objective.metric, number))
        best = {f"best/{metric}": number for metric, number in self._best.items()}
        self._recording.metrics(trial.number, best, at_ms, once=True)


def _study_id(plan: TunePlan) -> str:
    """Return the id of the study's first start: another study of that name has other MLflow runs."""
    store = StudyStore(plan.paths.folder)
    return store.first_start() if store.exists() else plan.run_id


def _config(plan: TunePlan, trial: Trial) -> RunConfig | None:
    try:
        return trial_config(plan, trial.point)
    except ConfigError:
        return None


def _ended_ms(trial: Trial) -> int:
    return int(((trial.started or 0) + trial.seconds) * 1000)


def _trial_params(trial: Trial, config: RunConfig | None) -> dict[str, str]:
    """Return the point, and the whole config as a training records it."""
    whole = flatten(config.model_dump(mode="json")) if config is not None else ()
    return {**dict(flatten(trial.point)), **dict(whole)}


def _study_params(plan: TunePlan) -> dict[str, str]:
    tuning = plan.tuning.model_dump(mode="json", exclude={"space", "points"}, exclude_none=True)
    space = {f"tuning.space.{path}": _domain_text(domain) for path, domain in plan.tuning.space.items()}
    return dict(flatten(tuning, "tuning")) | space


def _domain_text(domain: Domain) -> str:
    """Return a domain in one line, such as `loguniform [0.0001, 0.1]`."""
    data = domain.model_dump(mode="json")
    values: Any = data[domain.kind]
    given = list(values) if isinstance(values, dict) else values  # of a group its choices' names
    condition = f" when {json.dumps(data['when'])}" if domain.when else ""
    return f"{domain.kind} {json.dumps(given)}{condition}"


def _space_file(plan: TunePlan) -> str:
    tuning = plan.tuning.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump({"tuning": tuning}, sort_keys=False, allow_unicode=True)
