"""What a search by Optuna promises: a study that was killed goes on as it would have, the record wins, bad
points are avoided, and Optuna's own tools open it.
"""

import math
import shutil
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import fsspec
import optuna
import pytest
from optuna.trial import TrialState
from searching import (
    DECAY,
    EPOCHS,
    LR,
    METRIC,
    NUMBERS,
    ask,
    bowl,
    drive,
    end,
    new_store,
    plan_study,
    reopened,
)

from raystack.errors import LaunchError, PlanError
from raystack.plan.space import Point
from raystack.plan.tuning import TunePlan
from raystack.tuning.record import JOURNAL, Exploit, Status, StudyStore
from raystack.tuning.search import Search

GP = pytest.param("gp", marks=pytest.mark.slow)
MODELS = ("tpe", "cmaes", GP)
TWO = f"{{{LR}: {{loguniform: [1e-4, 1e-1]}}, {DECAY}: {{uniform: [0, 1]}}}}"


def plan_of(storage: str | Path, kind: str, *overrides: str, space: str = NUMBERS) -> TunePlan:
    """A plan whose model is used from the third trial on."""
    plan = plan_study(storage, space, f"tuning.search={{kind: {kind}, startup: 2}}", *overrides)
    new_store(plan)
    return plan


def journal(plan: TunePlan) -> Path:
    return Path(plan.paths.folder, JOURNAL)


def optunas(plan: TunePlan) -> list[optuna.trial.FrozenTrial]:
    """The trials as Optuna reads the file in the study's folder."""
    backend = optuna.storages.journal.JournalFileBackend(str(journal(plan)))
    study = optuna.load_study(study_name=plan.name, storage=optuna.storages.JournalStorage(backend))
    return study.trials


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Any]]]:
    """The points of a study of 12 trials that nothing interrupts, by algorithm."""
    known: dict[str, list[dict[str, Any]]] = {}

    def points(kind: str) -> list[dict[str, Any]]:
        if kind not in known:
            plan = plan_of(tmp_path_factory.mktemp(kind), kind)
            known[kind] = drive(reopened(plan), plan, range(12), bowl)
        return known[kind]

    return points


Points = Callable[[str], list[dict[str, Any]]]


@pytest.mark.parametrize("kind", MODELS)
def test_a_killed_study_goes_on_with_the_points_of_the_unbroken_one(
    tmp_path: Path, unbroken: Points, kind: str
) -> None:
    plan = plan_of(tmp_path, kind)
    drive(reopened(plan), plan, range(6), bowl)
    rest = drive(reopened(plan), plan, range(6, 12), bowl)
    assert rest == unbroken(kind)[6:]
    other = plan_of(tmp_path / "other", kind)
    assert rest[0] != reopened(other).ask(6), "a fresh study knows nothing"


@pytest.mark.parametrize("kind", ["tpe", "cmaes"])
def test_trials_in_flight_at_a_kill_change_no_later_point(tmp_path: Path, kind: str) -> None:
    """Two at a time: one has reported, the other was asked for and not yet recorded."""

    def study(folder: Path, killed: bool) -> list[Point | None]:
        plan = plan_of(folder, kind)
        search = reopened(plan)
        drive(search, plan, range(4), bowl)
        running = ask(search, plan, 4)
        fifth = search.ask(5)
        search = reopened(plan) if killed else search
        asked = search.ask(5) if killed else fifth
        assert asked == fifth
        end(search, plan, running, [bowl(running.point)])
        return [asked, *(search.ask(number) for number in range(6, 9))]

    assert study(tmp_path / "killed", True) == study(tmp_path / "unbroken", False)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [("tpe", "lost"), ("tpe", "cut"), ("tpe", "older"), pytest.param("gp", "lost", marks=pytest.mark.slow)],
)
def test_a_model_is_restored_from_the_record_alone(
    tmp_path: Path, unbroken: Points, kind: str, damage: str
) -> None:
    plan = plan_of(tmp_path, kind)
    drive(reopened(plan), plan, range(3), bowl)
    before = journal(plan).read_text()
    drive(reopened(plan), plan, range(3, 6), bowl)
    if damage == "lost":
        journal(plan).unlink()
    else:
        journal(plan).write_text(before if damage == "older" else before[:-20])
    assert drive(reopened(plan), plan, range(6, 8), bowl) == unbroken(kind)[6:8]


def test_cma_es_goes_on_without_its_journal(tmp_path: Path) -> None:
    """It begins a new generation, with other points than before."""
    plan = plan_of(tmp_path, "cmaes")
    first = drive(reopened(plan), plan, range(12), bowl)
    journal(plan).unlink()
    rest = drive(reopened(plan), plan, range(12, 16), bowl)
    assert len({str(point) for point in first + rest}) == 16
    assert len(optunas(plan)) == 16


def test_the_record_wins_over_what_optuna_has(tmp_path: Path) -> None:
    """A trial whose file was deleted is asked for anew, as if it had never been."""
    plan = plan_of(tmp_path, "tpe")
    drive(reopened(plan), plan, range(5), bowl)
    Path(plan.paths.folder, "trials", "tiny-0004.json").unlink()
    search = reopened(plan)
    assert [trial.user_attrs["trial"] for trial in optunas(plan)] == [0, 1, 2, 3]
    trial = ask(search, plan, 4)
    end(search, plan, trial, [0.5])
    assert optunas(plan)[4].value == 0.5


def test_a_trial_that_runs_again_is_told_again(tmp_path: Path) -> None:
    """What a limit stopped goes on when the limit is raised."""
    plan = plan_of(tmp_path, "tpe")
    search = reopened(plan)
    drive(search, plan, range(3), bowl)
    trial = ask(search, plan, 3)
    end(search, plan, trial, [0.5], "stopped")
    assert optunas(plan)[3].state is TrialState.PRUNED
    trial.status = "running"
    new_store(plan).write(trial)
    search = reopened(plan)
    end(search, plan, trial, [0.25], "finished")
    told = optunas(plan)[3]
    assert (told.state, told.value, told.intermediate_values) == (
        TrialState.COMPLETE,
        0.25,
        {1: 0.5, 2: 0.25},
    )


def test_optuna_is_told_how_each_trial_ended(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tpe")
    search = reopened(plan)
    ends: list[tuple[Status, list[float]]] = [
        ("finished", [3.0, 2.0]),
        ("pruned", [5.0, 4.0]),
        ("infeasible", []),
        ("failed", [1.0]),
        ("finished", [math.nan]),
    ]
    for number, (status, values) in enumerate(ends):
        end(search, plan, ask(search, plan, number), values, status)
    told = optunas(plan)
    assert [(trial.state, trial.value) for trial in told] == [
        (TrialState.COMPLETE, 2.0),
        (TrialState.PRUNED, 4.0),
        (TrialState.PRUNED, None),
        (TrialState.FAIL, None),
        (TrialState.FAIL, None),
    ]
    assert told[0].intermediate_values == {1: 3.0, 2: 2.0}
    assert [trial.user_attrs["status"] for trial in told][:4] == [
        "finished",
        "pruned",
        "infeasible",
        "failed",
    ]


def test_reports_of_a_running_trial_are_known_after_a_kill(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tpe")
    search = reopened(plan)
    trial = ask(search, plan, 0)
    end(search, plan, trial, [2.0, 1.0], "running")
    again = reopened(plan)
    end(again, plan, trial, [0.5], "pruned")
    assert optunas(plan)[0].intermediate_values == {1: 2.0, 2: 1.0, 3: 0.5}


def test_what_a_search_knows_already_may_be_told_again(tmp_path: Path, unbroken: Points) -> None:
    """As a start does that shows it the whole record."""
    plan = plan_of(tmp_path, "tpe")
    drive(reopened(plan), plan, range(6), bowl)
    search = reopened(plan)
    for trial in StudyStore(plan.paths.folder).trials():
        for report in trial.reports:
            search.report(trial, report)
        search.end(trial)
    assert search.ask(6) == unbroken("tpe")[6]


def test_a_trial_that_took_over_another_point_is_still_the_same(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tpe")
    search = reopened(plan)
    first = drive(search, plan, range(3), bowl)
    trial = ask(search, plan, 3)
    suggested = dict(trial.point)
    trial.point = {**suggested, DECAY: 0.125}
    trial.exploits.append(Exploit(report=1, donor=0, step=1, point=trial.point))
    StudyStore(plan.paths.folder).write(trial)
    end(reopened(plan), plan, trial, [0.5])
    assert [told.params for told in optunas(plan)] == [*first, suggested]
    assert optunas(plan)[3].value == 0.5


def feasible_few(point: Point) -> bool:
    """A tenth of TWO, without its middle."""
    return bool(point[DECAY] < 0.3 and point[LR] < 1e-3)


def one_of_ten(point: Point) -> bool:
    return bool(point[EPOCHS] == 4)


def until_feasible(
    search: Search, plan: TunePlan, feasible: Callable[[Point], bool], wanted: int
) -> list[bool]:
    """Whether each trial was feasible, until there are enough that are."""
    seen: list[bool] = []
    while sum(seen) < wanted and len(seen) < 300:
        trial = ask(search, plan, len(seen))
        seen.append(feasible(trial.point))
        if seen[-1]:
            end(search, plan, trial, [bowl(trial.point)])
        else:
            end(search, plan, trial, status="infeasible")
    return seen


CHOICES = f"{TWO[:-1]}, {EPOCHS}: {{choice: {[*range(1, 11)]}}}}}"
BETAS = "training.optimizer.betas"


@pytest.mark.parametrize(
    ("kind", "space", "feasible"),
    [("tpe", TWO, feasible_few), ("tpe", CHOICES, one_of_ten), ("cmaes", TWO, feasible_few)],
)
def test_a_model_learns_what_is_infeasible(
    tmp_path: Path, kind: str, space: str, feasible: Callable[[Point], bool]
) -> None:
    """Of ten random points one is feasible; of those after the first few are, at least a quarter."""
    plan = plan_of(tmp_path, kind, "experiment.seed=1", space=space)
    seen = until_feasible(reopened(plan), plan, feasible, 20)
    assert sum(seen) == 20
    found_at = len(list(takewhile(lambda count: count < 4, (sum(seen[:n]) for n in range(len(seen))))))
    later = seen[found_at:]
    assert sum(later) / len(later) > 0.25, later


@pytest.mark.slow
def test_a_gaussian_process_does_not_insist_on_an_infeasible_point(tmp_path: Path) -> None:
    """The best of its model lies where nothing is feasible."""
    plan = plan_of(tmp_path, "gp", space=f"{{{DECAY}: {{uniform: [0, 1]}}}}")
    search = reopened(plan)
    seen = []
    for number in range(12):
        trial = ask(search, plan, number)
        seen.append(trial.point[DECAY])
        if seen[-1] > 0.5:
            end(search, plan, trial, status="infeasible")
        else:
            end(search, plan, trial, [-seen[-1]])
    assert sum(value > 0.9 for value in seen[3:]) <= 3, seen


def test_a_point_that_was_infeasible_is_not_tried_again(tmp_path: Path) -> None:
    """Of four points one is feasible: the others are tried once each."""
    space = f"{{{EPOCHS}: {{choice: [1, 2]}}, training.optimizer.kind: {{choice: [adamw, sgd]}}}}"
    plan = plan_of(tmp_path, "tpe", space=space)
    search, tried = reopened(plan), []
    for number in range(12):
        if number == 6:
            search = reopened(plan)
        trial = ask(search, plan, number)
        tried.append(tuple(trial.point.values()))
        good = trial.point == {EPOCHS: 1, "training.optimizer.kind": "adamw"}
        end(search, plan, trial, [1.0] if good else [], "finished" if good else "infeasible")
    assert {point: tried.count(point) for point in set(tried)} == {
        (1, "adamw"): len(tried) - len(set(tried)) + 1,
        **dict.fromkeys(set(tried) - {(1, "adamw")}, 1),
    }


def test_constraints_are_told(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tpe", "tuning.constraints={eval/time: {max: 2}, eval/size: {min: 1, max: 3}}")
    search = reopened(plan)
    end(search, plan, ask(search, plan, 0), [0.1], eval_time=1.5, eval_size=4.0)
    end(search, plan, ask(search, plan, 1), [0.1], eval_time=2.5)
    assert [trial.constraints for trial in optunas(plan)] == [
        {"eval/time max": -0.5, "eval/size min": -3.0, "eval/size max": 1.0},
        {"eval/time max": 0.5, "eval/size min": 1.0, "eval/size max": 1.0},
    ]


@pytest.mark.parametrize("kind", ["tpe", GP])
def test_a_model_keeps_a_constraint(tmp_path: Path, kind: str) -> None:
    """The lower the better, and below 0.5 it is forbidden."""
    space = f"{{{DECAY}: {{uniform: [0, 1]}}}}"
    plan = plan_of(tmp_path, kind, "tuning.constraints={eval/size: {min: 0.5}}", space=space)
    search = reopened(plan)
    found = []
    for number in range(20 if kind == "tpe" else 10):
        trial = ask(search, plan, number)
        found.append(trial.point[DECAY])
        end(search, plan, trial, [trial.point[DECAY]], eval_size=trial.point[DECAY])
    assert sum(value >= 0.45 for value in found[5:]) > len(found[5:]) / 2, found


@pytest.mark.parametrize("kind", ["tpe", GP])
def test_several_objectives(tmp_path: Path, kind: str) -> None:
    several = [f"tuning.metric=[{METRIC}, eval/size]", "tuning.mode=[min, max]"]
    plan = plan_of(tmp_path, kind, *several)
    search = reopened(plan)
    for number in range(4):
        trial = ask(search, plan, number)
        if number == 2:
            end(search, plan, trial, status="infeasible")
        else:
            end(search, plan, trial, [bowl(trial.point)], eval_size=float(trial.point[EPOCHS]))
    search = reopened(plan)
    assert search.ask(4) is not None
    told = optunas(plan)
    assert told[0].values == [pytest.approx(bowl(told[0].params)), told[0].params[EPOCHS]]
    assert told[2].state is (TrialState.PRUNED if kind == "tpe" else TrialState.COMPLETE)


def test_known_good_points_are_where_cma_es_begins(tmp_path: Path) -> None:
    given = f"[{{{LR}: 2.0e-4, {DECAY}: 0.9}}]"
    plan = plan_of(tmp_path, "cmaes", f"tuning.points={given}", space=TWO)
    found = drive(reopened(plan), plan, range(8), bowl)
    near = [abs(point[DECAY] - 0.9) < 0.5 and point[LR] < 3e-3 for point in found[2:]]
    assert sum(near) >= 5, found


def test_a_known_good_point_counts_with_the_configs_own_values(tmp_path: Path) -> None:
    """Where it leaves a path out; outside of a domain no model can be told of it."""
    given = f"[{{{DECAY}: 0.5}}, {{{LR}: 5.0, {DECAY}: 0.5}}]"
    plan = plan_of(tmp_path, "tpe", f"tuning.points={given}", space=TWO)
    drive(reopened(plan), plan, range(2), lambda point: 1.0)
    (told,) = optunas(plan)
    assert told.params == {LR: 0.01, DECAY: 0.5}
    assert reopened(plan).ask(2) is not None
    assert len(optunas(plan)) == 2


@pytest.mark.slow
def test_a_database_holds_the_study_too(tmp_path: Path) -> None:
    """The one of `search.storage`; a kill costs nothing, a lost database the last digit of a `normal`."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    space = f"{{{DECAY}: {{normal: [0.5, 0.1]}}, {BETAS}: {{choice: [[0.9, 0.95], [0.9, 0.999]]}}}}"
    plan = plan_of(tmp_path, "tpe", f"tuning.search.storage={url}", space=space)
    own = plan_of(tmp_path / "own", "tpe", space=space)
    answer = lambda point: abs(point[DECAY] - 0.4)  # noqa: E731
    expected = drive(reopened(own), own, range(8), answer)
    assert drive(reopened(plan), plan, range(4), answer) == expected[:4]
    assert drive(reopened(plan), plan, range(4, 6), answer) == expected[4:6]
    told = optuna.load_study(study_name="tiny", storage=url).trials
    assert [trial.user_attrs["trial"] for trial in told] == [0, 1, 2, 3, 4, 5]
    assert {trial.params[BETAS] for trial in told} <= {"[0.9, 0.95]", "[0.9, 0.999]"}
    assert not journal(plan).exists()
    Path(tmp_path, "optuna.db").unlink()
    rest = drive(reopened(plan), plan, range(6, 8), answer)
    assert [point[BETAS] for point in rest] == [point[BETAS] for point in expected[6:8]]
    assert [point[DECAY] for point in rest] == pytest.approx([point[DECAY] for point in expected[6:8]])


def test_a_kill_amid_a_suggestion_leaves_nothing_in_the_database(tmp_path: Path) -> None:
    """A trial without its values, which Optuna has committed, is ended; the point is asked for anew."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    plan = plan_of(tmp_path, "tpe", f"tuning.search.storage={url}")
    drive(reopened(plan), plan, range(3), bowl)
    half = optuna.load_study(study_name="tiny", storage=url).ask()
    half.suggest_float(LR, 1e-4, 1e-1, log=True)
    search = reopened(plan)
    assert [trial.state.name for trial in optuna.load_study(study_name="tiny", storage=url).trials] == [
        *["COMPLETE"] * 3,
        "FAIL",
    ]
    assert set(search.ask(3) or ()) == {LR, DECAY, EPOCHS}


@pytest.mark.slow
def test_a_study_goes_on_elsewhere(tmp_path: Path, unbroken: Points) -> None:
    """In a copy of its folder, and in a database that it did not have before."""
    plan = plan_of(tmp_path / "one", "tpe")
    drive(reopened(plan), plan, range(6), bowl)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    url = f"sqlite:///{tmp_path}/optuna.db"
    search = "tuning.search={kind: tpe, startup: 2"
    copied = plan_study(tmp_path / "two", NUMBERS, search + "}")
    assert drive(reopened(copied), copied, range(6, 8), bowl) == unbroken("tpe")[6:8]
    shared = plan_study(tmp_path / "two", NUMBERS, search + f", storage: '{url}'}}")
    StudyStore(shared.paths.folder).check(shared)
    assert drive(reopened(shared), shared, range(8, 10), bowl) == unbroken("tpe")[8:10]
    assert len(optuna.load_study(study_name="tiny", storage=url).trials) == 10


def test_another_study_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    optuna.create_study(study_name="tiny", storage=url).add_trial(optuna.trial.create_trial(value=1.0))
    plan = plan_of(tmp_path, "tpe", f"tuning.search.storage={url}")
    with pytest.raises(PlanError, match=r"tuning\.search\.storage: it holds another study of this name"):
        reopened(plan)
    assert len(optuna.load_study(study_name="tiny", storage=url).trials) == 1


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("sqlite:////nowhere/optuna.db", "unable to open database file"),
        ("nonsense", "Could not parse SQLAlchemy URL"),
        ("secret:env:OPTUNA_URL", "No module named 'psycopg"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, rule: str
) -> None:
    monkeypatch.setenv("OPTUNA_URL", "postgresql://me:hidden@localhost/optuna")
    plan = plan_of(tmp_path, "tpe", f"tuning.search.storage={url}")
    with pytest.raises(PlanError) as caught:
        reopened(plan)
    text = str(caught.value)
    assert text.startswith("tuning.search.storage: Optuna cannot use it: ")
    assert rule in text
    assert "hidden" not in text
    assert "\n" not in text


def test_a_database_that_goes_away_is_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tpe", f"tuning.search.storage=sqlite:///{tmp_path}/optuna.db")
    search = reopened(plan)
    Path(tmp_path, "optuna.db").write_bytes(b"no database")
    with pytest.raises(LaunchError, match=r"tuning\.search\.storage: Optuna cannot use it"):
        search.ask(0)


def test_an_object_store_holds_the_study(object_store: object) -> None:
    fsspec.filesystem("s3").mkdir("studies")
    plan = plan_of("s3://studies/a", "tpe", "tracking=off")
    first = drive(reopened(plan), plan, range(4), bowl)
    second = plan_of("s3://studies/b", "tpe", "tracking=off")
    drive(reopened(second), second, range(3), bowl)
    assert drive(reopened(second), second, range(3, 4), bowl) == first[3:]


def test_optuna_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("tpe", "cmaes", "gp"):
        plan = plan_of(tmp_path / kind, kind)
        drive(reopened(plan), plan, range(3), bowl)
    assert capfd.readouterr() == ("", "")
