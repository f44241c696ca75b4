"""What can go wrong, split by what the user does next.

    RaystackError
    ├── ConfigError     edit the file or the override
    ├── PlanError       change the request: it is well formed and cannot be met
    ├── LaunchError     look at the place: the cluster, the port, the address
    ├── TrainingError   look at the run
    │   ├── ExhaustedError  make it smaller: there is no more memory
    │   ├── WorkerLostError look at the machine: a worker lost its device, or its connection to the others
    │   └── SupersededError leave it: another driver goes on with the run
    ├── PausedError     go on with it: it stopped on request, with a checkpoint
    │   └── BudgetError     raise the budget, and go on with it
    ├── ServingError    look at the served model
    └── RolledBackError look at the rollout: its version went back

Each carries one or more Problems, so that a config with five mistakes is told about all five. They survive
pickling, because Ray carries them from a worker to the driver.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what was got, the rule, the remedy."""

    where: str
    """Where the user finds it: a dotted key, a file and line, an override, a URI."""
    rule: str
    """What should have been, as a statement."""
    got: str | None = None
    """The value that was found, as text; None where there is none."""
    remedy: str | None = None
    """What to change; None where the rule says it already."""

    def __str__(self) -> str:
        got = "" if self.got is None else f" (got {self.got})"
        remedy = "" if self.remedy is None else f"; {self.remedy}"
        return f"{self.where}: {self.rule}{got}{remedy}"


class RaystackError(Exception):
    """The root of the tree: one message, made of Problems. `exit_code` is the status of a verb that ends with
    it.

    `trace` is the way through the user's own code to the error, where it came from there.
    """

    exit_code = 1

    def __init__(self, problems: Problem | Iterable[Problem], trace: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.trace = trace
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems, self.trace)


class ConfigError(RaystackError):
    """The config cannot be read as it stands: edit the file or the override."""

    exit_code = 2


class PlanError(RaystackError):
    """The config is well formed and asks for something that cannot be: change the request."""

    exit_code = 3


class LaunchError(RaystackError):
    """The place refused: no cluster at the address, a port in use, not enough resources."""

    exit_code = 4


class TrainingError(RaystackError):
    """The run ended without its result: look at the run."""

    exit_code = 5


class ExhaustedError(TrainingError):
    """A worker's device or node has no more memory."""


class WorkerLostError(TrainingError):
    """A worker lost its device, or its connection to the others, which is a consequence of what happened to
    one of them.
    """


class SupersededError(TrainingError):
    """Another driver has taken the run and goes on with it: leave it to that one."""


class PausedError(RaystackError):
    """The run stopped where it was asked to, with a checkpoint of that very step: go on with it. 75 is
    sysexits' EX_TEMPFAIL.
    """

    exit_code = 75

    def __init__(self, problems: Problem | Iterable[Problem], why: str) -> None:
        super().__init__(problems)
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems, self.why)


class BudgetError(PausedError):
    """The run stopped because its budget is used up, with a checkpoint: raise the budget, and go on."""

    exit_code = 8

    def __init__(self, problems: Problem | Iterable[Problem], why: str = "budget") -> None:
        super().__init__(problems, why)


class ServingError(RaystackError):
    """The model cannot be loaded or does not answer: look at the served model."""

    exit_code = 6


class RolledBackError(RaystackError):
    """The version that was rolled out went back: look at the rollout's record."""

    exit_code = 7


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
