"""The sampler of one suggestion. In: the plan and the trial's number. Out: Optuna's sampler for it.

Each suggestion has a sampler of its own, seeded by the study's seed and the trial's number. What a sampler
knows beyond that, it reads from Optuna's study.
"""

import hashlib
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from raystack.config.tuning import CmaEs, Gp, Tpe
from raystack.errors import Problem
from raystack.plan.tuning import TunePlan
from raystack.tuning.search.distributions import distribution

_NEEDED = {"cmaes": ("cmaes",), "gp": ("scipy", "torch")}

SOURCES = 10
"""Trials of which CMA-ES takes the best tenth as its first distribution (Nomura et al. 2021)."""


def sampler(plan: TunePlan, number: int, known_good: Sequence[FrozenTrial]) -> BaseSampler:
    """Return the sampler for trial `number`. `known_good`: finished trials that CMA-ES begins with."""
    search, seed = plan.tuning.search, _seed(plan, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)
        match search:
            case Tpe():
                return TPESampler(
                    seed=seed,
                    n_startup_trials=search.startup,
                    n_ei_candidates=search.candidates,
                    multivariate=search.multivariate,
                    # With conditions the paths of a trial are modelled in groups that occur together.
                    group=search.multivariate and any(each.when for each in plan.space),
                    constant_liar=True,
                )
            case CmaEs():
                return CmaEsSampler(
                    seed=seed,
                    n_startup_trials=search.startup,
                    warn_independent_sampling=False,
                    **_start(plan, search, known_good),
                )
            case Gp():
                return GPSampler(
                    seed=seed,
                    n_startup_trials=search.startup,
                    deterministic_objective=search.deterministic,
                    warn_independent_sampling=False,
                )
    raise AssertionError(search.kind)


def _start(plan: TunePlan, search: CmaEs, known_good: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Return where CMA-ES begins: at the distribution of the best known trials, or at the best one."""
    if not known_good:
        return {"sigma0": search.sigma}
    if len(known_good) >= SOURCES and search.sigma is None:
        return {"source_trials": [_searched(trial) for trial in known_good]}
    best = (max if plan.objectives[0].mode == "max" else min)(known_good, key=lambda trial: trial.values[0])
    return {"x0": best.params, "sigma0": search.sigma}


def _searched(trial: FrozenTrial) -> FrozenTrial:
    """Return the trial without paths that have one value only, which CMA-ES leaves out."""
    paths = [path for path, found in trial.distributions.items() if not found.single()]
    return create_trial(
        values=trial.values,
        params={path: trial.params[path] for path in paths},
        distributions={path: trial.distributions[path] for path in paths},
    )


def search_problems(plan: TunePlan) -> list[Problem]:
    """Return what only Optuna can find out: a package that is missing, a domain that it does not have."""
    kind = plan.tuning.search.kind
    found = [
        Problem(
            "tuning.search.kind",
            rule=f"{kind} needs the package {name}",
            remedy="pip install 'raystack-ml[tune]'",
        )
        for name in _NEEDED.get(kind, ())
        if find_spec(name) is None
    ]
    for each in plan.space:
        try:
            distribution(each)
        except ValueError as error:
            where, rule = f"tuning.space.{each.path}", f"Optuna refuses the domain: {error}"
            found.append(Problem(where, rule=rule, got=each.kind, remedy="use tuning=random"))
    return found


def _seed(plan: TunePlan, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{plan.seed}/{number}".encode()).digest()[:4], "big")
