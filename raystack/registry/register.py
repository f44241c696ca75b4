"""A checkpoint's `model/` folder -> a version of a registered model.

A version points to an MLflow LoggedModel whose files are those of `model/`, an `MLmodel` file with the
signature, and the run's resolved config where it lies beside the folder. Importing this module imports
MLflow.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient

from raystack.checkpoint import CONFIG
from raystack.checkpoint.model import CARD
from raystack.checkpoint.signing import sign
from raystack.errors import RaystackError
from raystack.registry.command import POINTS, RUN_TAG, Register, Registered, RejectedError
from raystack.registry.flavour import write_flavour

STEP_TAG = "raystack.step"
METRICS = 10
"""Most metrics that a description names."""


def register_model(
    client: MlflowClient,
    experiment_id: str,
    mlflow_run_id: str,
    config: Register,
    log: Callable[[Sequence[Metric]], None],
) -> Registered:
    """Upload the folder, create the version and set its alias. Idempotent for the same run and step.

    The alias moves to this version unless it points to a newer one. `log` logs metrics of the run, but for
    those that MLflow refuses. Raises RejectedError if the folder holds no model, and MLflow's errors.
    """
    _registered_model(client, config)
    versions = client.search_model_versions(f"run_id = '{mlflow_run_id}'")
    known = [
        version
        for version in versions
        if version.name == config.name and version.tags.get(STEP_TAG) == str(config.step)
    ]
    number = (
        int(known[0].version) if known else _new_version(client, experiment_id, mlflow_run_id, config, log)
    )
    if config.alias is not None:
        aliases = client.get_registered_model(config.name).aliases
        if int(aliases.get(config.alias, 0)) < number:
            client.set_registered_model_alias(config.name, config.alias, str(number))
    return Registered(
        f"models:/{config.name}/{number}", f"models:/{config.name}@{config.alias}" if config.alias else None
    )


def _registered_model(client: MlflowClient, config: Register) -> None:
    names = ", ".join(f"`{spec['name']}`" for spec in config.signature["inputs"])
    answers = ", ".join(f"`{spec['name']}`" for spec in config.signature["outputs"])
    description = f"Answers {answers} to {names}. Its task is `{config.entry}`, trained by raystack."
    try:
        client.create_registered_model(config.name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _description(config: Register) -> str:
    """Return what is known of a version, for people."""
    measured = ", ".join(f"{name} {value:.4g}" for name, value in sorted(config.metrics.items())[:METRICS])
    evaluated = f" Its evaluation: {measured}." if measured else ""
    return f"Step {config.step:,} of the run `{config.run_id}`, task `{config.entry}`.{evaluated}"


def _new_version(
    client: MlflowClient,
    experiment_id: str,
    mlflow_run_id: str,
    config: Register,
    log: Callable[[Sequence[Metric]], None],
) -> int:
    tags = {RUN_TAG: config.run_id, STEP_TAG: str(config.step)}
    model = _logged_model(client, experiment_id, mlflow_run_id, config, tags)
    metrics = _metrics(client, mlflow_run_id, model, config)
    for first in range(0, len(metrics), POINTS):
        log(metrics[first : first + POINTS])
    source = (
        f"models:/{model.model_id}" if client.tracking_uri.startswith("http") else model.artifact_location
    )
    client.log_outputs(mlflow_run_id, [LoggedModelOutput(model.model_id, config.step)])
    version = client.create_model_version(
        config.name, source, mlflow_run_id, tags, description=_description(config), model_id=model.model_id
    )
    return int(version.version)


def _logged_model(
    client: MlflowClient, experiment_id: str, mlflow_run_id: str, asked: Register, tags: dict[str, str]
) -> LoggedModel:
    """Return the LoggedModel of this run and step; complete one whose upload was interrupted."""
    found = client.search_logged_models([experiment_id], f"source_run_id = '{mlflow_run_id}'")
    model = next((model for model in found if model.tags.get(STEP_TAG) == tags[STEP_TAG]), None)
    if model is None:
        model = client.create_logged_model(
            experiment_id, _model_name(asked.name), mlflow_run_id, tags, model_type="raystack"
        )
    if model.status != "READY":
        folder = Path(asked.folder)
        if not (folder / CARD).is_file():
            raise RejectedError(f"there is no {CARD} in {folder}")
        client.log_model_artifacts(model.model_id, str(folder))
        with tempfile.TemporaryDirectory() as scratch:
            write_flavour(Path(scratch), mlflow_run_id, model.model_id, asked)
            files = [folder, Path(scratch), *filter(Path.is_file, [folder.parent / CONFIG])]
            _sign(files, Path(scratch), asked)
            client.log_model_artifacts(model.model_id, scratch)
        if (config := folder.parent / CONFIG).is_file():
            client.log_model_artifact(model.model_id, str(config))
        client.finalize_logged_model(model.model_id, "READY")
    return model


def _sign(files: list[Path], target: Path, asked: Register) -> None:
    if asked.sign is None:
        return
    try:
        sign(files, target, asked.sign)
    except RaystackError as error:  # an unsigned version is not what was asked for
        raise RejectedError(str(error)) from None


def _model_name(name: str) -> str:
    """Return a valid LoggedModel name for a registered model."""
    # MLflow forbids these characters in the names of LoggedModels, but not of registered models.
    return re.sub(r"""[/:.%"']""", "-", name)


def _metrics(client: MlflowClient, mlflow_run_id: str, model: LoggedModel, config: Register) -> list[Metric]:
    """Return the metrics, linked to the model."""

    # MLflow adds these points to the run as well; with the original time they equal the existing points.
    def time_of(key: str) -> int:
        history = client.get_metric_history(mlflow_run_id, key)
        return next(
            (int(point.timestamp) for point in history if point.step == config.step),
            int(model.creation_timestamp),
        )

    return [
        Metric(key, value, time_of(key), config.step, model_id=model.model_id)
        for key, value in config.metrics.items()
    ]
