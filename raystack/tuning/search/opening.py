"""A plan's search algorithm."""

from collections.abc import Sequence
from importlib.util import find_spec

from raystack.errors import PlanError, Problem
from raystack.plan.tuning import TunePlan
from raystack.tuning.record import StudyStore, Trial
from raystack.tuning.search import Search
from raystack.tuning.search.grid import GridSearch
from raystack.tuning.search.random import RandomSearch


def open_search(plan: TunePlan, store: StudyStore, trials: Sequence[Trial]) -> Search:
    """Return the plan's search, which knows `trials`: those of the record.

    Raises PlanError if it cannot do the space, or cannot open or find what the config names.
    """
    kind = plan.tuning.search.kind
    if kind == "random":
        return RandomSearch(plan)
    if kind == "grid":
        return GridSearch(plan)
    if find_spec("optuna") is None:
        rule, remedy = f"{kind} needs the package optuna", "pip install 'raystack-ml[tune]'"
        raise PlanError(Problem("tuning.search.kind", rule=rule, got=kind, remedy=remedy))
    from raystack.tuning.search.optuna import OptunaSearch  # the others do without Optuna

    return OptunaSearch(plan, store, trials)
