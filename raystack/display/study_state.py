"""What the events of a study have said until now: its running trials, its counts and its best."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from raystack.display.points import short_names, shortened, value_text
from raystack.events import Event, StudyStarted, TrialEnded, TrialExploited, TrialReported, TrialStarted

VALUE, POINT = 16, 100
"""Characters of a value, and of all values of a point in a line."""


@dataclass
class Running:
    """A trial that runs."""

    point: Mapping[str, Any]
    began: float
    step: int | None = None
    value: float | None = None


@dataclass
class State:
    """What the events have said until now."""

    clock: Callable[[], float] = monotonic
    name: str = ""
    metric: str = "value"
    several: bool = False
    """True if there are several objectives."""
    trials: int = 0
    over: int = 0
    """Trials that are over, without infeasible ones."""
    over_before: int = 0
    began: float = 0.0
    first: float | None = None
    """Time at which the first trial started."""
    running: dict[int, Running] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    points: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Points of all trials that were seen."""
    given: dict[str, set[str]] = field(default_factory=dict)
    """Values in them, by path."""
    best: tuple[int, float | None] | None = None
    told: set[str] = field(default_factory=set)
    """Reasons of infeasible trials, without their numbers."""

    def see(self, event: Event) -> None:
        """Take in an event."""
        match event:
            case StudyStarted():
                self.name, self.trials, self.began = event.name, event.trials, self.clock()
                self.over = self.over_before = event.over
                self.metric, self.several = event.objectives[0][0], len(event.objectives) > 1
            case TrialStarted():
                self._keep(event.number, event.point)
                self.running[event.number] = Running(event.point, self.clock())
                self.first = self.clock() if self.first is None else self.first
            case TrialReported() if event.number in self.running:
                trial = self.running[event.number]
                trial.step = event.step
                trial.value = event.metrics.get(self.metric) if event.value is None else event.value
            case TrialExploited():
                self._keep(event.number, event.point)
                if event.number in self.running:
                    self.running[event.number].point = event.point
            case TrialEnded():
                self.running.pop(event.number, None)
                self.counts[event.status] += 1
                self.over += event.status != "infeasible"
                if event.best:
                    self.best = event.number, event.value

    def _keep(self, number: int, point: Mapping[str, Any]) -> None:
        self.points[number] = point
        for path, value in point.items():
            self.given.setdefault(path, set()).add(value_text(value))

    def point(self, event: Event) -> Mapping[str, Any]:
        """Return the point of an event's trial as it is known before the event."""
        return self.points.get(getattr(event, "number", -1), {})

    def steps(self, event: Event) -> int | None:
        """Return the steps that an event's trial has done."""
        trial = self.running.get(getattr(event, "number", -1))
        return None if trial is None else trial.step

    def eta(self) -> float | None:
        """Return the seconds that the rest will take at the pace until now; None before the first end."""
        done = self.over - self.over_before
        if not done or self.first is None:
            return None
        return (self.clock() - self.first) / done * max(0, self.trials - self.over)

    def paths(self) -> list[str]:
        """Return the paths of the points, those that tell trials apart best first."""
        return sorted(self.given, key=lambda path: -len(self.given[path]))

    def values(self, point: Mapping[str, Any]) -> str:
        """Return a point in one line."""
        names = short_names(self.given)
        return shortened(", ".join(f"{names.get(path, path)} {short(point[path])}" for path in point), POINT)

    def is_news(self, reason: str) -> bool:
        """Return whether no reason was told that differs from this one in numbers alone."""
        alike = re.sub(r"\d+", "#", reason)
        news = alike not in self.told
        self.told.add(alike)
        return news


def short(value: Any) -> str:
    """Return a value of a point that fits a column."""
    return shortened(value_text(value), VALUE)
