"""Search by Optuna's samplers, through its ask and tell."""

from collections.abc import Sequence

import optuna

from raystack.errors import PlanError
from raystack.plan.space import Point
from raystack.plan.tuning import TunePlan
from raystack.tuning.record import Report, StudyStore, Trial, fingerprint
from raystack.tuning.search.journal import address, open_storage, reached
from raystack.tuning.search.mirror import Mirror
from raystack.tuning.search.points import given_point
from raystack.tuning.search.random import random_point
from raystack.tuning.search.samplers import sampler, search_problems
from raystack.tuning.search.warm_start import Earlier, earlier_trials

ATTEMPTS = 100
"""Random points that are drawn where a model suggests one that was infeasible before."""


class OptunaSearch:
    """TPE, CMA-ES or a Gaussian process.

    Raises PlanError if Optuna cannot do the space, open its storage, or find what the search begins with.
    """

    def __init__(self, plan: TunePlan, store: StudyStore, trials: Sequence[Trial]) -> None:
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        if problems := search_problems(plan):
            raise PlanError(problems)
        self._plan, self._url = plan, address(plan)
        storage, self._journal = open_storage(plan, store)
        self._earlier: Earlier | None = None
        self._infeasible = [trial.point for trial in trials if trial.status == "infeasible"]
        with reached(self._url):
            owner = f"{store.folder} {fingerprint(plan)}" if self._url else "the study's folder"
            self._mirror = Mirror(plan, storage, owner)
            self._mirror.catch_up(trials, self._warm_start)
        self._flush()

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self._earlier is None else (self._earlier.note,)

    def ask(self, number: int) -> Point | None:
        given = given_point(self._plan, number)
        with reached(self._url):
            point = self._given(number, given) if given is not None else self._suggested(number)
        self._flush()
        return point

    def report(self, trial: Trial, report: Report) -> None:
        with reached(self._url):
            self._mirror.report(trial, report)

    def end(self, trial: Trial) -> None:
        if trial.status == "infeasible":
            self._infeasible.append(trial.point)
        with reached(self._url):
            self._mirror.end(trial)
        self._flush()

    def _given(self, number: int, point: Point) -> Point:
        if self._mirror.point(number) is None:
            self._mirror.add(Trial(number=number, id=f"{self._plan.name}-{number}", point=dict(point)))
        return point

    def _suggested(self, number: int) -> Point:
        """Return the point of trial `number`, again if it was asked for before a driver was killed."""
        point = self._mirror.point(number)
        if point is not None:
            return point
        point = self._mirror.suggest(number, sampler(self._plan, number, self._mirror.known_good()))
        if point not in self._infeasible:
            return point
        others = (random_point(self._plan, f"{number}/{attempt}") for attempt in range(ATTEMPTS))
        other = next((one for one in others if one not in self._infeasible), None)
        if other is None:
            return point
        self._mirror.give_up(number, "this point was infeasible before")
        return self._given(number, other)

    def _warm_start(self) -> Sequence[Trial]:
        self._earlier = earlier_trials(self._plan)
        return () if self._earlier is None else self._earlier.trials

    def _flush(self) -> None:
        if self._journal is not None:
            self._journal.flush()
