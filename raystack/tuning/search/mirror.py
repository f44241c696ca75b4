"""Optuna's study of the same trials, from which its samplers read what they know.

In: the plan, the record, trials of a warm start. The record wins: what Optuna's storage lacks is added, and a
storage that says something else is made anew.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from raystack.errors import PlanError, Problem
from raystack.plan.space import Point
from raystack.plan.tuning import TunePlan
from raystack.tuning.record import Report, Trial, value
from raystack.tuning.search.distributions import distribution, suggested, to_params, to_point
from raystack.tuning.search.domain import completed
from raystack.tuning.search.journal import WHERE

NUMBER, EARLIER, STATUS, REASON = "trial", "earlier", "status", "reason"
"""Attributes of a trial: its number, status and reason in the record; its id in an earlier study."""
OWNER, BEGUN = "raystack", "begun"
"""Attributes of the study: who has it; that all trials of the warm start are in it."""
UNKNOWN_VIOLATION = 1.0
"""Of a constraint whose metric a trial does not have."""


class Mirror:
    """Optuna's study, by the numbers of our trials."""

    def __init__(self, plan: TunePlan, storage: BaseStorage, owner: str) -> None:
        """Open the study, empty if there is none. Raises PlanError if it has another owner.

        `owner` tells studies of the same name in one database apart.
        """
        self._plan, self._storage, self._owner = plan, storage, owner
        self._distributions = {each.path: distribution(each) for each in plan.space}
        self._study = self._opened()
        self._numbers: dict[int, int] = {}

    def catch_up(self, trials: Sequence[Trial], earlier: Callable[[], Sequence[Trial]]) -> None:
        """Make the study hold the trials of the record, and before them those of the warm start."""
        recorded = {trial.number: trial for trial in trials}
        attributes: dict[int, dict[str, Any]] = {}
        if not self._agrees(recorded):
            attributes = {
                frozen.user_attrs[NUMBER]: frozen.system_attrs
                for frozen in self._study.trials
                if self._is_of(frozen, recorded.get(frozen.user_attrs.get(NUMBER, -1)))
            }
            optuna.delete_study(study_name=self._plan.name, storage=self._storage)
            self._study = self._opened()
        if BEGUN not in self._study.user_attrs:
            for trial in earlier():
                self._tell(self._add(trial, {EARLIER: trial.id}, {}), trial)
            self._study.set_user_attr(BEGUN, True)
        self._take_over()
        for trial in trials:
            if trial.number not in self._numbers:
                self.add(trial, attributes.get(trial.number, {}))
            elif self._frozen(trial.number).state is TrialState.RUNNING:
                for report in trial.reports:
                    self.report(trial, report)
                if trial.over:
                    self.end(trial)

    def point(self, number: int) -> Point | None:
        """Return the point that was suggested for a trial, if it was."""
        if number not in self._numbers:
            return None
        return to_point(self._plan.space, self._frozen(number).params)

    def suggest(self, number: int, sampler: BaseSampler) -> Point:
        """Return a new point for trial `number`, which runs from now on."""
        self._study.sampler = sampler
        trial = self._study.ask()
        point = suggested(self._plan.space, trial)
        trial.set_user_attr(NUMBER, number)
        self._numbers[number] = trial.number
        return point

    def give_up(self, number: int, reason: str) -> None:
        """Take the suggestion for trial `number` back."""
        found = self._numbers.pop(number)
        trial = self._trial(found)
        trial.set_user_attr(NUMBER, None)
        trial.set_user_attr(REASON, reason)
        self._study.tell(found, state=TrialState.FAIL)

    def add(self, trial: Trial, attributes: dict[str, Any] | None = None) -> None:
        """Add a trial whose point no sampler suggested, if the domains hold it."""
        found = self._add(trial, {NUMBER: trial.number}, attributes or {})
        if found is None:
            return
        self._numbers[trial.number] = found
        for report in trial.reports:
            self.report(trial, report)
        if trial.over:
            self.end(trial)

    def report(self, trial: Trial, report: Report) -> None:
        """Tell a report; with several objectives Optuna takes none."""
        metric = self._plan.objectives[0].metric
        found = self._numbers.get(trial.number)
        if found is None or len(self._plan.objectives) > 1 or metric not in report.metrics:
            return
        frozen = self._frozen(trial.number)
        if frozen.state is TrialState.RUNNING and report.number not in frozen.intermediate_values:
            self._trial(found).report(report.metrics[metric], report.number)

    def end(self, trial: Trial) -> None:
        """Tell a trial that is over."""
        if trial.number in self._numbers and self._frozen(trial.number).state is TrialState.RUNNING:
            self._tell(self._numbers[trial.number], trial)

    def known_good(self) -> list[FrozenTrial]:
        """Return what CMA-ES begins with: finished trials of the warm start and of the config's points.

        Where points were infeasible, every finished one: the middle of the space may be too.
        """
        given = range(len(self._plan.tuning.points))
        complete = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        good = [
            frozen
            for frozen in complete
            if EARLIER in frozen.user_attrs or frozen.user_attrs.get(NUMBER) in given
        ]
        failed = self._study.get_trials(deepcopy=False, states=[TrialState.FAIL])
        infeasible = any(frozen.user_attrs.get(STATUS) == "infeasible" for frozen in failed)
        return good or (complete if infeasible else [])

    def _opened(self) -> optuna.Study:
        study = optuna.create_study(
            storage=self._storage,
            study_name=self._plan.name,
            directions=["maximize" if each.mode == "max" else "minimize" for each in self._plan.objectives],
            load_if_exists=True,
        )
        owner = study.user_attrs.get(OWNER)
        if owner is None and not study.trials:
            study.set_user_attr(OWNER, self._owner)
        elif owner != self._owner:
            rule = "it holds another study of this name"
            remedy = "give this study another tuning.name"
            raise PlanError(Problem(WHERE, rule=rule, got=self._plan.name, remedy=remedy))
        return study

    def _agrees(self, recorded: dict[int, Trial]) -> bool:
        """Return whether nothing in Optuna's study contradicts the record."""
        seen: set[int] = set()
        for frozen in self._study.trials:
            number = frozen.user_attrs.get(NUMBER)
            if number is None:
                continue
            trial, running = recorded.get(number), frozen.state is TrialState.RUNNING
            if number in seen or not (self._is_of(frozen, trial) or (trial is None and running)):
                return False
            if trial is not None and not trial.over and not running:
                return False
            seen.add(number)
        return BEGUN in self._study.user_attrs or not self._study.trials

    def _is_of(self, frozen: FrozenTrial, trial: Trial | None) -> bool:
        """Return whether it is the same trial. A population's trial has another point by now."""
        if trial is None:
            return False
        told, recorded = to_point(self._plan.space, frozen.params), completed(self._plan.space, trial.point)
        return bool(trial.exploits) or (told is not None and recorded is not None and _same(told, recorded))

    def _take_over(self) -> None:
        """Find the trials that are in the study, and end those of which a killed driver left a part."""
        for frozen in self._study.trials:
            number: int | None = frozen.user_attrs.get(NUMBER)
            if number is not None and to_point(self._plan.space, frozen.params) is not None:
                self._numbers[number] = frozen.number
            elif frozen.state is TrialState.RUNNING:
                self._study.tell(frozen.number, state=TrialState.FAIL)

    def _add(self, trial: Trial, attributes: dict[str, Any], system: dict[str, Any]) -> int | None:
        point = completed(self._plan.space, trial.point)
        if point is None:
            return None
        params = to_params(self._plan.space, point)
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=self._distributions_of(params),
                user_attrs=attributes,
                system_attrs={name: each for name, each in system.items() if "constraints" not in name},
            )
        )
        return len(self._study.get_trials(deepcopy=False)) - 1

    def _distributions_of(self, params: dict[str, Any]) -> dict[str, BaseDistribution]:
        return {path: self._distributions[path] for path in params}

    def _tell(self, found: int | None, trial: Trial) -> None:
        if found is None:
            return
        ours = self._trial(found)
        ours.set_user_attr(STATUS, trial.status)
        if trial.reason is not None:
            ours.set_user_attr(REASON, trial.reason)
        state, values = self._told(trial)
        if state is not TrialState.FAIL and self._plan.tuning.search.kind != "cmaes":
            for name, violation in self._violations(trial):
                ours.set_constraint(name, violation)
        self._study.tell(found, values=values, state=state)

    def _told(self, trial: Trial) -> tuple[TrialState, list[float] | None]:
        """Return the state and values that samplers learn most from."""
        match trial.status:
            case "finished":
                values = [value(trial, each, self._plan) for each in self._plan.objectives]
                known = [number for number in values if number is not None]
                if len(known) == len(values):
                    return TrialState.COMPLETE, known
            case "pruned" | "stopped":
                return TrialState.PRUNED, None
            case "infeasible":
                return self._infeasible()
        return TrialState.FAIL, None

    def _infeasible(self) -> tuple[TrialState, list[float] | None]:
        """Return how a sampler learns to avoid a point.

        TPE counts a trial that was pruned without a report among the bad ones. A Gaussian process knows only
        values, so it is told the worst. CMA-ES draws again from the same distribution.
        """
        kind = self._plan.tuning.search.kind
        if kind == "tpe":
            return TrialState.PRUNED, None
        complete = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if kind != "gp" or not complete:
            return TrialState.FAIL, None
        worst = [
            (min if each.mode == "max" else max)(column)
            for each, column in zip(
                self._plan.objectives, zip(*(one.values for one in complete), strict=True), strict=True
            )
        ]
        return TrialState.COMPLETE, worst

    def _violations(self, trial: Trial) -> list[tuple[str, float]]:
        """Return how far the trial is beyond each bound; at most 0 if it keeps it."""
        found = []
        for metric, bound in self._plan.tuning.constraints.items():
            number = trial.last(metric)
            unknown = number is None or math.isnan(number)
            for name, limit, sign in (("min", bound.min, -1), ("max", bound.max, 1)):
                if limit is not None:
                    beyond = UNKNOWN_VIOLATION if unknown or number is None else sign * (number - limit)
                    found.append((f"{metric} {name}", beyond))
        return found

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[self._numbers[number]]

    def _trial(self, found: int) -> optuna.Trial:
        """Return a handle of a trial, which samples nothing until it is asked to."""
        study_id = self._storage.get_study_id_from_name(self._plan.name)
        return optuna.Trial(
            self._study, self._storage.get_trial_id_from_study_id_trial_number(study_id, found)
        )


def _same(one: Point, other: Point) -> bool:
    """Return whether two points are equal, but for the rounding of what Optuna stores."""
    return one.keys() == other.keys() and all(
        math.isclose(value, other[path], rel_tol=1e-9)
        if isinstance(value, float) and isinstance(other[path], (int, float))
        else json.dumps(value, sort_keys=True) == json.dumps(other[path], sort_keys=True)
        for path, value in one.items()
    )
