"""An MLflow run and those nested in it, recorded from one background thread.

Only `register` and `finish` wait for MLflow.
"""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raystack.checkpoint import ModelSpec
from raystack.config import RunConfig
from raystack.config.registry import Registry
from raystack.registry.command import (
    PARAM_CHARS,
    PARAMS,
    POINTS,
    TAG_CHARS,
    Data,
    End,
    Inputs,
    Metrics,
    Params,
    Register,
    Registered,
    Run,
    RunStatus,
    Tags,
    Text,
    now_ms,
)
from raystack.registry.credentials import authorization
from raystack.registry.sender import Sender
from raystack.registry.spool import spool_folder


class Recording:
    """A recording of a run. In all methods `run` is a nested run; None means the run itself.

    `warn` takes a line for the user, from a thread. Raises ConfigError if a secret for the login is missing.
    """

    def __init__(self, run: Run, config: RunConfig, warn: Callable[[str], None]) -> None:
        self._uri = run.tracking_uri
        self._sender = Sender(
            run,
            spool_folder(config.experiment.storage),
            header=authorization(config.tracking),
            flush_s=config.tracking.flush_s,
            sample=config.tracking.system_metrics,
            warn=warn,
        )

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
        """Start sending. Anything recorded before is queued."""
        self._sender.start()

    def params(self, params: Mapping[str, str], run: Run | None = None) -> None:
        cut = [
            (key, value if len(value) <= PARAM_CHARS else f"{value[: PARAM_CHARS - 3]}...")
            for key, value in params.items()
        ]
        for first in range(0, len(cut), PARAMS):
            self._sender.put(Params(values=dict(cut[first : first + PARAMS])), run)

    def metrics(
        self,
        step: int,
        metrics: Mapping[str, float],
        at_ms: int,
        run: Run | None = None,
        *,
        once: bool = False,
    ) -> None:
        """Record values after `step` optimizer steps. `once`: not if the run has this step already."""
        points = [(key, float(value), at_ms, step) for key, value in metrics.items()]
        for first in range(0, len(points), POINTS):
            self._sender.put(Metrics(points=tuple(points[first : first + POINTS]), once=once), run)

    def tags(self, tags: Mapping[str, str], run: Run | None = None) -> None:
        """Set tags; they may change."""
        self._sender.put(Tags(values={key: value[:TAG_CHARS] for key, value in tags.items()}), run)

    def text(self, path: str, text: str) -> None:
        """Add a text file at the relative `path` among the run's artifacts."""
        self._sender.put(Text(path=path, text=text))

    def inputs(self, datasets: tuple[Data, ...], run: Run | None = None) -> None:
        """Link datasets to the run."""
        self._sender.put(Inputs(datasets=datasets), run)

    def end(self, run: Run, status: RunStatus, ended_ms: int) -> None:
        """End a nested run."""
        self._sender.put(End(status=status, ended_ms=ended_ms), run)

    def register(
        self, registry: Registry, folder: Path, card: ModelSpec, run: Run | None = None
    ) -> Registered | None:
        """Register the folder as a version of `registry.model`, set the alias, and wait for both.

        Everything recorded of the run before is sent first. Returns None if the config names no model, or if
        MLflow rejects it (noted) or is unavailable: then the version is created from the same folder once
        MLflow is back, and `finish` notes it.
        """
        if registry.model is None:
            return None
        command = Register(
            name=registry.model,
            # Gates are checked once the version is there, and the alias moves then.
            alias=registry.alias if registry.gates is None else None,
            folder=str(folder),
            run_id=card.run_id,
            step=card.step,
            entry=card.entry,
            signature=card.signature.as_dict(),
            metrics=dict(card.metrics),
            sign=registry.sign,
        )
        answer = self._sender.put(command, run, at_once=True)
        return answer.result() if self._sender.wait(answer) else None

    def finish(self, status: RunStatus) -> None:
        """End the run and wait for MLflow for a limited time. Unsent data is kept on disk and noted."""
        self._sender.start()
        self._sender.close(End(status=status, ended_ms=now_ms()))


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values as (dotted key, text). Lists become JSON; strings stay unchanged."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node if isinstance(node, str) else json.dumps(node)
