"""An MLflow run to which commands are applied.

Importing this module imports MLflow, which takes one to two seconds. Errors of MLflow and its storage plugins
become UnavailableError or RejectedError.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlflow import environment_variables
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    Metric,
    Param,
    RunInfo,
    RunTag,
)
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

from raystack.registry.command import (
    RUN_TAG,
    STATUS_TAG,
    TAG_CHARS,
    Command,
    Data,
    End,
    Inputs,
    Log,
    Metrics,
    Params,
    Point,
    Register,
    Registered,
    RejectedError,
    Run,
    Tags,
    Text,
    UnavailableError,
)
from raystack.registry.connection import REQUEST_S, connect, translated
from raystack.registry.refused import Kind, Refused
from raystack.registry.register import register_model
from raystack.registry.system import SystemProbe

UPLOAD_S = 120
"""Seconds without a byte from the server after which the upload of a model counts as unanswered."""

RUNNING = "RUNNING"

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""What MLflow's page shows of an experiment: that of models, and not of prompts."""

NOW = "now."
"""What stands before the key of a param in the name of the tag with a later value."""

UPLOADS = 5
"""Attempts of an upload while MLflow itself responds."""

Item = Metric | Param | RunTag


class Store:
    """A tracking server, or an SQLite file. Raises UnavailableError or RejectedError."""

    def __init__(self, uri: str, header: str | None) -> None:
        self._client = connect(uri, header)

    def open(self, run: Run, parent: "OpenRun | None" = None) -> "OpenRun":
        """Find the MLflow run of this raystack run by its tags, or create it.

        `parent` is the run that it is nested in, if that is open.
        """
        return OpenRun(self._client, run, parent)

    @staticmethod
    def probe() -> SystemProbe:
        """Return a probe of this machine's system metrics. Raise ImportError, OSError or RuntimeError."""
        return SystemProbe()


class OpenRun:
    """One MLflow run. What MLflow refuses of it by its name or value costs that alone.

    A nested run shares the refusals of the run that it is nested in.
    """

    def __init__(self, client: MlflowClient, run: Run, parent: "OpenRun | None" = None) -> None:
        """Find the run by its tags, or create it and its experiment.

        Raises UnavailableError or RejectedError.
        """
        self._client = client
        self.refused: Refused = parent.refused if parent else Refused()
        self._uploads = 0
        self._tried: set[str] = set()  # nested runs that were created, if perhaps without an answer
        self._params: dict[str, str] = {}
        self._steps: dict[str, set[int]] = {}  # of metrics that are to be recorded once for each step
        with translated():
            self.experiment_id: str = (
                parent.experiment_id if parent else _experiment(client, run).experiment_id
            )
            found = self._found(run, parent)
            self.created = found is None
            info = found.info if found else self._create(run, parent)
            self.id, self.started_ms, self._status = str(info.run_id), int(info.start_time), info.status
        if not self.id:
            raise UnavailableError("it answers as no MLflow server does")
        self._complete = False
        if found is not None:
            self._params = dict(found.data.params)
            same = found.data.tags.get(STATUS_TAG) == run.tags.get(STATUS_TAG)
            self._complete = run.over and same and self._status != RUNNING

    def _found(self, run: Run, parent: "OpenRun | None") -> MlflowRun | None:
        query = f"tags.`{RUN_TAG}` = '{run.run_id}'"
        if parent is not None:
            if parent.created and run.run_id not in parent._tried:
                return None  # saves a request for each nested run
            query += f" and tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.id}'"
        found = self._client.search_runs([self.experiment_id], query, max_results=1)
        return found[0] if found else None

    def _create(self, run: Run, parent: "OpenRun | None") -> RunInfo:
        tags = {**run.tags, RUN_TAG: run.run_id}
        if parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = parent.id
            parent._tried.add(run.run_id)
        return self._client.create_run(self.experiment_id, run.started_ms, tags, run.name or run.run_id).info

    @property
    def refusals(self) -> list[str]:
        """One line for each kind of thing of which MLflow refused some."""
        return self.refused.lines

    def resume(self) -> None:
        """Set a run that ended before to running again, for another attempt."""
        if self._status != RUNNING:
            with translated():
                self._client.update_run(self.id, status=RUNNING)

    def apply(self, commands: Sequence[Command]) -> Registered | None:
        """Apply what `request_of` returned.

        Raises UnavailableError, or RejectedError if no part of it was accepted.
        """
        (first, *_) = commands
        if isinstance(first, Text | Register):
            return self._upload(first)
        if isinstance(first, Inputs):
            with translated():
                self._client.log_inputs(self.id, [_dataset(each) for each in first.datasets])
            return None
        if self._complete:
            return None
        with translated():
            if isinstance(first, End):
                self._client.set_terminated(self.id, first.status, first.ended_ms)
            else:
                self._apply([command for command in commands if isinstance(command, Log)])
        return None

    def _apply(self, logs: Sequence[Log]) -> None:
        """Log what MLflow has not got yet. It never changes a param, so that a later value is a tag."""
        metrics: dict[Point, None] = {}
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        steps: dict[str, set[int]] = {}
        for command in logs:
            match command:
                case Metrics(once=False):
                    metrics |= dict.fromkeys(command.points)
                case Metrics():
                    for point in command.points:
                        key, *_, step = point
                        if step not in self._known_steps(key) and step not in steps.setdefault(key, set()):
                            steps[key].add(step)
                            metrics[point] = None
                case Tags():
                    tags |= command.values
                case Params():
                    for key, text in command.values.items():
                        if self._params.get(key, params.setdefault(key, text)) != text:
                            tags[f"{NOW}{key}"] = text[:TAG_CHARS]
        self._log(
            [
                *(Param(key, value) for key, value in params.items() if key not in self._params),
                *(RunTag(key, value) for key, value in tags.items()),
                *(Metric(*point) for point in metrics),
            ]
        )
        for key, logged in steps.items():
            self._known_steps(key).update(logged)

    def _known_steps(self, key: str) -> set[int]:
        """Return the steps at which the run has this metric."""
        if key not in self._steps:
            known = [] if self.created else self._client.get_metric_history(self.id, key)
            self._steps[key] = {point.step for point in known}
        return self._steps[key]

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

    def _log(self, items: Sequence[Item]) -> None:
        """Log the batch, but for what MLflow refuses."""
        taken = [item for item in items if (_kind(item), item.key) not in self.refused]
        if not taken:
            return
        with _narrowed() as batch:
            self._client.log_batch(
                self.id,
                metrics=[item for item in taken if isinstance(item, Metric)],
                params=[item for item in taken if isinstance(item, Param)],
                tags=[item for item in taken if isinstance(item, RunTag)],
            )
        if batch.refused is None:
            self._params |= {item.key: item.value for item in taken if isinstance(item, Param)}
            return
        keys = sorted({(_kind(item), item.key) for item in taken})
        if len(keys) == 1:
            (kind, key), *_ = keys
            self.refused.add(kind, key, batch.refused)
            return
        # The error of a batch does not tell its keys apart, so that it is halved until one is left.
        first = set(keys[: len(keys) // 2])
        self._log([item for item in taken if (_kind(item), item.key) in first])
        self._log([item for item in taken if (_kind(item), item.key) not in first])

    def _register(self, command: Register) -> Registered:
        # Changes the default only, so that a value in the user's environment still takes precedence.
        environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = UPLOAD_S
        try:
            return register_model(
                self._client,
                self.experiment_id,
                self.id,
                command,
                self._log,
            )
        finally:
            environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = REQUEST_S


def _dataset(data: Data) -> DatasetInput:
    dataset = Dataset(data.name, data.digest, "raystack", data.source, profile=data.profile)
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, data.context)])


def _kind(item: Item) -> Kind:
    return "metric" if isinstance(item, Metric) else "param" if isinstance(item, Param) else "tag"


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
        made = client.create_experiment(run.experiment, artifact_location=run.artifacts, tags=KIND)
        return client.get_experiment(made)
    except MlflowException as error:
        found = client.get_experiment_by_name(run.experiment)  # another run may have made it meanwhile
        if found is None:
            raise error from None
        return found
