"""What a config's `training.init_from` means now, settled before the workers start.

In: sources, as a config has them. Out: Origins that every worker can read. Only the driver talks to MLflow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from raystack import registry
from raystack.checkpoint import CheckpointStore
from raystack.checkpoint.checksums import verify_model
from raystack.checkpoint.model import CARD, EXTRA_STATE, WEIGHTS
from raystack.config.target import Local
from raystack.errors import ConfigError, LaunchError, Problem, RaystackError
from raystack.plan import TrainPlan
from raystack.storage import Storage
from raystack.training.origin import Origin, read_origins, write_origins

KEY = "training.init_from"
STAGED = "init_from"
"""Folder, in that of the run, of copies for the workers."""


def settle(plan: TrainPlan) -> None:
    """Record what the run's source means, unless that was done when the run began, or it has checkpoints.

    Raises ConfigError if there is nothing, LaunchError if MLflow does not answer.
    """
    config = plan.training.init_from
    if config is not None and not CheckpointStore(plan.paths.checkpoints).manifests():
        settled(plan, plan.paths.folder, [config.source])


def settled(plan: TrainPlan, folder: str, sources: Iterable[str]) -> Mapping[str, Origin]:
    """Return the origins of `sources` and record them in `folder`; what it has a record of stays as it is."""
    known = read_origins(folder)
    origins = {}
    for source in sources:
        before = known.get(source)
        origins[source] = _origin(source if before is None else before.name, plan, folder)
    write_origins(folder, {**known, **origins})
    return origins


def _origin(source: str, plan: TrainPlan, folder: str) -> Origin:
    if source.startswith("models:"):
        return _registered(source, plan, folder)
    if "://" in source and not source.startswith("file://"):
        return Origin(source, source)
    path = Path(source.removeprefix("file://")).expanduser().absolute()
    if not path.exists():
        remedy = "name a checkpoint, a run or a model, or drop it"
        raise ConfigError(Problem(KEY, rule="there is no such folder", got=str(path), remedy=remedy))
    return Origin(str(path), str(path))


def _registered(uri: str, plan: TrainPlan, folder: str) -> Origin:
    tracking = plan.config.tracking.model_copy(update={"uri": plan.tracking_uri})
    try:
        version, files = registry.find_files(uri, tracking)
        place = str(files) if _reachable(files, plan) else _staged(files, folder)
    except RaystackError as error:  # which name the keys of serving
        kind = ConfigError if isinstance(error, ConfigError) else LaunchError
        raise kind([replace(problem, where=KEY) for problem in error.problems]) from None
    return Origin(version, place)


def _reachable(files: Path, plan: TrainPlan) -> bool:
    """Return whether each worker can read local files: it is on this machine, or they are in the storage."""
    target, storage = plan.config.target, plan.config.experiment.storage
    here = plan.workers.inline or (isinstance(target, Local) and target.address is None)
    return here or ("://" not in storage and files.is_relative_to(storage))


def _staged(files: Path, folder: str) -> str:
    """Copy the weights of a model into the folder of the run, which all workers can read; return where."""
    verify_model(files)
    storage = Storage(folder)
    if storage.local:
        storage.make(STAGED)
    for name in (CARD, WEIGHTS, EXTRA_STATE):
        if (files / name).is_file():
            storage.put(files / name, f"{STAGED}/{name}")
    return f"{folder}/{STAGED}"
