"""An MLflow run to which commands are applied.

Importing this module imports MLflow, which takes one to two seconds. Errors of MLflow and its storage plugins
become UnavailableError or RejectedError.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from mlflow import environment_variables
from mlflow.entities import Experiment, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient

from raystack.registry.command import (
    Command,
    End,
    Metrics,
    Params,
    Register,
    Registered,
    RejectedError,
    Run,
    Text,
    UnavailableError,
)
from raystack.registry.connection import REQUEST_S, connect, translated
from raystack.registry.register import RUN_TAG, register_model
from raystack.registry.system import SystemProbe

UPLOAD_S = 120
"""Seconds without a byte from the server after which the upload of a model counts as unanswered."""

Kind = Literal["metric", "param"]

SHOWN, SHOWN_CHARS = 5, 60
"""Names of refused things in one line, and characters of each."""

UPLOADS = 5
"""Attempts of an upload while MLflow itself responds."""


class Store:
    """A tracking server, or an SQLite file. Raises UnavailableError or RejectedError."""

    def __init__(self, uri: str, header: str | None) -> None:
        self._client = connect(uri, header)

    def open(self, run: Run) -> "OpenRun":
        """Find the MLflow run of this raystack run by its tag, or create it."""
        return OpenRun(self._client, run)

    @staticmethod
    def probe() -> SystemProbe:
        """Return a probe of this machine's system metrics. Raise ImportError, OSError or RuntimeError."""
        return SystemProbe()


class OpenRun:
    """One MLflow run. What MLflow refuses of it by its name or value costs that alone (`refusals`)."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        """Find the run by its tag, or create it and its experiment.

        Raises UnavailableError or RejectedError.
        """
        self._client = client
        self._refused: dict[Kind, dict[str, str]] = {"metric": {}, "param": {}}
        self._uploads = 0
        with translated():
            self.experiment_id = _experiment(client, run).experiment_id
            found = client.search_runs(
                [self.experiment_id], f"tags.`{RUN_TAG}` = '{run.run_id}'", max_results=1
            )
            self.created = not found
            if self.created:
                tags = {**run.tags, RUN_TAG: run.run_id}
                info = client.create_run(self.experiment_id, run.started_ms, tags, run.run_id).info
            else:
                info = found[0].info
            self.id, self.started_ms = str(info.run_id), int(info.start_time)
        if not self.id:
            raise UnavailableError("it answers as no MLflow server does")

    @property
    def refusals(self) -> list[str]:
        """One line for each kind of thing of which MLflow refused some."""
        return [_refusal(kind, refused) for kind, refused in self._refused.items() if refused]

    def resume(self) -> None:
        """Set a run that ended before to running again, for another attempt."""
        with translated():
            self._client.update_run(self.id, status="RUNNING")

    def apply(self, command: Command) -> Registered | None:
        """Apply a command. Raise UnavailableError, or RejectedError if no part of it was accepted."""
        if isinstance(command, Text | Register):
            return self._upload(command)
        with translated():
            match command:
                case Metrics():
                    self._log("metric", [Metric(*point) for point in command.points])
                case Params():
                    self._log("param", [Param(key, value) for key, value in command.values.items()])
                case End():
                    self._client.set_terminated(self.id, command.status, command.ended_ms)
        return None

    def _upload(self, command: Text | Register) -> Registered | None:
        """Upload a file or a model, and reject it after UPLOADS failed attempts."""
        try:
            with translated():
                if isinstance(command, Register):
                    return self._register(command)
                self._client.log_text(self.id, command.text, command.path)
        except UnavailableError as error:
            self._uploads += 1
            if self._uploads < UPLOADS:
                raise
            # The artifact store may be down while the tracking server is up. The upload is given up then,
            # because all later commands wait behind it; if the server is down as well, this raises.
            with translated():
                self._client.get_run(self.id)
            self._uploads = 0
            raise RejectedError(f"the artifact store did not take it {UPLOADS} times: {error}") from None
        self._uploads = 0
        return None

    def _log(self, kind: Kind, items: Sequence[Metric | Param]) -> None:
        """Log the batch, but for what MLflow refuses."""
        refused = self._refused[kind]
        taken = [item for item in items if item.key not in refused]
        if not taken:
            return
        fields: dict[str, Any] = {f"{kind}s": taken}
        with _narrowed() as batch:
            self._client.log_batch(self.id, **fields)
        if batch.refused is None:
            return
        keys = sorted({item.key for item in taken})
        if len(keys) == 1:
            refused[keys[0]] = batch.refused
            return
        # The error of a batch does not tell its keys apart, so that it is halved until one is left.
        first = set(keys[: len(keys) // 2])
        self._log(kind, [item for item in taken if item.key in first])
        self._log(kind, [item for item in taken if item.key not in first])

    def _register(self, command: Register) -> Registered:
        # Changes the default only, so that a value in the user's environment still takes precedence.
        environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = UPLOAD_S
        try:
            return register_model(
                self._client,
                self.experiment_id,
                self.id,
                command,
                lambda metrics: self._log("metric", metrics),
            )
        finally:
            environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = REQUEST_S


def _refusal(kind: Kind, refused: Mapping[str, str]) -> str:
    keys, reason = list(refused), next(iter(refused.values()))
    shown = ", ".join(
        repr(key if len(key) <= SHOWN_CHARS else f"{key[:SHOWN_CHARS]}...") for key in keys[:SHOWN]
    )
    if len(keys) == 1:
        return f"MLflow refused the {kind} {shown}, which is not recorded: {reason}"
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return (
        f"MLflow refused {len(keys)} {kind}s, which are not recorded: {shown}{more}; of the first: {reason}"
    )


class _Answer:
    refused: str | None = None


@contextmanager
def _narrowed() -> Iterator[_Answer]:
    """Catch a rejection that concerns only this block, of which a part may still be acceptable."""
    answer = _Answer()
    try:
        with translated():
            yield answer
    except RejectedError as error:
        if error.everything:
            raise
        answer.refused = str(error)


def _experiment(client: MlflowClient, run: Run) -> Experiment:
    found = client.get_experiment_by_name(run.experiment)
    if found is not None:
        return found
    try:
        return client.get_experiment(
            client.create_experiment(run.experiment, artifact_location=run.artifacts)
        )
    except MlflowException as error:
        found = client.get_experiment_by_name(run.experiment)  # another run may have made it meanwhile
        if found is None:
            raise error from None
        return found
