"""Records of a study's trials beside MLflow's: a run of its own each, in a group of the study's name."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from raystack.checkpoint import CheckpointStore, ModelSpec
from raystack.config import RunConfig
from raystack.plan import TunePlan
from raystack.plan.naming import run_paths
from raystack.plan.tuning import plan_trial
from raystack.registry import Registered, RunStatus
from raystack.trackers import Recorder, Status, open_trackers
from raystack.tuning import record
from raystack.tuning.record import Report, Trial
from raystack.tuning.tracking import StudyTracker

ENDS: Mapping[record.Status, Status] = {
    "finished": "finished",
    "pruned": "finished",
    "stopped": "finished",
    "infeasible": "failed",
    "failed": "failed",
}


class Beside:
    """A study's tracker that passes all on to `inner`, and the running trials to the plan's trackers."""

    def __init__(self, plan: TunePlan, inner: StudyTracker, warn: Callable[[str], None]) -> None:
        self._plan, self._inner, self._warn = plan, inner, warn
        self._recorders: dict[str, tuple[Recorder, ...]] = {}  # of the running trials, by id
        self._ended: list[Recorder] = []

    @property
    def notes(self) -> tuple[str, ...]:
        own = dict.fromkeys(note for recorder in self._ended for note in recorder.notes)
        return (*self._inner.notes, *own)

    @property
    def links(self) -> Mapping[str, str]:
        own = {name: link for recorder in self._ended for name, link in recorder.links.items()}
        return {**self._inner.links, **own}

    def start(self, trials: Iterable[Trial] = ()) -> None:
        self._inner.start(trials)

    def trial_started(self, trial: Trial, config: RunConfig) -> None:
        self._inner.trial_started(trial, config)
        if trial.id not in self._recorders:
            plan = plan_trial(self._plan, trial.id, trial.point)
            self._recorders[trial.id] = open_trackers(plan, self._warn, self._plan.name)
        step = CheckpointStore(run_paths(self._plan.paths.folder, trial.id).checkpoints).newest()
        for recorder in self._recorders[trial.id]:
            recorder.start(step or 0)

    def trial_report(self, trial: Trial, report: Report) -> None:
        self._inner.trial_report(trial, report)
        for recorder in self._recorders.get(trial.id, ()):
            recorder.metrics(report.step, report.metrics)

    def trial_ended(self, trial: Trial) -> None:
        self._inner.trial_ended(trial)
        self._end(trial.id, ENDS[trial.status])

    def register(self, folder: Path, card: ModelSpec) -> Registered | None:
        return self._inner.register(folder, card)

    def finish(self, status: RunStatus, best: Trial | None, texts: Mapping[str, str]) -> None:
        self._inner.finish(status, best, texts)
        for trial_id in list(self._recorders):
            self._end(trial_id, "paused")
        for recorder in self._ended:
            recorder.wait()

    def _end(self, trial_id: str, status: Status) -> None:
        for recorder in self._recorders.pop(trial_id, ()):
            recorder.end(status)
            self._ended.append(recorder)
