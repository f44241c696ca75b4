"""What a running training tells: small values that travel from rank 0 to the driver, the terminal and
MLflow.
"""

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
    samples: int | None
    """Samples of the training data; None for a stream that does not say."""
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
    """From the request to the moment when it can be read."""
    stalled_s: float = 0.0
    """How long of it training waited."""


@dataclass(frozen=True)
class Warned:
    """Something the user should know that does not stop the run."""

    text: str


@dataclass(frozen=True)
class Alarm:
    """A step does not end."""

    step: int
    """The furthest that a worker has begun, counted from 1."""
    late: tuple[int, ...]
    """Ranks that the others wait for; empty where no one is behind the others."""
    text: str
    """Who, where and for how long, in one line."""
    stacks: Mapping[int, str]
    """By rank, of all workers that could send them."""


@dataclass(frozen=True)
class Slow:
    """A worker became slower than the others, or caught up."""

    step: int
    rank: int
    own_s: float
    """Median seconds of a recent step in which this worker did not wait for others."""
    typical_s: float
    """The same of the median worker."""
    step_s: float
    """Median seconds of a whole step."""
    text: str
    """Who, and by how much, in one line."""
    caught_up: bool = False


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


Event = RayUp | Started | Stepped | Evaluated | Saved | Warned | Alarm | Slow | Finished
Listener = Callable[[Event], None]
