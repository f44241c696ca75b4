"""A study as its record has it: for the Python API, and for `raystack tune ls|show|best`.

In: the study's folder. Out: its trials, the best one, and the config that `raystack train` takes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from raystack import config as configs
from raystack.checkpoint import CONFIG, fence
from raystack.config import RunConfig
from raystack.errors import ConfigError, Problem, RaystackError, nearest
from raystack.outcome import Outcome
from raystack.plan import TunePlan, plan_tuning
from raystack.plan.naming import RunPaths
from raystack.plan.tuning import study_paths, trial_config
from raystack.runs import ending, lease
from raystack.storage import Storage
from raystack.tuning import summary
from raystack.tuning.record import PAGE, STUDY, StudyStore, Trial, pareto

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "studies"
"""Folder of the studies below `experiment.storage`."""
FRESH_S = 2 * lease.EXPIRED_S
"""Seconds since its last sign of life for which a driver on another machine is taken to be alive."""

StudyStatus = Literal["finished", "running", "failed", "paused", "interrupted", "lost"]
"""Status of a study. `paused`: SIGTERM stopped it. `lost`: its driver was killed."""


@dataclass(frozen=True, repr=False)
class Study:
    """A study: its trials as they were when it was opened."""

    plan: TunePlan
    records: tuple[Trial, ...]
    """The trials, by number."""
    outcome: Outcome
    """Where everything is; of a study that has not finished, what is known."""
    status: StudyStatus

    @classmethod
    def open(cls, folder: str) -> "Study":
        """Read the study in `folder`, a local path or fsspec URL.

        Raises ConfigError if there is none, or if it is damaged or of another version.
        """
        store = StudyStore(folder)
        records = tuple(store.trials())
        try:
            config = configs.loads(store.storage.read(CONFIG))
        except FileNotFoundError:
            rule, remedy = "the study has no config", "start it again, with --resume"
            raise ConfigError(Problem(f"{folder}/{CONFIG}", rule=rule, remedy=remedy)) from None
        plan = replace(plan_tuning(config, ""), paths=_paths(folder))
        found = ending.read(folder)
        outcome = found.outcome if found is not None else Outcome(run_id=plan.name)
        return cls(plan, records, outcome, _status(store.storage, found))

    @property
    def name(self) -> str:
        """Return the study's name."""
        return self.plan.name

    @property
    def folder(self) -> str:
        """Return its folder, a local path or fsspec URL."""
        return self.plan.paths.folder

    @property
    def page(self) -> str:
        """Return the path or URL of its HTML page, which is written at the end."""
        return f"{self.folder}/{PAGE}"

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of trials by status."""
        return {str(status): count for status, count in summary.counts(self.records).items()}

    @property
    def best(self) -> Trial | None:
        """Return the best trial; of several objectives the best in the first one on the Pareto front.

        None if no trial has a value that keeps the constraints.
        """
        return summary.best_trial(self.plan, self.records)

    def value_of(self, trial: Trial) -> float | None:
        """Return what a trial is compared by in the first objective."""
        return summary.values(self.plan, trial)[self.plan.objectives[0].metric]

    @property
    def best_config(self) -> RunConfig:
        """Return the best trial's config, which trains as it is. Raises ConfigError if there is none."""
        best = self.best
        if best is None:
            rule = "no trial has a value of the metric that keeps the constraints"
            raise ConfigError(Problem(self.name, rule=rule, got=_counted(self.counts) or "no trials"))
        return self.config_of(best.number)

    @property
    def pareto(self) -> list[Trial]:
        """Return the trials that no other one beats in all objectives."""
        return pareto(self.records, self.plan)

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """Return a table with a row for each trial: what was tried, and what came out of it.

        Columns: number, id, status, the value of each metric, the value of each path, steps, seconds, reason.
        """
        import pandas as pd  # it takes half a second

        paths = [each.path for each in self.plan.space]
        rows = [self._row(trial, paths) for trial in self.records]
        metrics = [each.metric for each in self.plan.objectives]
        columns = ["number", "id", "status", *metrics, *paths, "steps", "seconds", "reason"]
        return pd.DataFrame(rows, columns=columns)

    def config_of(self, number: int) -> RunConfig:
        """Return the config of a trial, which trains as it is. Raises ConfigError if there is no such one."""
        trial = next((each for each in self.records if each.number == number), None)
        if trial is None:
            rule, got = "there is no such trial", str(number)
            remedy = f"they are numbered from 0 to {self.records[-1].number}" if self.records else None
            raise ConfigError(Problem(self.name, rule=rule, got=got, remedy=remedy))
        return trial_config(self.plan, trial.point)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Return what the study has come to, (what, value), in reading order."""
        first, *rest = summary.summary_rows(self.plan, self.records)
        return [first, ("status", self.status), *rest]

    def table(self, limit: int | None = None) -> list[dict[str, str]]:
        """Return the best `limit` trials as text by column, the best first."""
        return summary.trial_rows(self.plan, self.records, limit)

    @property
    def json(self) -> str:
        """Return the study as JSON, a trial a value."""
        return summary.as_json(self.plan, self.records)

    def __repr__(self) -> str:
        rows = self.rows
        width = max(len(what) for what, _ in rows)
        return "\n".join(f"{what:<{width}}  {value}" for what, value in rows)

    def _repr_html_(self) -> str:
        """Return the study and its best trials as HTML, which notebooks show."""
        pairs = "".join(
            f"<tr><th>{escape(what)}</th><td>{escape(text)}</td></tr>" for what, text in self.rows
        )
        table = self.table(10)
        heads = "".join(f"<th>{escape(name)}</th>" for name in (table[0] if table else ()))
        lines = "".join(
            f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row.values())}</tr>" for row in table
        )
        return f"<table>{pairs}</table><table><tr>{heads}</tr>{lines}</table>"

    def _row(self, trial: Trial, paths: list[str]) -> dict[str, Any]:
        return {
            "number": trial.number,
            "id": trial.id,
            "status": trial.status,
            **{path: trial.point.get(path) for path in paths},
            **summary.values(self.plan, trial),
            "steps": trial.steps,
            "seconds": trial.seconds,
            "reason": trial.reason,
        }


def studies(storage: str, warn: Callable[[str], None] = lambda text: None) -> list[Study]:
    """Return all studies below `storage`, by name.

    One that cannot be read is told to `warn` and left out.
    """
    found = []
    for name in _names(storage):
        try:
            found.append(Study.open(f"{storage.rstrip('/')}/{FOLDER}/{name}"))
        except RaystackError as error:
            warn(str(error))
    return found


def find(name: str, storage: str) -> Study:
    """Return the study of that name below `storage`. Raises ConfigError if there is none."""
    folder = f"{storage.rstrip('/')}/{FOLDER}/{name}"
    if not StudyStore(folder).exists():
        known = list(_names(storage))
        close = nearest(name, known)
        there = f"there are {', '.join(known)}" if known else "there is none"
        remedy = f"did you mean {close}?" if close else f"{there}; --storage says where to look"
        rule = f"there is no such study in {storage}"
        raise ConfigError(Problem("study", rule=rule, got=name, remedy=remedy))
    return Study.open(folder)


def _names(storage: str) -> Iterator[str]:
    below = Storage(f"{storage.rstrip('/')}/{FOLDER}")
    return (name for name in below.names() if STUDY in below.names(name))


def _paths(folder: str) -> RunPaths:
    """Return the paths of a study where it is: its config may name it by another URL."""
    above, _, name = folder.rstrip("/").rpartition("/")
    return study_paths(above.rpartition("/")[0], name)


def _status(storage: Storage, last: ending.Ending | None) -> StudyStatus:
    driver = fence.read(storage)
    if driver is None or (last is not None and last.driver == driver.number):
        if last is None:
            return "lost"
        return "finished" if last.status == "succeeded" else last.status
    alive = driver.held and not lease.is_dead_here(driver) and time.time() - driver.time < FRESH_S
    return "running" if alive else "lost"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items())
