"""The result of a command, from which its last lines on the terminal are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """The result of a run or deployment, and where to look next."""

    run_id: str | None = None
    """Id of the run that trained; None for a deployment."""
    step: int | None = None
    """Number of optimizer steps done over all attempts; None for a deployment."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the best checkpoint if keep_best is set, else their last values."""
    checkpoint: str | None = None
    """URL of the checkpoint the metrics belong to."""
    model_version: str | None = None
    """`models:/name/version` if one was registered."""
    alias: str | None = None
    """`models:/name@alias` if an alias was set to it."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Commands and addresses to continue with, by what they show."""
    notes: tuple[str, ...] = ()
    """Problems that did not stop the run, such as an unavailable MLflow."""


@dataclass(frozen=True)
class Prediction:
    """The result of an offline prediction."""

    out: str
    """Folder or URL of the Parquet files."""
    manifest: str
    """Path or URL of what says which model and which input they are of."""
    model: str
    """`models:/name/version`, or the folder or URL of a checkpoint."""
    rows: int
    """Number of rows of the output."""
    skipped: int
    """Number of rows of the input that are not in it."""
    parts: int
    """Number of its files."""
    already: bool = False
    """Whether it was complete before."""
    seconds: float = 0.0
    """Time that this took."""
