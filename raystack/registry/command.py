"""Commands for MLflow as values, which wait in a queue and, while MLflow is unavailable, in a spool file.

Commands are idempotent: MLflow treats metric points with equal key, step, time and value as one, and a run is
found by its raystack run id, a nested one within its parent.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from raystack.config.sign import Sign

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""Final status of a run, in MLflow's terms."""

Point = tuple[str, float, int, int]
"""(key, value, time in ms since 1970, step)."""

POINTS, PARAMS, PARAM_CHARS, TAG_CHARS = 1000, 100, 6000, 5000
"""MLflow's limits for one `log_batch`, and for the value of one param or tag."""

RUN_TAG, STATUS_TAG = "raystack.run_id", "raystack.status"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Run(_Value):
    """The run that commands belong to, with all that is needed to find or create it in MLflow."""

    do: Literal["run"] = "run"
    tracking_uri: str
    experiment: str
    run_id: str
    """raystack's run id: the MLflow run's tag `raystack.run_id`, and its name unless `name` is another."""
    artifacts: str | None
    """Artifact folder for a new experiment; None lets the server decide."""
    tags: Mapping[str, str]
    started_ms: int
    name: str | None = None
    parent: str | None = None
    """raystack's run id of the run that this one is nested in."""
    over: bool = False
    """True for a run that has ended: it is not set to running, and if MLflow has its end with the same
    STATUS_TAG, MLflow has everything.
    """

    def nested_in(self) -> "Run":
        """Return the run that this one is nested in, as far as is needed to find it."""
        return self.model_copy(update={"run_id": self.parent, "parent": None, "name": None, "over": True})


class Params(_Value):
    """At most PARAMS params. MLflow keeps the first value of each; a later one becomes a tag."""

    do: Literal["params"] = "params"
    values: Mapping[str, str]


class Metrics(_Value):
    """At most POINTS points."""

    do: Literal["metrics"] = "metrics"
    points: tuple[Point, ...]
    once: bool = False
    """Leave out points at steps that the run has already, whatever their time and value."""


class Tags(_Value):
    """At most PARAMS tags."""

    do: Literal["tags"] = "tags"
    values: Mapping[str, str]


class Text(_Value):
    """A small text file among the run's artifacts."""

    do: Literal["text"] = "text"
    path: str
    text: str


class Data(_Value):
    """A dataset, as MLflow has them."""

    name: str
    digest: str
    source: str
    """JSON."""
    context: Literal["train", "eval"]
    profile: str | None = None
    """JSON."""


class Inputs(_Value):
    """Datasets that the run has used."""

    do: Literal["inputs"] = "inputs"
    datasets: tuple[Data, ...]


class Register(_Value):
    """Registration of the model folder as a version of a registered model."""

    do: Literal["register"] = "register"
    name: str
    alias: str | None
    folder: str
    run_id: str
    step: int
    entry: str
    signature: Mapping[str, Any]
    """Result of `raystack.task.Signature.as_dict`."""
    metrics: Mapping[str, float]
    sign: Sign | None = None


class End(_Value):
    """The end of the run."""

    do: Literal["end"] = "end"
    status: RunStatus
    ended_ms: int


Log = Params | Metrics | Tags
Command = Log | Text | Inputs | Register | End

LINE: TypeAdapter[Run | Command] = TypeAdapter(Annotated[Run | Command, Field(discriminator="do")])
"""One line of a spool file."""


def request_of(commands: Iterable[Command]) -> list[Command]:
    """Return those at the front that fit into one request: params, metrics and tags, or one other command."""
    front: list[Command] = []
    size = 0
    for command in commands:
        if not isinstance(command, Log):
            return front or [command]
        size += len(command.points) if isinstance(command, Metrics) else len(command.values)
        if front and size > POINTS:
            break
        front.append(command)
    return front


@dataclass(frozen=True)
class Registered:
    """The result of Register."""

    version: str
    """`models:/name/version`."""
    alias: str | None
    """`models:/name@alias`, if an alias was requested."""


@dataclass(frozen=True)
class Reference:
    """A reference to a registered model by alias or version."""

    uri: str
    """`models:/name@alias` or `models:/name/version`."""
    name: str
    alias: str | None
    version: str | None


class UnavailableError(Exception):
    """MLflow did not answer, or cannot at the moment: retry later."""


class RejectedError(Exception):
    """MLflow rejected a command, and a retry would not help.

    `everything`: the rejection concerns more than this command.
    """

    def __init__(self, reason: str, *, everything: bool = False) -> None:
        self.everything = everything
        super().__init__(reason)


def now_ms() -> int:
    """Return the time in milliseconds since 1970, MLflow's unit."""
    return time.time_ns() // 1_000_000
