"""The run's record in MLflow. In: a TrainPlan, and then what happens. Out: an MLflow run with all of it.

Only the driver process of a run has a tracker; workers report to the driver. None of its methods waits for
MLflow but `register` and `finish`, and none of them fails because of it: `notes` lists what MLflow does not
take.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
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


class Tracker(Protocol):
    """The driver's way to record a run."""

    @property
    def mlflow_run_id(self) -> str | None:
        """MLflow's id of the run, once it is known."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, e.g. that MLflow was away. Complete after `finish`."""

    @property
    def links(self) -> Mapping[str, str]:
        """Where to see the run: a URL or a command, by what it shows."""

    def start(self) -> None:
        """Begin to send: first the config, as params and as `config.yaml`. What is logged before waits.
        Returns at once.

        MLflow takes seconds of CPU to import and to set up its store, so a run begins when its first step is
        due.
        """

    def log_params(self, params: Mapping[str, str]) -> None:
        """Further params. A param that has a value already keeps it, and a different one is noted."""

    def log_metrics(self, step: int, metrics: Mapping[str, float], timestamp_ms: int | None = None) -> None:
        """Values after `step` optimizer steps, at a time in ms since 1970 or now. NaN and infinity are
        allowed.
        """

    def log_text(self, path: str, text: str) -> None:
        """A text file at the relative `path` among the run's artifacts."""

    def register(self, model_folder: Path, card: ModelSpec) -> Registered | None:
        """Make the folder a version of `registry.model` and set the alias, after all that was logged before.

        Waits for it. None if the config names no model, MLflow refuses (noted), or is away: then the version
        is made from this very folder when MLflow is back, and `finish` notes it.
        """

    def finish(self, status: RunStatus) -> None:
        """End the run. Waits for MLflow for a bounded time; what it has not got by then is kept on disk and
        noted.
        """


def open_tracker(plan: TrainPlan) -> Tracker:
    """The tracker that the plan asks for, not started yet. Raises ConfigError if a secret for the login is
    missing.
    """
    return NoTracker() if plan.tracking_uri is None else MlflowTracker(plan)


class NoTracker:
    """Records nothing."""

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
    """Records in MLflow, from one background thread. Raises ConfigError if a secret for the login is
    missing.
    """

    def __init__(self, plan: TrainPlan) -> None:
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
        )
        self.log_params(dict(flatten(asked.model_dump(mode="json"))))
        self.log_text(CONFIG, config.dump(asked))

    @property
    def mlflow_run_id(self) -> str | None:
        return self._sender.opened.id if self._sender.opened else None

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._sender.notes)

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
    """Nested values -> (dotted key, text). Lists are JSON; strings are as they are."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node if isinstance(node, str) else json.dumps(node)
