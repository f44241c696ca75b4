"""Ray Tune's controller, driven step by step, and the classes that its trials are made of.

`ray.tune.Tuner` runs the same controller, and also installs signal handlers, prints tables and writes an
experiment folder, all of which a study has of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.fs
import ray
from ray.train import Checkpoint
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune import PlacementGroupFactory, Trainable, register_trainable
from ray.tune.callback import Callback
from ray.tune.execution.class_cache import _ActorClassCache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search.search_algorithm import SearchAlgorithm

REACHED: tuple[tuple[object, tuple[str, ...]], ...] = (
    (
        TuneController,
        ("_maybe_reuse_cached_actor", "_running_trials", "_trial_to_actor", "update_max_pending_trials"),
    ),
    (TuneController, ("step", "cleanup", "checkpoint", "is_finished", "request_stop_experiment")),
    (Trainable, ("save", "restore", "reset_config", "setup", "step", "cleanup", "trial_id")),
    (_ActorClassCache, ("get",)),
)
"""The attributes used or overridden of what is imported here, for the contract test."""

MOST_PENDING = 1000
"""Trials that may wait for an actor at a time."""
ORDERS = "orders"
"""Concurrency group of an actor's methods that are answered while it trains."""


class Controller(TuneController):
    """Ray Tune's controller, without its own experiment state: the study's record is the state."""

    def __init__(
        self,
        *,
        search: SearchAlgorithm,
        scheduler: TrialScheduler,
        callback: Callback,
        scratch: str,
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(
            search_alg=search,
            scheduler=scheduler,
            callbacks=[callback],
            storage=StorageContext(scratch, "tune"),
            reuse_actors=True,
        )
        self._class_cache = _OrderedActors(environment)
        # The search says how many there are; Tune's own limit would be one trial that waits for its actor.
        self.update_max_pending_trials(MOST_PENDING)
        self._print_trial_errors = False

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Write nothing."""

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        """Give an actor that has become free to a trial that has none; Tune would end one that starts."""
        return trial not in self._trial_to_actor and bool(super()._maybe_reuse_cached_actor(trial))

    @property
    def running(self) -> bool:
        """Whether a trial runs."""
        return bool(self._running_trials)

    @property
    def started(self) -> list[tuple[Trial, Any]]:
        """The trials that have an actor, with its handle."""
        return [
            (trial, trial.temporary_state.ray_actor)
            for trial in self.get_trials()
            if trial.temporary_state.ray_actor is not None
        ]


class _OrderedActors(_ActorClassCache):
    """Actors that answer orders while they train, in processes with the given environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._environment = dict(environment)

    def get(self, trainable_cls: type[Trainable]) -> Any:
        if trainable_cls not in self._cache:
            options: dict[str, Any] = {
                "runtime_env": {"env_vars": self._environment},
                "concurrency_groups": {ORDERS: 1},
            }
            self._cache[trainable_cls] = ray.remote(**options)(trainable_cls)
        return self._cache[trainable_cls]


def make_trial(
    trainable: str,
    trial_id: str,
    config: Mapping[str, Any],
    bundles: Sequence[Mapping[str, float]],
    strategy: str,
    *,
    scratch: str,
    failures: int,
) -> Trial:
    """Return a trial of a registered trainable. `bundles` are its resources: those of the actor first."""
    return Trial(
        trainable,
        config=dict(config),
        trial_id=trial_id,
        storage=StorageContext(scratch, "tune", trial_dir_name=trial_id),
        placement_group_factory=PlacementGroupFactory([dict(each) for each in bundles], strategy=strategy),
        trial_dirname_creator=lambda trial: trial.trial_id,
        max_failures=failures,
    )


def seen_trial(trial_id: str, config: Mapping[str, Any]) -> Trial:
    """Return a trial that only shows a scheduler what happened before."""
    return Trial("seen", config=dict(config), trial_id=trial_id, stub=True)


def pointer(path: str) -> _TrainingResult:
    """Return a checkpoint for Tune that only names a path or URL."""
    return _TrainingResult(Checkpoint(path, filesystem=pyarrow.fs.LocalFileSystem()), {})


def pointed(result: Any) -> str:
    """Return the path that a checkpoint of `pointer` names."""
    return str(result.checkpoint.path)


__all__ = [
    "ORDERS",
    "REACHED",
    "Callback",
    "Controller",
    "PlacementGroupFactory",
    "SearchAlgorithm",
    "Trainable",
    "Trial",
    "TrialScheduler",
    "make_trial",
    "pointed",
    "pointer",
    "register_trainable",
    "seen_trial",
]
