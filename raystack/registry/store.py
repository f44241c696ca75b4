"""An MLflow run to which commands are applied.

Importing this module imports MLflow, which takes one to two seconds. Errors of MLflow and its storage plugins
become UnavailableError or RejectedError.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby

from mlflow import environment_variables
from mlflow.entities import Experiment, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient

from raystack.registry.command import (
    Command,
    End,
    Metrics,
    Params,
    Point,
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

UPLOADS = 5
"""Attempts of an upload while MLflow itself responds."""


class Store:
    """A tracking server, or an SQLite file. Raises UnavailableError or RejectedError."""

    def __init__(self, uri: str, header: str | None) -> None:
        self._client = connect(uri, header)

    def open(self, run: Run, note: Callable[[str], None]) -> "OpenRun":
        """Find the MLflow run of this raystack run by its tag, or create it."""
        return OpenRun(self._client, run, note)

    @staticmethod
    def probe() -> SystemProbe:
        """Return a probe of this machine's system metrics. Raise ImportError, OSError or RuntimeError."""
        return SystemProbe()


class OpenRun:
    """One MLflow run. `note` is called with a line for each part of a command that MLflow rejects."""

    def __init__(self, client: MlflowClient, run: Run, note: Callable[[str], None]) -> None:
        """Find the run by its tag, or create it and its experiment.

        Raises UnavailableError or RejectedError.
        """
        self._client, self._note = client, note
        self._refused: set[str] = set()
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
                    self._metrics(command.points)
                case Params():
                    self._params(command.values)
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

    def _metrics(self, points: Sequence[Point]) -> None:
        def send(batch: Sequence[Point]) -> None:
            self._client.log_batch(self.id, metrics=[Metric(*point) for point in batch])

        taken = sorted(
            (point for point in points if point[0] not in self._refused), key=lambda point: point[0]
        )
        with _narrowed() as whole:
            send([point for point in points if point[0] not in self._refused])
        # The error of a batch does not tell its keys apart, so each key is sent on its own.
        if whole.refused:
            for key, batch in groupby(taken, key=lambda point: point[0]):
                with _narrowed() as one:
                    send(list(batch))
                self._skip("metric", key, one.refused)

    def _params(self, values: Mapping[str, str]) -> None:
        params = [Param(key, value) for key, value in values.items()]
        with _narrowed() as whole:
            self._client.log_batch(self.id, params=params)
        if whole.refused:
            for param in params:
                with _narrowed() as one:
                    self._client.log_batch(self.id, params=[param])
                self._skip("param", param.key, one.refused)

    def _skip(self, kind: str, key: str, reason: str | None) -> None:
        if reason is not None:
            if kind == "metric":
                self._refused.add(key)
            self._note(f"MLflow refused the {kind} '{key}': {reason}")

    def _register(self, command: Register) -> Registered:
        # Changes the default only, so that a value in the user's environment still takes precedence.
        environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = UPLOAD_S
        try:
            return register_model(self._client, self.experiment_id, self.id, command)
        finally:
            environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = REQUEST_S


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
