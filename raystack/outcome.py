"""What happened: the value that every verb ends with, and that its last lines on the terminal are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """The end of a run, and where to look next."""

    run_id: str | None = None
    """The run that trained; None for a deployment."""
    step: int | None = None
    """Optimizer steps done, over all attempts; None for a deployment."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last value of each metric; of the best checkpoint where one was kept by a metric."""
    checkpoint: str | None = None
    """URL of the checkpoint the metrics belong to."""
    model_version: str | None = None
    """`models:/name/version` if one was registered."""
    alias: str | None = None
    """`models:/name@alias` if an alias was set to it."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Commands and addresses to go on with, by what they show."""
    notes: tuple[str, ...] = ()
    """What the user should know and did not stop the run, e.g. that MLflow was away."""
