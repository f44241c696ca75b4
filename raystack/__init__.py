"""raystack: one typed config trains, tracks, registers and serves a PyTorch model on Ray.

In: a YAML config and a Task (your model, data and loss). Out: an Outcome, on a laptop or on a Ray cluster.

    from raystack import Experiment, Predictor

    experiment = Experiment("config.yaml", "training.epochs=3")
    experiment.plan()
    outcome = experiment.train()
    Predictor.load("models:/digits@champion").predict({"image": image})

The command line is the same: ``python -m raystack.train config.yaml``. Nothing is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raystack.errors import (
        BudgetError,
        ConfigError,
        LaunchError,
        PausedError,
        PlanError,
        Problem,
        RaystackError,
        ServingError,
        TrainingError,
    )
    from raystack.experiment import Experiment
    from raystack.launch.remote import ClusterRef, find, statuses
    from raystack.outcome import Outcome
    from raystack.serving.predictor import Predictor
    from raystack.status import JobHandle, Status
    from raystack.tuning.study import Study, studies

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "ClusterRef",
    "ConfigError",
    "Experiment",
    "JobHandle",
    "LaunchError",
    "Outcome",
    "PausedError",
    "PlanError",
    "Predictor",
    "Problem",
    "RaystackError",
    "ServingError",
    "Status",
    "Study",
    "TrainingError",
    "find",
    "statuses",
    "studies",
]

_MODULES = {
    "ClusterRef": "launch.remote",
    "Experiment": "experiment",
    "JobHandle": "status",
    "Outcome": "outcome",
    "Predictor": "serving.predictor",
    "Status": "status",
    "Study": "tuning.study",
    "find": "launch.remote",
    "statuses": "launch.remote",
    "studies": "tuning.study",
}
"""The module of each public name; other names are errors."""


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562): PyTorch and Ray take seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'raystack' has no attribute '{name}'")
    return getattr(import_module(f"raystack.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
