"""How good the best of a number of trials is, by search algorithm: known functions in the place of a
training, without Ray. The regret is the distance of the best value from the function's least.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from figures import machine, parse, parser, show, spread, write

from raystack.config import from_mapping
from raystack.plan.space import Point
from raystack.plan.tuning import TunePlan, plan_tuning
from raystack.tuning.record import Report, StudyStore, Trial
from raystack.tuning.search.opening import open_search

METRIC = "eval/regret"
HARTMANN_A = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
HARTMANN_P = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)
HARTMANN_C = (1.0, 1.2, 3.0, 3.2)


@dataclass(frozen=True)
class Function:
    """A function with a known least value, and its space."""

    regret: Callable[[list[Any]], float]
    """Of the values of the paths, in the order of the space; None where a path does not count."""
    space: dict[str, Any]
    searches: tuple[str, ...] = ("random", "tpe", "cmaes", "gp")


def branin(values: list[Any]) -> float:
    """The distance from the least value of Branin's function, which has three such points."""
    x, y = values
    b, c = 5.1 / (4 * math.pi**2), 5 / math.pi
    return float((y - b * x**2 + c * x - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.397887)


def hartmann(values: list[Any]) -> float:
    """The distance from the least value of Hartmann's function of six variables."""
    total = sum(
        weight * math.exp(-sum(a * (x - p) ** 2 for a, p, x in zip(row, centre, values, strict=True)))
        for weight, row, centre in zip(HARTMANN_C, HARTMANN_A, HARTMANN_P, strict=True)
    )
    return 3.32237 - total


def mixed(values: list[Any]) -> float:
    """As a training might answer: two optimizers, of which one has a momentum, a learning rate, a width."""
    kind, lr, momentum, width = values
    best = -2.5 if kind == "adamw" else -1.0
    regret = (math.log10(lr) - best) ** 2 + 0.5 * abs(math.log2(width) - 5)
    return float(regret + (0.3 if kind == "adamw" else 3 * (momentum - 0.9) ** 2))


FUNCTIONS = {
    "Branin": Function(branin, {"x": {"uniform": [-5.0, 10.0]}, "y": {"uniform": [0.0, 15.0]}}),
    "Hartmann 6": Function(hartmann, {f"x{index}": {"uniform": [0.0, 1.0]} for index in range(6)}),
    "mixed": Function(
        mixed,
        {
            "kind": {"choice": ["adamw", "sgd"]},
            "lr": {"loguniform": [1e-5, 1.0]},
            "momentum": {"uniform": [0.0, 0.99], "when": {"task.args.kind": "sgd"}},
            "width": {"choice": [4, 8, 16, 32, 64, 128]},
        },
        ("random", "tpe"),
    ),
}


def main() -> int:
    """Measure, print the table, write the JSON. Status 1 if TPE is not better than random search."""
    arguments = _parse()
    rows: dict[str, dict[str, Any]] = {}
    for name, function in FUNCTIONS.items():
        for kind in (kind for kind in function.searches if kind in ("random", *arguments.searches)):
            studies = [_study(function, kind, seed, arguments.trials) for seed in range(arguments.seeds)]
            rows.setdefault(name, {})[kind] = {
                "regret": spread([regret for regret, _ in studies]),
                "ask_ms": 1000 * statistics.median(seconds for _, seconds in studies),
            }
    _show(rows, arguments)
    worse = [name for name, row in rows.items() if "tpe" in row and _ratio(row, "tpe") >= 1]
    print(f"\nTPE is better than random search: {'not on ' + ', '.join(worse) if worse else 'on all'}")
    if arguments.output:
        settings = {key: getattr(arguments, key) for key in ("trials", "seeds", "searches")}
        about = {"benchmark": "search", "machine": machine("optuna", "cmaes"), "settings": settings}
        write(arguments.output, {**about, "rows": rows})
    return int(bool(worse))


def _parse() -> argparse.Namespace:
    options = parser(__doc__, "search", "30 trials with 3 seeds, without gp")
    options.add_argument("--trials", type=int, help="trials of a study (40)")
    options.add_argument("--seeds", type=int, help="studies of each algorithm (10)")
    options.add_argument("--searches", nargs="+", help="beside random; gp takes minutes (tpe cmaes gp)")
    full = {"trials": 40, "seeds": 10, "searches": ["tpe", "cmaes", "gp"]}
    return parse(options, "search", full, {"trials": 30, "seeds": 3, "searches": ["tpe", "cmaes"]})


def _plan(function: Function, kind: str, seed: int, storage: str) -> TunePlan:
    space = {f"task.args.{name}": domain for name, domain in function.space.items()}
    config = {
        "experiment": {"name": "search", "storage": storage, "seed": seed},
        "task": {"entry": "task:Function"},
        "training": {"steps": 1, "batch": {"global": 1}},
        "tracking": {"kind": "off"},
        "tuning": {"metric": METRIC, "mode": "min", "space": space, "search": {"kind": kind}},
    }
    return plan_tuning(from_mapping(config), "search-1")


def _study(function: Function, kind: str, seed: int, trials: int) -> tuple[float, float]:
    """Return the least regret of the study, and the seconds that a point took."""
    with tempfile.TemporaryDirectory() as storage:
        plan = _plan(function, kind, seed, storage)
        store = StudyStore(plan.paths.folder)
        store.create(plan)
        search, regrets, started = open_search(plan, store, []), [], time.perf_counter()
        for number in range(trials):
            point = search.ask(number)
            assert point is not None
            regrets.append(_answer(function, point))
            report = Report(number=1, step=1, seconds=0.0, metrics={METRIC: regrets[-1]}, order=number)
            trial = Trial(
                number=number, id=f"{number}", point=dict(point), status="finished", reports=[report]
            )
            search.end(trial)
        return min(regrets), (time.perf_counter() - started) / trials


def _answer(function: Function, point: Point) -> float:
    return function.regret([point.get(f"task.args.{name}") for name in function.space])


def _ratio(row: dict[str, Any], kind: str) -> float:
    return float(row[kind]["regret"]["median"] / row["random"]["regret"]["median"])


def _show(rows: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> None:
    columns = ("", "search", "regret", "least", "most", "/ random", "ms/trial")
    lines = [
        [
            name,
            kind,
            *(f"{found['regret'][which]:.4f}" for which in ("median", "min", "max")),
            f"{_ratio(row, kind):.2f}",
            f"{found['ask_ms']:.1f}",
        ]
        for name, row in rows.items()
        for kind, found in row.items()
    ]
    title = f"best of {arguments.trials} trials, median over {arguments.seeds} seeds"
    show(title, columns, lines)


if __name__ == "__main__":
    sys.exit(main())
