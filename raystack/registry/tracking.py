"""Recording of a run in MLflow: its config, metrics, files and model.

Only the driver process of a run has a tracker; workers report to the driver. Only `register` and `finish`
wait for MLflow, and no method fails because of it: `notes` lists what MLflow rejects.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from raystack import config
from raystack.checkpoint import CONFIG, ModelSpec
from raystack.plan import TrainPlan
from raystack.registry.command import Registered, Run, RunStatus, now_ms
from raystack.registry.provenance import datasets, source_tags, working_diff
from raystack.registry.recording import Recording, flatten

DIFF = "git.diff"
"""Artifact with what the task's files differ in from their last commit."""

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Interface through which the driver records a run."""

    @property
    def mlflow_run_id(self) -> str | None:
        """MLflow's id of the run, or None until it is known."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, e.g. that MLflow was unavailable. Complete after `finish`."""

    @property
    def links(self) -> Mapping[str, str]:
        """URLs or commands that show the run, by the name of the tool."""

    def start(self) -> None:
        """Start sending, the config first, as params and as `config.yaml`. Return at once.

        Anything logged before is queued. Importing MLflow and setting up its store takes seconds of CPU, so
        a run starts its tracker when its first step is due.
        """

    def log_params(self, params: Mapping[str, str]) -> None:
        """Log additional params. An existing param keeps its value; a later one is the tag `now.KEY`."""

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; they may change."""

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        """Log values after `step` optimizer steps. NaN and infinity are allowed.

        `timestamp_ms` is in milliseconds since 1970; None is now.
        """

    def log_text(self, path: str, text: str) -> None:
        """Log a text file at the relative `path` among the run's artifacts."""

    def register(self, model_folder: Path, card: ModelSpec) -> Registered | None:
        """Register the folder as a version of `registry.model`, set the alias, and wait for both.

        Everything logged before is sent first. Returns None if the config names no model, or if MLflow
        rejects it (noted) or is unavailable: then the version is created from the same folder once MLflow
        is back, and `finish` notes it.
        """

    def finish(self, status: RunStatus) -> None:
        """End the run and wait for MLflow for a limited time. Unsent data is kept on disk and noted."""


def open_tracker(plan: TrainPlan, warn: Callable[[str], None] = logger.warning) -> Tracker:
    """Return the plan's tracker, not started yet. Raise ConfigError if a secret for the login is missing.

    `warn` is called from a thread, with a line for the user that should not wait for the end of the run.
    """
    return NoTracker() if plan.tracking_uri is None else MlflowTracker(plan, warn)


class NoTracker:
    """Tracker that records nothing."""

    mlflow_run_id: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def links(self) -> Mapping[str, str]:
        return {}

    def start(self) -> None:
        pass

    def log_params(self, params: Mapping[str, str]) -> None:
        pass

    def log_tags(self, tags: Mapping[str, str]) -> None:
        pass

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        pass

    def log_text(self, path: str, text: str) -> None:
        pass

    def register(self, model_folder: Path, card: ModelSpec) -> Registered | None:
        return None

    def finish(self, status: RunStatus) -> None:
        pass


class MlflowTracker:
    """Tracker that records in MLflow from one background thread.

    Raises ConfigError if a secret for the login is missing.
    """

    def __init__(self, plan: TrainPlan, warn: Callable[[str], None] = logger.warning) -> None:
        assert plan.tracking_uri is not None
        self._config = plan.config
        run = Run(
            tracking_uri=plan.tracking_uri,
            experiment=plan.experiment,
            run_id=plan.run_id,
            artifacts=plan.artifacts,
            tags=plan.config.experiment.tags,
            started_ms=now_ms(),
        )
        self._recording = Recording(run, plan.config, warn)
        self.log_params(dict(flatten(plan.config.model_dump(mode="json"))))
        self.log_text(CONFIG, config.dump(plan.config))
        self.log_tags(source_tags(plan.config, "train", plan.paths.folder))
        if (diff := working_diff(plan.config)) is not None:
            self.log_text(DIFF, diff)

    @property
    def mlflow_run_id(self) -> str | None:
        return self._recording.mlflow_run_id

    @property
    def notes(self) -> tuple[str, ...]:
        return self._recording.notes

    @property
    def links(self) -> Mapping[str, str]:
        return self._recording.links

    def start(self) -> None:
        self._recording.start()

    def log_params(self, params: Mapping[str, str]) -> None:
        self._recording.params(params)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self._recording.tags(tags)

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        self._recording.metrics(step, metrics, now_ms() if timestamp_ms is None else timestamp_ms)

    def log_text(self, path: str, text: str) -> None:
        self._recording.text(path, text)

    def register(self, model_folder: Path, card: ModelSpec) -> Registered | None:
        self._recording.inputs(datasets(self._config, model_folder))
        return self._recording.register(self._config.registry, model_folder, card)

    def finish(self, status: RunStatus) -> None:
        self._recording.finish(status)
