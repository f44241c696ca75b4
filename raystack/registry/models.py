"""Versions of registered models. In: the checkpoint's `model/` folder, or a name. Out: a version, or a local
folder.

A version points to an MLflow LoggedModel whose files are those of `model/`, an `MLmodel` file with the
signature, and the run's resolved config where it lies beside the folder. `models:/name@alias` and
`models:/name/version` lead back to them.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem, ServingError, nearest
from raystack.registry.command import Register, RejectedError, UnavailableError
from raystack.registry.credentials import authorization

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking.client import MlflowClient

CARD, WEIGHTS = "model.json", "model.safetensors"
"""The file that makes a folder a model folder."""

STEP_TAG, RUN_TAG = "raystack.step", "raystack.run_id"
FORMS = "models:/name@alias, models:/name/version, or a checkpoint's folder or URL"


@dataclass(frozen=True)
class Registered:
    """What a model was registered as."""

    version: str
    """`models:/name/version`."""
    alias: str | None
    """`models:/name@alias`, if one was asked for."""


def register_model(
    client: "MlflowClient", experiment_id: str, mlflow_run_id: str, config: Register
) -> Registered:
    """Upload the folder, create the version and set its alias. For the same run and step once; again gives
    the same version.

    An alias moves to this version, unless it already points to a newer one. Raises RefusedError where there
    is no model in the folder, and what MLflow raises.
    """
    _registered_model(client, config.name)
    versions = client.search_model_versions(f"run_id = '{mlflow_run_id}'")
    known = [
        version
        for version in versions
        if version.name == config.name and version.tags.get(STEP_TAG) == str(config.step)
    ]
    number = int(known[0].version) if known else _new_version(client, experiment_id, mlflow_run_id, config)
    if config.alias is not None:
        aliases = client.get_registered_model(config.name).aliases
        if int(aliases.get(config.alias, 0)) < number:
            client.set_registered_model_alias(config.name, config.alias, str(number))
    return Registered(
        f"models:/{config.name}/{number}", f"models:/{config.name}@{config.alias}" if config.alias else None
    )


def _registered_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _new_version(client: "MlflowClient", experiment_id: str, mlflow_run_id: str, config: Register) -> int:
    tags = {RUN_TAG: config.run_id, STEP_TAG: str(config.step)}
    model = _logged_model(client, experiment_id, mlflow_run_id, config, tags)
    _log_metrics(client, mlflow_run_id, model, config)
    source = (
        f"models:/{model.model_id}" if client.tracking_uri.startswith("http") else model.artifact_location
    )
    version = client.create_model_version(config.name, source, mlflow_run_id, tags, model_id=model.model_id)
    return int(version.version)


def _logged_model(
    client: "MlflowClient", experiment_id: str, mlflow_run_id: str, asked: Register, tags: dict[str, str]
) -> "LoggedModel":
    """The LoggedModel of this run and step with all its files; one whose upload broke off is completed."""
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
            _write_mlmodel(Path(scratch) / "MLmodel", mlflow_run_id, model.model_id, asked)
            client.log_model_artifact(model.model_id, f"{scratch}/MLmodel")
        if (config := folder.parent / "config.yaml").is_file():
            client.log_model_artifact(model.model_id, str(config))
        client.finalize_logged_model(model.model_id, "READY")
    return model


def _model_name(name: str) -> str:
    """A LoggedModel may not have some characters in its name that a registered model may have."""
    return re.sub(r"""[/:.%"']""", "-", name)


def _write_mlmodel(path: Path, mlflow_run_id: str, model_id: str, config: Register) -> None:
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(side: str) -> Any:
        return Schema(
            [
                TensorSpec(np.dtype(spec["dtype"]), tuple(spec["shape"]), spec["name"])
                for spec in config.signature[side]
            ]
        )

    signature = ModelSignature(inputs=schema("inputs"), outputs=schema("outputs"))
    model = Model(run_id=mlflow_run_id, signature=signature, model_id=model_id)
    model.add_flavor("raystack", entry=config.entry, card=CARD, run_id=config.run_id, step=config.step)
    model.save(str(path))


def _log_metrics(client: "MlflowClient", mlflow_run_id: str, model: "LoggedModel", config: Register) -> None:
    """Link the metrics to the model. MLflow adds them to the run as well, where the time keeps a point the
    same point.
    """
    from mlflow.entities import Metric

    def time_of(key: str) -> int:
        history = client.get_metric_history(mlflow_run_id, key)
        return next(
            (int(point.timestamp) for point in history if point.step == config.step),
            int(model.creation_timestamp),
        )

    metrics = [
        Metric(key, value, time_of(key), config.step, model_id=model.model_id)
        for key, value in config.metrics.items()
    ]
    client.log_batch(mlflow_run_id, metrics=metrics)


def resolve(uri: str, tracking: Tracking, tracking_uri: str | None) -> Path:
    """The local folder with `model.json` at its root that `uri` means: one of FORMS.

    Files of a local artifact store are used where they are; remote ones are downloaded once per version and
    machine. Raises ConfigError where the model, alias, version or folder does not exist, ServingError where
    MLflow does not answer.
    """
    if not uri.startswith("models:"):
        return _folder(uri)
    with _answering(uri, tracking, tracking_uri) as (client, name, alias, number):
        version = _find(client, uri, name, alias, number)
        location = client.get_model_version_download_uri(version.name, version.version)
        folder = _files(
            client, location, f"{tracking_uri} {version.name} {version.version} {version.creation_timestamp}"
        )
    if not (folder / CARD).is_file():
        raise _wrong(
            f"its files at {location} are not a raystack model, or cannot be reached from this machine",
            uri,
            None,
        )
    return folder


def pin(uri: str, tracking: Tracking, tracking_uri: str | None) -> str:
    """`models:/name@alias` -> the `models:/name/version` that it points to now. Raises as `resolve` does."""
    with _answering(uri, tracking, tracking_uri) as (client, name, alias, number):
        return f"models:/{name}/{_find(client, uri, name, alias, number).version}"


@contextmanager
def _answering(
    uri: str, tracking: Tracking, tracking_uri: str | None
) -> "Iterator[tuple[MlflowClient, str, str | None, str | None]]":
    """A client for the registry, and the URI's name with its alias or version."""
    config = re.fullmatch(r"models:/+([^/:@]+)(?:@([^/@]+)|/(\d+))", uri)
    if config is None:
        raise _wrong(
            "a model in the registry is written models:/name@alias or models:/name/version", uri, None
        )
    if tracking_uri is None:
        raise _wrong(
            "a model in the registry needs MLflow, and tracking is off",
            uri,
            "use tracking=local or name the checkpoint's folder",
        )
    if tracking_uri.startswith("sqlite:///") and not Path(tracking_uri.removeprefix("sqlite:///")).is_file():
        raise _wrong(
            f"there is no MLflow store at {tracking_uri} yet", uri, "train with registry.model=... first"
        )

    from raystack.registry.store import connect, told_apart

    try:
        client = connect(tracking_uri, authorization(tracking))
        with told_apart():
            yield client, config[1], config[2], config[3]
    except (UnavailableError, RejectedError) as error:
        raise ServingError(
            Problem(
                "tracking.uri",
                rule=f"MLflow does not give out {uri}: {error}",
                got=tracking_uri,
                remedy="is its server up?",
            )
        ) from None


def _find(
    client: "MlflowClient", uri: str, name: str, alias: str | None, number: str | None
) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return (
            client.get_model_version_by_alias(name, alias)
            if alias
            else client.get_model_version(name, number or "")
        )
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    known = [model.name for model in client.search_registered_models(max_results=1000)]
    train = f"train with registry.model={name}" + (f" registry.alias={alias}" if alias else "")
    if name not in known:
        close = nearest(name, known)
        hint = f"did you mean models:/{close}? or " if close else ""
        raise _wrong(
            f"there is no registered model '{name}'; there are: {', '.join(known) or 'none'}",
            uri,
            hint + train,
        )
    versions = sorted(int(version.version) for version in client.search_model_versions(f'name = "{name}"'))
    aliases = client.get_registered_model(name).aliases
    pairs = [f"{key} -> {value}" for key, value in aliases.items()]
    exist = f"versions {', '.join(map(str, versions)) or 'none'}; aliases {', '.join(pairs) or 'none'}"
    if alias is None:
        raise _wrong(f"model '{name}' has no version {number}; it has {exist}", uri, train)
    close = nearest(alias, aliases)
    hint = f"did you mean models:/{name}@{close}? or " if close else ""
    raise _wrong(
        f"model '{name}' has no alias '{alias}'; it has {exist}",
        uri,
        f"{hint}serve models:/{name}/version, or {train}",
    )


def _files(client: "MlflowClient", location: str, identity: str) -> Path:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if is_local_uri(location):
        return Path(local_file_uri_to_path(location))
    repository = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    return _cached(identity, lambda folder: repository.download_artifacts("", folder))


def _folder(uri: str) -> Path:
    """A checkpoint's folder or its `model/` folder, on this machine or behind an fsspec URL."""
    if "://" in uri and not uri.startswith("file://"):
        return _fetched(uri.rstrip("/"))
    path = Path(uri.removeprefix("file://")).expanduser().absolute()
    for folder in (path, path / "model"):
        if (folder / CARD).is_file():
            return folder
    if path.exists():
        raise _wrong(f"there is no {CARD} in it or in its model/ folder", uri, f"accepted: {FORMS}")
    raise _wrong("there is no such folder", uri, "train first, or name another folder")


def _fetched(url: str) -> Path:
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url)
        found = next((folder for folder in (root, f"{root}/model") if files.exists(f"{folder}/{CARD}")), None)
        if found is None:
            raise _wrong(f"there is no {CARD} in it or in its model/ folder", url, f"accepted: {FORMS}")
        if not files.exists(f"{found}/{WEIGHTS}"):
            remedy = f"raystack checkpoint export {url.removesuffix('/model')}"
            raise ServingError(
                Problem(
                    "serving.model",
                    rule=f"this model has no weights: it has no {WEIGHTS}",
                    got=url,
                    remedy=remedy,
                )
            )
        identity = f"{url} {files.checksum(f'{found}/{CARD}')} {files.checksum(f'{found}/{WEIGHTS}')}"
        return _cached(identity, lambda folder: files.get(f"{found}/", folder, recursive=True))
    except (OSError, ImportError, ValueError) as error:
        raise ServingError(
            Problem("serving.model", rule=f"the files cannot be fetched: {error}", got=url)
        ) from None


def _cached(identity: str, fetch: Callable[[str], object]) -> Path:
    """The folder that `fetch` filled, once per machine and identity."""
    home = Path(tempfile.gettempdir()) / f"raystack-{os.getuid()}" / "models"
    folder = home / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=home) as partial:
            Path(partial, "model").mkdir()
            fetch(f"{partial}/model")
            try:
                Path(partial, "model").rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first
                    raise
    return folder


def _wrong(rule: str, got: str, remedy: str | None) -> ConfigError:
    return ConfigError(Problem("serving.model", rule=rule, got=got, remedy=remedy))
