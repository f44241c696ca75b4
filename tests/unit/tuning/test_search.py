"""What a search promises whatever its algorithm: typed values of the domains, conditions, known-good points,
and the same points for the same seed.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from searching import DECAY, EPOCHS, LR, NUMBERS, bowl, drive, new_store, plan_study, reopened

from raystack.errors import ConfigError, PlanError
from raystack.plan.tuning import TunePlan
from raystack.tuning.search.domain import at_quantile, contains, typed

KINDS = ("random", "tpe", "cmaes", "gp")
BETAS = "training.optimizer.betas"


def points(plan: TunePlan, count: int) -> list[dict[str, Any]]:
    new_store(plan)
    search = reopened(plan)
    return [dict(point) for number in range(count) if (point := search.ask(number)) is not None]


DOMAINS = {
    "{uniform: [-1, 1]}": (float, lambda v: -1 <= v <= 1),
    "{loguniform: [1e-5, 1e-1]}": (float, lambda v: 1e-5 <= v <= 1e-1),
    "{quniform: [0.1, 0.7, 0.1]}": (float, lambda v: v in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
    "{quniform: [1, 9, 4]}": (int, lambda v: v in (1, 5, 9)),
    "{randint: [1, 4]}": (int, lambda v: v in (1, 2, 3)),
    "{lograndint: [1, 100]}": (int, lambda v: 1 <= v < 100),
    "{normal: [0.5, 0.1]}": (float, lambda v: -0.1 < v < 1.1),
    "{choice: [8, 0.5, text, null, true]}": (object, lambda v: v in (8, 0.5, "text", None, True)),
    "{choice: [[0.9, 0.95], [0.9, 0.999]]}": (list, lambda v: v in ([0.9, 0.95], [0.9, 0.999])),
    "{choice: [{a: 1}, {a: 2}]}": (dict, lambda v: v in ({"a": 1}, {"a": 2})),
}


@pytest.mark.parametrize("kind", ["random", "tpe"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_value_has_the_type_and_the_bounds_of_its_domain(tmp_path: Path, kind: str, domain: str) -> None:
    plan = plan_study(tmp_path, f"{{task.args.a: {domain}}}", f"tuning.search.kind={kind}")
    of_type, holds = DOMAINS[domain]
    values = [point["task.args.a"] for point in points(plan, 30)]
    assert all(type(value) is of_type for value in values) or of_type is object
    assert all(map(holds, values)), values
    assert len({str(value) for value in values}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_points(tmp_path: Path, kind: str) -> None:
    """And another seed others."""

    def study(name: str, seed: int) -> list[dict[str, Any]]:
        options = [f"tuning.search.kind={kind}", f"experiment.seed={seed}", f"tuning.name={name}"]
        plan = plan_study(tmp_path, NUMBERS, *options)
        new_store(plan)
        return drive(reopened(plan), plan, range(4), bowl)

    assert study("a", 1) == study("b", 1) != study("c", 2)


def test_a_random_point_depends_on_the_seed_the_number_and_the_path_alone(tmp_path: Path) -> None:
    """So that trials can be asked for in any order, and another path changes none."""
    plan = plan_study(tmp_path, NUMBERS)
    new_store(plan)
    search = reopened(plan)
    backwards = [search.ask(number) for number in reversed(range(5))]
    assert backwards[::-1] == [reopened(plan).ask(number) for number in range(5)]
    smaller = plan_study(tmp_path, f"{{{DECAY}: {{uniform: [0, 1]}}}}", "tuning.name=smaller")
    assert [point[DECAY] for point in points(smaller, 5)] == [
        (reopened(plan).ask(number) or {})[DECAY] for number in range(5)
    ]


def test_random_points_are_spread_as_their_domains_say(tmp_path: Path) -> None:
    space = (
        "{task.args.log: {loguniform: [1e-4, 1]}, task.args.normal: {normal: [5, 2]}, "
        "task.args.whole: {lograndint: [1, 1000]}, task.args.one: {choice: [a, b]}, "
        "task.args.below: {randint: [-3, 3]}}"
    )
    found = points(plan_study(tmp_path, space), 1000)
    share = {
        "a decade": sum(point["task.args.log"] < 1e-3 for point in found) / 1000,
        "within one deviation": sum(abs(point["task.args.normal"] - 5) < 2 for point in found) / 1000,
        "below ten": sum(point["task.args.whole"] < 10 for point in found) / 1000,
        "least": sum(point["task.args.below"] == -3 for point in found) / 1000,
        "a": sum(point["task.args.one"] == "a" for point in found) / 1000,
    }
    assert share == pytest.approx(
        {"a decade": 0.25, "within one deviation": 0.683, "below ten": 1 / 3, "least": 1 / 6, "a": 0.5},
        abs=0.05,
    )


CONDITIONAL = (
    "{task.args.kind: {choice: [a, b]}, "
    "task.args.depth: {randint: [1, 5], when: {task.args.kind: a}}, "
    "task.args.deeper: {uniform: [0, 1], when: {task.args.depth: [1, 2]}}}"
)


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_path_is_in_a_point_only_where_its_condition_holds(tmp_path: Path, kind: str) -> None:
    plan = plan_study(tmp_path, CONDITIONAL, f"tuning.search.kind={kind}", "experiment.seed=1")
    new_store(plan)
    found = drive(reopened(plan), plan, range(40), lambda point: len(point))
    for point in found:
        assert ("task.args.depth" in point) == (point["task.args.kind"] == "a")
        assert ("task.args.deeper" in point) == (point.get("task.args.depth") in (1, 2))
    assert {len(point) for point in found} == {1, 2, 3}


def test_a_grid_has_every_combination_that_differs_once(tmp_path: Path) -> None:
    space = (
        "{task.args.kind: {grid: [a, b]}, task.args.depth: {grid: [1, 2, 2], when: {task.args.kind: a}}, "
        f"{EPOCHS}: {{grid: [1, 2]}}}}"
    )
    plan = plan_study(tmp_path, space, "tuning.search.kind=grid")
    found = points(plan, 20)
    assert [(point["task.args.kind"], point.get("task.args.depth"), point[EPOCHS]) for point in found] == [
        ("a", 1, 1),
        ("a", 2, 1),
        ("a", 1, 2),
        ("a", 2, 2),
        ("b", None, 1),
        ("b", None, 2),
    ]


def test_a_grid_is_resumed_by_number(tmp_path: Path) -> None:
    plan = plan_study(tmp_path, f"{{{EPOCHS}: {{grid: [1, 2, 3]}}}}", "tuning.search.kind=grid")
    new_store(plan)
    assert [reopened(plan).ask(number) for number in (2, 0, 3)] == [{EPOCHS: 3}, {EPOCHS: 1}, None]


@pytest.mark.parametrize("kind", KINDS)
def test_known_good_points_come_first(tmp_path: Path, kind: str) -> None:
    """Typed; one outside of the domain and one that leaves a path out are tried like the others."""
    given = f"[{{{LR}: 1, {DECAY}: 0.5, {EPOCHS}: 3}}, {{{LR}: 0.01}}]"
    plan = plan_study(tmp_path, NUMBERS, f"tuning.search.kind={kind}", f"tuning.points={given}")
    new_store(plan)
    first, second, *others = drive(reopened(plan), plan, range(4), lambda point: bowl({DECAY: 0.0, **point}))
    assert first == {LR: 1, DECAY: 0.5, EPOCHS: 3}
    assert second == {LR: 0.01}
    assert all(set(point) == {LR, DECAY, EPOCHS} for point in others)


def test_a_known_good_point_keeps_conditions_and_is_not_in_the_grid_again(tmp_path: Path) -> None:
    space = "{task.args.kind: {grid: [a, b]}, task.args.depth: {grid: [1, 2], when: {task.args.kind: a}}}"
    given = "[{task.args.kind: b, task.args.depth: 2}]"
    plan = plan_study(tmp_path, space, "tuning.search.kind=grid", f"tuning.points={given}")
    assert [tuple(point.values()) for point in points(plan, 9)] == [("b",), ("a", 1), ("a", 2)]


def test_the_ends_of_a_domain_can_be_drawn(tmp_path: Path) -> None:
    space = "{" + ", ".join(f"task.args.a{number}: {one}" for number, one in enumerate(DOMAINS)) + "}"
    for each in plan_study(tmp_path, space).space:
        for share in (0.0, 0.5, 1 - 2**-53):
            value = at_quantile(each, share)
            assert contains(each, value) or each.kind == "normal"
            assert typed(each, value) == value


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (f"{{{EPOCHS}: {{choice: [1, 2]}}}}", ["tuning.search.kind=cmaes"], "CMA-ES needs numbers"),
        (
            f"{{{EPOCHS}: {{randint: [1, 3]}}, {LR}: {{uniform: [0, 1], when: {{{EPOCHS}: 1}}}}}}",
            ["tuning.search.kind=cmaes"],
            f"tuning.space.{LR}: CMA-ES needs numbers, and every path in every trial",
        ),
        (NUMBERS, ["tuning.search.kind=grid"], "a grid needs values"),
        (NUMBERS, ["tuning.warm_start.study=a"], "tuning.warm_start: this search does not learn"),
    ],
)
def test_what_a_search_cannot_do_is_refused(
    tmp_path: Path, space: str, options: list[str], message: str
) -> None:
    with pytest.raises(PlanError, match=message.replace(".", r"\.")):
        plan_study(tmp_path, space, *options)


def test_a_database_with_a_password_in_its_url_is_refused(tmp_path: Path) -> None:
    """The config is written beside the study."""
    url = "tuning.search.storage=postgresql://me:hidden@localhost/optuna"
    with pytest.raises(
        ConfigError, match=r"tuning\.search\.\S*storage: should not hold a password"
    ) as caught:
        plan_study(tmp_path, NUMBERS, "tuning.search.kind=tpe", url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(("kind", "package"), [("tpe", "optuna"), ("cmaes", "cmaes"), ("gp", "scipy")])
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    def without(name: str) -> object:
        return None if name == package else importlib.util.find_spec(name)

    for module in ("opening", "samplers"):
        monkeypatch.setattr(f"raystack.tuning.search.{module}.find_spec", without)
    plan = plan_study(tmp_path, NUMBERS, f"tuning.search.kind={kind}")
    new_store(plan)
    with pytest.raises(PlanError, match=f"{kind} needs the package {package}.*pip install"):
        reopened(plan)
