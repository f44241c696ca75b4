"""Search algorithms. In: a TunePlan and the trials that there are. Out: the next point."""

from typing import Protocol

from raystack.plan.space import Point
from raystack.tuning.record import Report, Trial


class Search(Protocol):
    """A search algorithm, which is asked for points and sees how their trials go.

    What it suggests for trial `number` depends on the study's seed, `number`, and what it saw before; so a
    study that was killed goes on with the suggestions that it would have had.
    """

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, e.g. what the search begins with."""

    def ask(self, number: int) -> Point | None:
        """Return the point of trial `number`; None if there are no more."""

    def report(self, trial: Trial, report: Report) -> None:
        """See a report of a running trial."""

    def end(self, trial: Trial) -> None:
        """See a trial that is over, whatever its status."""
