"""What a search knows before its first trial: an earlier study of the storage, or runs in MLflow."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from searching import (
    DECAY,
    EPOCHS,
    LR,
    METRIC,
    TINY,
    ask,
    bowl,
    drive,
    end,
    new_store,
    plan_study,
    reopened,
)

from raystack.config import load
from raystack.errors import LaunchError, PlanError
from raystack.plan.tuning import TunePlan
from raystack.registry.recording import flatten
from raystack.tuning.record import JOURNAL, Status

TWO = f"{{{LR}: {{loguniform: [1e-4, 1e-1]}}, {DECAY}: {{uniform: [0, 1]}}}}"
EARLIER = ["tuning.name=later", "tuning.warm_start.study=tiny"]


def told(plan: TunePlan) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(f"{plan.paths.folder}/{JOURNAL}")
    study = optuna.load_study(study_name=plan.name, storage=optuna.storages.JournalStorage(backend))
    return study.trials


def earlier_study(storage: Path, space: str, count: int, *overrides: str) -> list[dict[str, Any]]:
    plan = plan_study(storage, space, *overrides)
    new_store(plan)
    return drive(reopened(plan), plan, range(count), lambda point: bowl({LR: 0.01, DECAY: 0.0, **point}))


def test_a_search_begins_with_an_earlier_study(tmp_path: Path) -> None:
    """Once: after a kill, and when the earlier study is gone, it still knows it."""
    points = earlier_study(tmp_path, TWO, 12)
    plan = plan_study(tmp_path, TWO, *EARLIER, "tuning.search={kind: tpe, startup: 10}")
    new_store(plan)
    search = reopened(plan)
    assert search.notes == ("the search begins with 12 finished trials of study tiny",)
    assert [trial.params for trial in told(plan)] == points
    assert [trial.value for trial in told(plan)] == [bowl(point) for point in points]
    cold = plan_study(tmp_path, TWO, "tuning.name=cold", "tuning.search={kind: tpe, startup: 10}")
    new_store(cold)
    assert search.ask(0) != reopened(cold).ask(0)
    shutil.rmtree(tmp_path / "studies" / "tiny")
    assert reopened(plan).notes == ()
    assert len(told(plan)) == 13


@pytest.mark.parametrize("kind", ["cmaes", pytest.param("gp", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [4, 12])
def test_every_model_uses_what_it_begins_with(tmp_path: Path, kind: str, count: int) -> None:
    """CMA-ES at the best trial, or at the distribution of the best of ten and more."""
    points = earlier_study(tmp_path, TWO, count)
    plan = plan_study(tmp_path, TWO, *EARLIER, f"tuning.search={{kind: {kind}, startup: 2}}")
    new_store(plan)
    found = drive(reopened(plan), plan, range(6), bowl)
    assert sum(map(bowl, found)) / 6 < sum(map(bowl, points)) / count


def test_the_earlier_study_may_have_another_space(tmp_path: Path) -> None:
    """A path that it did not search has its config's value; what is outside of a domain is left out."""
    space = f"{{{LR}: {{choice: [1e-3, 1e-2, 0.5]}}}}"
    points = earlier_study(tmp_path, space, 12, "training.optimizer.weight_decay=0.25")
    plan = plan_study(tmp_path, TWO, *EARLIER, "tuning.search.kind=tpe")
    new_store(plan)
    search = reopened(plan)
    inside = [point[LR] for point in points if point[LR] < 0.5]
    assert 0 < len(inside) < 12
    assert [trial.params for trial in told(plan)] == [{LR: lr, DECAY: 0.25} for lr in inside]
    (note,) = search.notes
    assert note == (
        f"the search begins with {len(inside)} finished trials of study tiny; {12 - len(inside)} others are "
        f"outside of the space, or have no {METRIC}"
    )


def test_a_group_is_known_by_its_sections(tmp_path: Path) -> None:
    """Whether the earlier study searched it or only had it."""
    earlier_study(
        tmp_path, f"{{{EPOCHS}: {{randint: [1, 5]}}}}", 2, "strategy=zero1", "tuning.search.kind=random"
    )
    space = f"{{{EPOCHS}: {{randint: [1, 5]}}, strategy: {{group: [ddp, zero1, zero2]}}}}"
    plan = plan_study(tmp_path, space, *EARLIER, "tuning.search.kind=tpe")
    new_store(plan)
    reopened(plan)
    assert [trial.params["strategy"] for trial in told(plan)] == ["zero1", "zero1"]
    third = plan_study(
        tmp_path, space, "tuning.name=third", "tuning.warm_start.study=later", "tuning.search.kind=tpe"
    )
    search = reopened(plan)
    statuses: list[Status] = ["finished", "pruned", "failed"]
    for number, status in enumerate(statuses):
        end(search, plan, ask(search, plan, number), [1.0], status)
    new_store(third)
    reopened(third)
    assert [trial.params for trial in told(third)] == [told(plan)[2].params]


def test_a_study_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    plan = plan_study(tmp_path, TWO, *EARLIER, "tuning.search.kind=tpe")
    new_store(plan)
    with pytest.raises(PlanError) as caught:
        reopened(plan)
    assert str(caught.value) == (
        "tuning.warm_start.study: there is no such study (got tiny); `raystack tune ls` lists them"
    )
    itself = plan_study(tmp_path, TWO, "tuning.warm_start.study=tiny", "tuning.search.kind=tpe")
    new_store(itself)
    with pytest.raises(PlanError, match="a study cannot begin with itself"):
        reopened(itself)


@pytest.fixture
def mlflow_runs(tmp_path: Path, empty_store: Path) -> Callable[..., str]:
    """Records runs of the tiny config with overrides in a new store, and returns its URI."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def record(*runs: tuple[dict[str, float], str, list[str]]) -> str:
        from raystack.registry.connection import connect

        client = connect(uri, None)
        experiment = client.create_experiment("before")
        for metrics, status, overrides in runs:
            run = client.create_run(experiment).info.run_id
            for key, text in flatten(load(TINY, overrides).model_dump(mode="json")):
                client.log_param(run, key, text)
            for key, value in metrics.items():
                client.log_metric(run, key, value)
            client.set_terminated(run, status)
        return uri

    return record


MLFLOW = ["tuning.warm_start.mlflow=before", "tuning.search.kind=tpe"]


@pytest.mark.slow
def test_a_search_begins_with_runs_of_mlflow(tmp_path: Path, mlflow_runs: Callable[..., str]) -> None:
    """The finished ones whose params are in the space and that have the metric."""
    uri = mlflow_runs(
        ({METRIC: 0.5}, "FINISHED", [f"{LR}=0.02", f"{EPOCHS}=3", "strategy=zero1"]),
        ({METRIC: 0.25}, "FINISHED", [f"{LR}=0.03", "training.optimizer.betas=[0.9, 0.95]"]),
        ({METRIC: 0.5}, "FAILED", [f"{LR}=0.04"]),
        ({METRIC: 0.5}, "FINISHED", [f"{LR}=0.5"]),
        ({"train/loss": 0.5}, "FINISHED", [f"{LR}=0.05"]),
    )
    space = (
        f"{{{LR}: {{loguniform: [1e-4, 1e-1]}}, {EPOCHS}: {{randint: [1, 9]}}, "
        "strategy: {group: [ddp, zero1]}, training.optimizer.betas: {choice: [[0.9, 0.999], [0.9, 0.95]]}}"
    )
    plan = plan_study(tmp_path, space, *MLFLOW, f"tracking={{kind: mlflow, uri: '{uri}'}}")
    new_store(plan)
    search = reopened(plan)
    assert [(trial.params, trial.value) for trial in told(plan)] == [
        ({LR: 0.02, EPOCHS: 3, "strategy": "zero1", "training.optimizer.betas": "[0.9, 0.999]"}, 0.5),
        ({LR: 0.03, EPOCHS: 2, "strategy": "ddp", "training.optimizer.betas": "[0.9, 0.95]"}, 0.25),
    ]
    (note,) = search.notes
    assert note == (
        "the search begins with 2 finished trials of MLflow experiment before; 2 others are outside of the "
        f"space, or have no {METRIC}"
    )


@pytest.mark.parametrize(
    ("name", "tracking", "error", "message"),
    [
        (
            "befor",
            "{uri}",
            PlanError,
            r"tuning.warm_start.mlflow: .*no such experiment .*did you mean before\?",
        ),
        ("before", "sqlite:///{folder}/none.db", PlanError, "there is no MLflow store at"),
        (
            "before",
            "http://127.0.0.1:1",
            LaunchError,
            "tracking.uri: MLflow does not give out the runs of before",
        ),
    ],
)
def test_mlflow_without_the_runs_is_one_line(
    tmp_path: Path,
    mlflow_runs: Callable[..., str],
    name: str,
    tracking: str,
    error: type[Exception],
    message: str,
) -> None:
    uri = tracking.format(uri=mlflow_runs(), folder=tmp_path)
    options = [
        f"tuning.warm_start.mlflow={name}",
        "tuning.search.kind=tpe",
        f"tracking={{kind: mlflow, uri: '{uri}'}}",
    ]
    plan = plan_study(tmp_path, TWO, *options)
    new_store(plan)
    with pytest.raises(error) as caught:
        reopened(plan)
    assert re.search(message, str(caught.value)), caught.value
    assert not Path(tmp_path, "none.db").exists()


def test_mlflow_needs_tracking(tmp_path: Path) -> None:
    plan = plan_study(tmp_path, TWO, *MLFLOW)
    new_store(plan)
    with pytest.raises(
        PlanError, match=r"tuning\.warm_start\.mlflow: its runs are in MLflow, and tracking is off"
    ):
        reopened(plan)
