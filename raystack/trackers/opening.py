"""The trackers that a plan names."""

from collections.abc import Callable
from importlib.util import find_spec

from raystack.config.secret import resolve
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem
from raystack.plan import TrainPlan
from raystack.trackers.recorder import Recorder
from raystack.trackers.tracker import Tracker


def require_libraries(tracking: Tracking) -> None:
    """Raise ConfigError if the library of a tracker is missing."""
    named = {"tensorboard": tracking.tensorboard, "wandb": tracking.wandb}
    missing = [name for name, section in named.items() if section is not None and find_spec(name) is None]
    if missing:
        raise ConfigError(
            Problem(
                f"tracking.{name}",
                rule=f"it needs the package {name}",
                remedy=f"pip install 'raystack-ml[{name}]'",
            )
            for name in missing
        )


def open_trackers(
    plan: TrainPlan, warn: Callable[[str], None], group: str | None = None
) -> tuple[Recorder, ...]:
    """Return a recorder for each tracker of the plan. They begin with the run's first step.

    `warn` is called in a thread, with a line for the user. `group` is the study that the run is a trial of.
    Raises ConfigError if a secret for the login is missing.
    """
    recorders = []
    if plan.trackers.tensorboard is not None:
        recorders.append(Recorder("TensorBoard", lambda: _tensorboard(plan), warn))
    if (wandb := plan.config.tracking.wandb) is not None:
        key = resolve(wandb.api_key) if wandb.api_key is not None and wandb.mode == "online" else None
        recorders.append(Recorder("W&B", lambda: _wandb(plan, key, group), warn))
    return tuple(recorders)


# Each module imports its library, which takes a third of a second and three seconds.


def _tensorboard(plan: TrainPlan) -> Tracker:
    from raystack.trackers.tensorboard import TensorBoard

    return TensorBoard(plan)


def _wandb(plan: TrainPlan, key: str | None, group: str | None) -> Tracker:
    from raystack.trackers.wandb import WandB

    return WandB(plan, key, group)
