"""Recording of a run in MLflow: its config, metrics, files and model.

Only the driver process of a run has a tracker; workers report to the driver. Only `register` and `finish`
wait for MLflow, and no method fails because of it: `notes` lists what MLflow rejects.
"""

import json
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from raystack import config
from raystack.checkpoint import CONFIG, ModelSpec
from raystack.plan import TrainPlan
from raystack.registry.command import (
    PARAM_CHARS,
    PARAMS,
    POINTS,
    End,
    Metrics,
    Params,
    Register,
    Registered,
    Run,
    RunStatus,
    Text,
    now_ms,
)
from raystack.registry.credentials import authorization
from raystack.registry.sender import Sender
from raystack.registry.spool import spool_folder

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
        """Log additional params. An existing param keeps its value, and a different one is noted."""

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
        asked = plan.config
        self._plan, self._uri = plan, plan.tracking_uri
        run = Run(
            tracking_uri=self._uri,
            experiment=plan.experiment,
            run_id=plan.run_id,
            artifacts=plan.artifacts,
            tags=asked.experiment.tags,
            started_ms=now_ms(),
        )
        self._sender = Sender(
            run,
            spool_folder(asked.experiment.storage),
            header=authorization(asked.tracking),
            flush_s=asked.tracking.flush_s,
            sample=asked.tracking.system_metrics,
            warn=warn,
        )
        self.log_params(dict(flatten(asked.model_dump(mode="json"))))
        self.log_text(CONFIG, config.dump(asked))

    @property
    def mlflow_run_id(self) -> str | None:
        return self._sender.opened.id if self._sender.opened else None

    @property
    def notes(self) -> tuple[str, ...]:
        opened = self._sender.opened
        return (*self._sender.notes, *(opened.refusals if opened else ()))

    @property
    def links(self) -> Mapping[str, str]:
        if not self._uri.startswith(("http://", "https://")):
            return {"mlflow": f"mlflow server --backend-store-uri {shlex.quote(self._uri)}"}
        opened = self._sender.opened
        page = f"/#/experiments/{opened.experiment_id}/runs/{opened.id}" if opened else ""
        return {"mlflow": self._uri.rstrip("/") + page}

    def start(self) -> None:
        self._sender.start()

    def log_params(self, params: Mapping[str, str]) -> None:
        cut = [
            (key, value if len(value) <= PARAM_CHARS else f"{value[: PARAM_CHARS - 3]}...")
            for key, value in params.items()
        ]
        for first in range(0, len(cut), PARAMS):
            self._sender.put(Params(values=dict(cut[first : first + PARAMS])))

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        at = now_ms() if timestamp_ms is None else timestamp_ms
        points = [(key, float(value), at, step) for key, value in metrics.items()]
        for first in range(0, len(points), POINTS):
            self._sender.put(Metrics(points=tuple(points[first : first + POINTS])))

    def log_text(self, path: str, text: str) -> None:
        self._sender.put(Text(path=path, text=text))

    def register(self, model_folder: Path, card: ModelSpec) -> Registered | None:
        config = self._plan.config.registry
        if config.model is None:
            return None
        command = Register(
            name=config.model,
            alias=config.alias,
            folder=str(model_folder),
            run_id=card.run_id,
            step=card.step,
            entry=card.entry,
            signature=card.signature.as_dict(),
            metrics=dict(card.metrics),
        )
        answer = self._sender.put(command, at_once=True)
        return answer.result() if self._sender.wait(answer) else None

    def finish(self, status: RunStatus) -> None:
        self._sender.start()
        self._sender.close(End(status=status, ended_ms=now_ms()))


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values as (dotted key, text). Lists become JSON; strings stay unchanged."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node if isinstance(node, str) else json.dumps(node)
