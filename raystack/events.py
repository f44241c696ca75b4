"""What a running training tells: small values that travel from rank 0 to the driver, the terminal and MLflow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RayUp:
    """Ray runs, and its dashboard can be looked at."""

    dashboard: str


@dataclass(frozen=True)
class Started:
    """The first step is about to run."""

    first_step: int
    total_steps: int
    samples: int
    """Samples of the training data."""
    eval_samples: int
    parameters: int
    """Trainable parameters of the model."""
    device: str
    """Name of rank 0's device."""
    world_size: int


@dataclass(frozen=True)
class Stepped:
    """A report after `step` optimizer steps; `metrics` by their MLflow names."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Evaluated:
    """Metrics of an evaluation after `step` steps."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int
    url: str
    seconds: float


@dataclass(frozen=True)
class Warned:
    """Something the user should know that does not stop the run."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The end of the loop. The only event that the driver also gets as a return value."""

    step: int
    chosen: int
    """Step of the checkpoint to go on with: the best by keep_best, else the last."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the chosen checkpoint."""
    demonstration: str | None = None
    """What the task shows of the trained model."""


Event = RayUp | Started | Stepped | Evaluated | Saved | Warned | Finished
Listener = Callable[[Event], None]
