"""Where MLflow's client is held: a tracking URI goes in, a store that commands are applied to comes out.

Whatever MLflow and its storage plugins raise becomes AwayError or RefusedError. Importing this module imports
MLflow, which takes one to two seconds.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

import fcntl
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import requests
from mlflow import environment_variables
from mlflow.entities import Experiment, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider
from mlflow.tracking.request_header.registry import _request_header_provider_registry
from mlflow.utils.logging_utils import disable_logging

from raystack.errors import RaystackError
from raystack.registry.command import (
    Command,
    End,
    Metrics,
    Params,
    Point,
    Register,
    RejectedError,
    Run,
    Text,
    UnavailableError,
)
from raystack.registry.models import Registered, register_model

RUN_TAG = "raystack.run_id"
REQUEST_S, UPLOAD_S = 10, 120
"""Seconds without a byte from the server after which a request, or the upload of a model, counts as
unanswered.
"""

UPLOADS = 5
"""How often an upload is tried while MLflow itself answers."""

_ASK_AGAIN = (408, 409, 425, 429, 499)
"""The 4xx that speak of the moment and not of the request."""


@contextmanager
def told_apart() -> Iterator[None]:
    """Raise what the block raises as AwayError or RefusedError. Storage plugins raise types of their own,
    hence `Exception`.
    """
    try:
        yield
    except (UnavailableError, RejectedError, RaystackError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
        status = _status(error)
        if isinstance(error, ImportError) or (400 <= status < 500 and status not in _ASK_AGAIN):
            raise RejectedError(reason, everything=status in (401, 403, 404)) from error
        raise UnavailableError(reason) from error


def _status(error: Exception) -> int:
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code
    return 503


class _Credentials(RequestHeaderProvider):
    """Adds the Authorization header to MLflow's requests: environment variables would reach every Ray worker
    as well.
    """

    header: str | None = None

    def in_context(self) -> bool:
        return type(self).header is not None

    def request_headers(self) -> dict[str, str | None]:
        return {"Authorization": type(self).header}


_request_header_provider_registry.register(_Credentials)


def connect(uri: str, header: str | None) -> MlflowClient:
    """A client that answers soon and prints nothing. Raises AwayError or RefusedError.

    For an SQLite store the file and its tables are made here, one process at a time: MLflow's own migration
    breaks when two processes start it together. What users set in MLflow's environment variables wins over
    the settings made here.
    """
    if not logging.getLogger("raystack").isEnabledFor(logging.DEBUG):
        disable_logging()
    warnings.filterwarnings("ignore", module=r"mlflow|sqlalchemy|alembic")
    environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.default = 0
    environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = REQUEST_S
    environment_variables.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.default = True
    environment_variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.default = False
    _Credentials.header = header
    with told_apart(), _alone(uri):
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
        return client


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    if not uri.startswith("sqlite:///"):
        yield
        return
    database = Path(uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{database}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class OpenRun:
    """One MLflow run, to apply commands to. `note` is told of each part of a command that MLflow refuses."""

    def __init__(self, client: MlflowClient, run: Run, note: Callable[[str], None]) -> None:
        """Find the run by its tag, or create it, and its experiment. Raises AwayError or RefusedError."""
        self._client, self._note = client, note
        self._refused: set[str] = set()
        self._uploads = 0
        with told_apart():
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
        """A further attempt of a run that ended before."""
        with told_apart():
            self._client.update_run(self.id, status="RUNNING")

    def apply(self, command: Command) -> Registered | None:
        """Raises AwayError, and RefusedError where nothing of the command was taken."""
        if isinstance(command, Text | Register):
            return self._upload(command)
        with told_apart():
            match command:
                case Metrics():
                    self._metrics(command.points)
                case Params():
                    self._params(command.values)
                case End():
                    self._client.set_terminated(self.id, command.status, command.ended_ms)
        return None

    def _upload(self, command: Text | Register) -> Registered | None:
        """Artifacts lie elsewhere than the rest. If that place stays away while MLflow answers, it is given
        up, because everything else waits behind it.
        """
        try:
            with told_apart():
                if isinstance(command, Register):
                    return self._register(command)
                self._client.log_text(self.id, command.text, command.path)
        except UnavailableError as error:
            self._uploads += 1
            if self._uploads < UPLOADS:
                raise
            with told_apart():
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
        environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = UPLOAD_S
        try:
            return register_model(self._client, self.experiment_id, self.id, command)
        finally:
            environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = REQUEST_S


class _Answer:
    refused: str | None = None


@contextmanager
def _narrowed() -> Iterator[_Answer]:
    """Keep a refusal of the block as a value, if it concerns the block alone: a part of it may be
    acceptable.
    """
    answer = _Answer()
    try:
        with told_apart():
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
