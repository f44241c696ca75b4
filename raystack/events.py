"""Events of a training, a study or a prediction: small values for the driver, the terminal and MLflow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RayUp:
    """Ray runs, with a dashboard."""

    dashboard: str
    """URL of the dashboard; in a pod, the command that leads there from elsewhere."""


@dataclass(frozen=True)
class Initialised:
    """The model has the weights that `training.init_from` names."""

    text: str
    """What was loaded, and what was not."""
    source: str
    """`models:/name/version`, or a folder or URL."""


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
    number: int = 1
    """Number of the evaluation in the run, from 1."""


@dataclass(frozen=True)
class EndedEarly:
    """The training ends before its last step, and is finished."""

    step: int
    reason: str


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
    ended_early: str | None = None
    """Why the training ended before its last step; None if it did not."""


@dataclass(frozen=True)
class StudyStarted:
    """A study is about to ask for its first trial, or goes on."""

    name: str
    trials: int
    """Number of trials that are to run, those that are over included."""
    over: int
    """Number of trials that were over at the start; 0 for a new study."""
    objectives: tuple[tuple[str, str], ...]
    """(metric, `min` or `max`) of each objective."""


@dataclass(frozen=True)
class TrialStarted:
    """A trial runs, or was found to be infeasible, which `TrialEnded` says next."""

    number: int
    point: Mapping[str, object]
    """Its values by path."""
    workers: int


@dataclass(frozen=True)
class TrialReported:
    """A trial has been evaluated."""

    number: int
    report: int
    """Number of the report, from 1."""
    step: int
    metrics: Mapping[str, float]
    value: float | None
    """Value of the first objective that the trial is compared by."""


@dataclass(frozen=True)
class TrialExploited:
    """A trial of a population goes on from another one's checkpoint."""

    number: int
    donor: int
    step: int
    point: Mapping[str, object]
    """Its values from now on."""


@dataclass(frozen=True)
class TrialEnded:
    """A trial is over."""

    number: int
    status: str
    """`finished`, `pruned`, `infeasible`, `failed` or `stopped`."""
    value: float | None
    """Value of the first objective."""
    best: bool
    """True if it is the best trial until now; with several objectives, on the Pareto front."""
    reason: str | None
    seconds: float


TrialEvent = StudyStarted | TrialStarted | TrialReported | TrialExploited | TrialEnded


@dataclass(frozen=True)
class PredictionStarted:
    """An offline prediction is about to begin, or goes on."""

    model: str
    """`models:/name/version`, or the folder or URL of a checkpoint."""
    files: int
    rows: int
    """Number of rows of the input."""
    done: int
    """Number of rows that were done at the start; 0 for a new one."""
    workers: int
    """Number of workers at most; 0: this process."""


@dataclass(frozen=True)
class RowsPredicted:
    """Rows are over, written or skipped."""

    done: int
    """Number of rows that are over in all."""
    rate: float
    """Rows per second, of late; 0 where it is not known yet."""


@dataclass(frozen=True)
class PredictionHalted:
    """The prediction ends before it is complete."""

    kept: int
    """Number of rows whose parts are done, and stay."""
    rows: int
    out: str


PredictionEvent = PredictionStarted | RowsPredicted | PredictionHalted | RayUp | Warned
PredictionListener = Callable[[PredictionEvent], None]

Event = (
    RayUp
    | Initialised
    | Started
    | Stepped
    | Evaluated
    | EndedEarly
    | Saved
    | Warned
    | Alarm
    | Slow
    | Finished
    | TrialEvent
)
Listener = Callable[[Event], None]
