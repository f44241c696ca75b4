"""Events of a running training: small values from rank 0 to the driver, the terminal and MLflow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RayUp:
    """Ray runs, with a dashboard."""

    dashboard: str
    """URL of the dashboard."""


@dataclass(frozen=True)
class Started:
    """The first step is about to run."""

    first_step: int
    total_steps: int
    samples: int | None
    """Number of samples in the training data; None for a stream without a length."""
    eval_samples: int
    parameters: int
    """Number of trainable parameters of the model."""
    device: str
    """Name of rank 0's device."""
    world_size: int


@dataclass(frozen=True)
class Stepped:
    """Metrics of the training after `step` optimizer steps, by their MLflow names."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Evaluated:
    """Metrics of an evaluation after `step` optimizer steps, by their MLflow names."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Saved:
    """A checkpoint was published."""

    step: int
    url: str
    seconds: float
    """Seconds from the request until it can be read."""
    stalled_s: float = 0.0
    """Seconds of them in which training waited."""


@dataclass(frozen=True)
class Warned:
    """A message that the user should see and that does not stop the run."""

    text: str


@dataclass(frozen=True)
class Alarm:
    """A step does not end."""

    step: int
    """The latest step that a worker has begun, counted from 1."""
    late: tuple[int, ...]
    """Ranks that the others wait for; empty if none is behind."""
    text: str
    """The worker, its position and the time, in one line."""
    stacks: Mapping[int, str]
    """Stacks of all workers that could send them, by rank."""


@dataclass(frozen=True)
class Slow:
    """A worker became slower than the others, or caught up."""

    step: int
    rank: int
    own_s: float
    """Median seconds of a recent step in which this worker did not wait for others."""
    typical_s: float
    """The same for the median worker."""
    step_s: float
    """Median seconds of a whole step."""
    text: str
    """The worker and how slow it is, in one line."""
    caught_up: bool = False


@dataclass(frozen=True)
class Finished:
    """The end of the loop, which the driver gets as the return value of the training."""

    step: int
    chosen: int
    """Step of the chosen checkpoint: the best by keep_best, else the last."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the chosen checkpoint."""
    demonstration: str | None = None
    """The task's demonstration of the trained model, as text."""


Event = RayUp | Started | Stepped | Evaluated | Saved | Warned | Alarm | Slow | Finished
Listener = Callable[[Event], None]
