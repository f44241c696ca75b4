"""What is said to MLflow, as values: they wait in a queue, and in a spool file while MLflow is away.

Saying one of them again changes nothing: a metric point is the same point if key, step, time and value are
the same, and a run is found again by its raystack run id.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ends, in MLflow's words."""

Point = tuple[str, float, int, int]
"""(key, value, time in ms since 1970, step)."""

POINTS, PARAMS, PARAM_CHARS = 1000, 100, 6000
"""MLflow's limits for one `log_batch`, and for the value of one param."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Run(_Value):
    """The run that commands belong to: enough to find it in MLflow, or to create it."""

    do: Literal["run"] = "run"
    tracking_uri: str
    experiment: str
    run_id: str
    """raystack's run id: the MLflow run's name and its tag `raystack.run_id`."""
    artifacts: str | None
    """Artifact folder of the experiment if it has to be created; None: the server decides."""
    tags: Mapping[str, str]
    started_ms: int


class Params(_Value):
    """At most PARAMS params."""

    do: Literal["params"] = "params"
    values: Mapping[str, str]


class Metrics(_Value):
    """At most POINTS points."""

    do: Literal["metrics"] = "metrics"
    points: tuple[Point, ...]


class Text(_Value):
    """A small text file among the run's artifacts."""

    do: Literal["text"] = "text"
    path: str
    text: str


class Register(_Value):
    """Make the model folder a version of a registered model."""

    do: Literal["register"] = "register"
    name: str
    alias: str | None
    folder: str
    run_id: str
    step: int
    entry: str
    signature: Mapping[str, Any]
    """As `raystack.task.Signature.as_dict` gives it."""
    metrics: Mapping[str, float]


class End(_Value):
    """The run is over."""

    do: Literal["end"] = "end"
    status: RunStatus
    ended_ms: int


Command = Params | Metrics | Text | Register | End

LINE: TypeAdapter[Run | Command] = TypeAdapter(Annotated[Run | Command, Field(discriminator="do")])
"""One line of a spool file."""


@dataclass(frozen=True)
class Registered:
    """What a model was registered as: the answer to Register."""

    version: str
    """`models:/name/version`."""
    alias: str | None
    """`models:/name@alias`, if one was asked for."""


@dataclass(frozen=True)
class Reference:
    """A registered model, as one asks for it: by an alias, or by a version."""

    uri: str
    """`models:/name@alias` or `models:/name/version`."""
    name: str
    alias: str | None
    version: str | None


class UnavailableError(Exception):
    """Nobody answered, or could answer now: say it again later."""


class RejectedError(Exception):
    """MLflow answered no, and saying it again would not change that. `everything`: the no is not to this
    command alone.
    """

    def __init__(self, reason: str, *, everything: bool = False) -> None:
        self.everything = everything
        super().__init__(reason)


def now_ms() -> int:
    """Milliseconds since 1970, which is how MLflow counts time."""
    return time.time_ns() // 1_000_000
