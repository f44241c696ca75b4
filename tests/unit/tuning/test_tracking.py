"""The record of a study in MLflow: real stores, one of them for several processes at once."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.config import load
from raystack.plan import TunePlan, plan_tuning
from raystack.plan.tuning import trial_config
from raystack.task import Signature, TensorSpec
from raystack.tuning.record import Exploit, Report, Status, StudyStore, Trial
from raystack.tuning.tracking import NoStudyTracker, StudyTracker, open_study_tracker

pytestmark = pytest.mark.slow
CONFIG = """
experiment: {{name: digits, storage: {storage}, tags: {{team: blue}}}}
task: {{entry: "tiny:Tiny", args: {{width: 4}}}}
training: {{epochs: 1, batch: {{global: 4}}, evaluate: {{every_steps: 5}}}}
tracking: {{flush_s: 0.05, system_metrics: false}}
tuning:
  name: lr
  metric: eval/accuracy
  trials: 4
  space:
    training.optimizer.lr: {{loguniform: [0.0001, 0.1]}}
    task.args.width: {{choice: [4, 8]}}
"""

MakePlan = Callable[..., TunePlan]


@pytest.fixture
def place(tmp_path: Path, empty_store: Path) -> Path:
    """A storage with an MLflow store."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def make_plan(place: Path) -> MakePlan:
    """(run id, overrides) -> a plan whose storage is the test's."""
    file = place / "config.yaml"
    file.write_text(CONFIG.format(storage=place))
    return lambda run_id="digits-1", *overrides: plan_tuning(load(file, overrides), run_id)


def trial_of(number: int, lr: float = 0.01, **values: Any) -> Trial:
    point = {"training.optimizer.lr": lr, "task.args.width": 8}
    return Trial(
        number=number, id=f"lr-{number:04d}", point=point, started=1000.0 + number, seconds=0.5, **values
    )


def reported(trial: Trial, *accuracies: float) -> Trial:
    """The trial with these reports, one every 5 steps."""
    for accuracy in accuracies:
        number = len(trial.reports) + 1
        metrics = {"eval/accuracy": accuracy}
        trial.reports.append(
            Report(number=number, step=5 * number, seconds=0.1 * number, metrics=metrics, order=number)
        )
    return trial


def play(
    tracker: StudyTracker, plan: TunePlan, trial: Trial, *accuracies: float, status: Status = "finished"
) -> None:
    """A trial from its start to its end."""
    tracker.trial_started(trial, trial_config(plan, trial.point))
    for accuracy in accuracies:
        reported(trial, accuracy)
        tracker.trial_report(trial, trial.reports[-1])
    trial.status = status
    tracker.trial_ended(trial)


def recorded(uri: str | Path) -> tuple[Run, dict[str, Run]]:
    """The only study of a store, and its nested runs by name."""
    client = MlflowClient(str(uri) if "://" in str(uri) else f"sqlite:///{uri}/mlflow.db")
    runs = client.search_runs(["1"])
    (study,) = [run for run in runs if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    nested = {
        str(run.info.run_name): run
        for run in runs
        if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == study.info.run_id
    }
    assert len(nested) == len(runs) - 1
    return study, nested


def nested_names(place: Path) -> list[str]:
    return [str(run.info.run_name) for run in MlflowClient(f"sqlite:///{place}/mlflow.db").search_runs(["1"])]


def reached(place: Path, name: str, step: int) -> bool:
    """Whether the trial's run has a report of the step."""
    return name in nested_names(place) and step in dict(
        history(place, recorded(place)[1][name], "eval/accuracy")
    )


def history(place: Path, run: Run, key: str) -> list[tuple[int, float]]:
    points = MlflowClient(f"sqlite:///{place}/mlflow.db").get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


def test_a_study_is_a_run_with_a_nested_run_for_each_trial(make_plan: MakePlan, place: Path) -> None:
    plan, said = make_plan(), list[str]()
    tracker = open_study_tracker(plan, said.append)
    tracker.start()
    good = trial_of(1)
    play(tracker, plan, trial_of(0), 0.5, status="pruned")
    tracker.trial_started(good, trial_config(plan, good.point))
    for accuracy in (0.5, 0.75):
        tracker.trial_report(reported(good, accuracy), good.reports[-1])
    good.status = "finished"
    tracker.trial_ended(good)
    play(tracker, plan, trial_of(2, reason="ValueError: no"), status="failed")
    tracker.trial_ended(trial_of(3, status="infeasible", reason="the width is too much"))
    tracker.finish("FINISHED", good, {"best.yaml": "a: 1\n", "report.html": "<html></html>"})

    study, nested = recorded(place)
    assert (study.info.run_name, study.info.status) == ("lr", "FINISHED")
    assert study.data.params["tuning.metric"] == "eval/accuracy"
    assert study.data.params["tuning.space.training.optimizer.lr"] == "loguniform [0.0001, 0.1]"
    assert study.data.params["tuning.search.kind"] == "random"
    assert study.data.tags["raystack.best"] == "lr-0001"
    assert history(place, study, "best/eval/accuracy") == [(0, 0.5), (1, 0.75), (2, 0.75), (3, 0.75)]
    counts = {key: value for key, value in study.data.metrics.items() if key.startswith("trials/")}
    assert counts == {
        "trials/finished": 1,
        "trials/pruned": 1,
        "trials/stopped": 0,
        "trials/infeasible": 1,
        "trials/failed": 1,
    }
    artifacts = place / "mlflow" / study.info.run_id / "artifacts"
    assert {path.name for path in artifacts.iterdir()} == {
        "config.yaml",
        "space.yaml",
        "best.yaml",
        "report.html",
    }
    space = yaml.safe_load((artifacts / "space.yaml").read_text())["tuning"]["space"]
    assert space["task.args.width"] == {"choice": [4, 8]}
    assert load(artifacts / "config.yaml").tuning == plan.tuning

    ends = {name: (run.info.status, run.data.tags["raystack.status"]) for name, run in nested.items()}
    assert ends == {
        "lr-0000": ("KILLED", "pruned"),
        "lr-0001": ("FINISHED", "finished"),
        "lr-0002": ("FAILED", "failed"),
        "lr-0003": ("KILLED", "infeasible"),
    }
    run = nested["lr-0001"]
    assert run.data.tags.items() >= {
        ("raystack.run_id", "lr-0001"),
        ("raystack.study", "lr"),
        ("raystack.trial", "1"),
        ("team", "blue"),
    }
    assert run.data.params["training.optimizer.lr"] == "0.01"
    assert run.data.params["task.args.width"] == "8"
    assert run.data.params["training.batch.global"] == "4"
    assert history(place, run, "eval/accuracy") == [(5, 0.5), (10, 0.75)]
    assert nested["lr-0002"].data.tags["raystack.reason"] == "ValueError: no"
    assert nested["lr-0003"].data.tags["raystack.reason"] == "the width is too much"
    assert nested["lr-0003"].data.params["training.optimizer.lr"] == "0.01"
    assert (tracker.notes, said) == ((), [])
    assert str(place / "mlflow.db") in tracker.links["mlflow"]


def test_a_study_whose_driver_was_killed_goes_on_in_the_same_runs(make_plan: MakePlan, place: Path) -> None:
    """The record on disk is ahead of MLflow, because the driver was killed before it had sent everything."""
    plan = make_plan()
    StudyStore(plan.paths.folder).create(plan)
    killed = open_study_tracker(plan, print)
    killed.start()
    over, goes_on = trial_of(0), trial_of(1)
    play(killed, plan, over, 0.25, 0.5)
    killed.trial_started(goes_on, trial_config(plan, goes_on.point))
    for accuracy in (0.5, 0.625):
        killed.trial_report(reported(goes_on, accuracy), goes_on.reports[-1])
    until(lambda: reached(place, "lr-0001", 10))
    unsent = reported(trial_of(2, status="pruned"), 0.75)
    half_sent = trial_of(3)
    killed.trial_started(half_sent, trial_config(plan, half_sent.point))
    until(lambda: "lr-0003" in nested_names(place))
    half_sent.status = "finished"
    reported(half_sent, 0.25)

    plan = make_plan("digits-2", "tuning.trials=6")
    tracker = open_study_tracker(plan, print)
    tracker.start([over, goes_on, unsent, half_sent])
    # It goes on from the checkpoint after its first report, so that the second one is made again.
    tracker.trial_started(goes_on, trial_config(plan, goes_on.point))
    del goes_on.reports[1]
    for accuracy in (0.625, 0.875):
        tracker.trial_report(reported(goes_on, accuracy), goes_on.reports[-1])
    goes_on.status = "finished"
    tracker.trial_ended(goes_on)
    tracker.finish("FINISHED", goes_on, {})

    study, nested = recorded(place)
    assert sorted(nested) == ["lr-0000", "lr-0001", "lr-0002", "lr-0003"]
    assert [nested[name].info.status for name in sorted(nested)] == [
        "FINISHED",
        "FINISHED",
        "KILLED",
        "FINISHED",
    ]
    accuracies = [history(place, nested[name], "eval/accuracy") for name in sorted(nested)]
    assert accuracies == [
        [(5, 0.25), (10, 0.5)],
        [(5, 0.5), (10, 0.625), (15, 0.875)],
        [(5, 0.75)],
        [(5, 0.25)],
    ]
    assert history(place, study, "best/eval/accuracy") == [(0, 0.5), (1, 0.875), (2, 0.75), (3, 0.75)]
    assert study.data.params["tuning.trials"] == "4"
    assert study.data.tags["now.tuning.trials"] == "6"
    assert tracker.notes == ()


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interrupted_trial_runs_again_when_it_goes_on(make_plan: MakePlan, place: Path) -> None:
    plan = make_plan()
    StudyStore(plan.paths.folder).create(plan)
    trial = trial_of(0)
    first = open_study_tracker(plan, print)
    first.trial_started(trial, trial_config(plan, trial.point))
    first.trial_report(reported(trial, 0.5), trial.reports[-1])
    first.finish("KILLED", None, {})
    study, nested = recorded(place)
    assert (study.info.status, nested["lr-0000"].info.status) == ("KILLED", "KILLED")
    assert nested["lr-0000"].data.tags["raystack.status"] == "interrupted"

    second = open_study_tracker(make_plan("digits-2"), print)
    second.start([trial])
    second.trial_started(trial, trial_config(plan, trial.point))
    until(lambda: recorded(place)[1]["lr-0000"].data.tags["raystack.status"] == "running")
    study, nested = recorded(place)
    assert (study.info.status, nested["lr-0000"].info.status) == ("RUNNING", "RUNNING")
    second.finish("KILLED", None, {})
    assert history(place, recorded(place)[1]["lr-0000"], "eval/accuracy") == [(5, 0.5)]


def test_another_study_of_the_same_name_has_runs_of_its_own(make_plan: MakePlan, place: Path) -> None:
    for start in ("digits-1", "digits-2"):
        plan = make_plan(start)
        StudyStore(plan.paths.folder).create(plan)
        tracker = open_study_tracker(plan, print)
        play(tracker, plan, trial_of(0), 0.5)
        tracker.finish("FINISHED", None, {})
        shutil.rmtree(plan.paths.folder)
    runs = MlflowClient(f"sqlite:///{place}/mlflow.db").search_runs(["1"])
    parents = [run.data.tags.get(MLFLOW_PARENT_RUN_ID) for run in runs if run.info.run_name == "lr-0000"]
    assert sorted(map(str, parents)) == sorted(run.info.run_id for run in runs if run.info.run_name == "lr")


def test_a_population_records_what_it_perturbs(make_plan: MakePlan, place: Path) -> None:
    plan = make_plan("digits-1", "tuning.scheduler={kind: pbt}")
    tracker = open_study_tracker(plan, print)
    trial = trial_of(0)
    tracker.trial_started(trial, trial_config(plan, trial.point))
    tracker.trial_report(reported(trial, 0.5), trial.reports[-1])
    trial.point = {**trial.point, "training.optimizer.lr": 0.02}
    trial.exploits.append(Exploit(report=1, donor=1, step=5, point=trial.point))
    tracker.trial_started(trial, trial_config(plan, trial.point))
    trial.status = "finished"
    tracker.trial_ended(trial)
    tracker.finish("FINISHED", None, {})
    run = recorded(place)[1]["lr-0000"]
    assert history(place, run, "point/training.optimizer.lr") == [(0, 0.01), (5, 0.02)]
    assert run.data.params["training.optimizer.lr"] == "0.01"
    assert run.data.tags["now.training.optimizer.lr"] == "0.02"
    assert tracker.notes == ()


def test_what_mlflow_refuses_of_every_trial_is_noted_once(make_plan: MakePlan, place: Path) -> None:
    plan = make_plan()
    tracker = open_study_tracker(plan, print)
    for number in range(3):
        trial = trial_of(number)
        tracker.trial_started(trial, trial_config(plan, trial.point))
        metrics = {"eval/top5%": 0.5, "eval/error": 1.0}
        report = Report(number=1, step=1, seconds=0.1, metrics=metrics, order=number)
        tracker.trial_report(trial, report)
        trial.status = "finished"
        tracker.trial_ended(trial)
    tracker.finish("FINISHED", None, {})
    assert [run.data.metrics for run in recorded(place)[1].values()] == [{"eval/error": 1.0}] * 3
    (note,) = tracker.notes
    assert note.startswith("MLflow refused the metric 'eval/top5%', which is not recorded")


def test_a_study_without_mlflow_is_sent_by_the_next_one(
    make_plan: MakePlan, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store cannot be used during the study, which ends all the same; nothing is lost or doubled."""
    monkeypatch.setattr("raystack.registry.sender.PATIENCE_S", 0.2)
    store = (place / "mlflow.db").read_bytes()
    (place / "mlflow.db").write_text("this is no database\n" * 10)
    plan = make_plan()
    StudyStore(plan.paths.folder).create(plan)
    away = open_study_tracker(plan, print)
    away.start()
    trials = [trial_of(number) for number in range(3)]
    for trial in trials:
        play(away, plan, trial, 0.25, 0.5)
    away.finish("FINISHED", trials[0], {"best.yaml": "a: 1\n"})
    assert "for the next run that reaches it" in away.notes[-1]

    (place / "mlflow.db").write_bytes(store)
    tracker = open_study_tracker(make_plan("digits-2"), print)
    tracker.start(trials)
    play(tracker, plan, trial_of(3), 0.75)
    tracker.finish("FINISHED", trials[0], {})
    study, nested = recorded(place)
    assert study.info.status == "FINISHED"
    assert {name: history(place, run, "eval/accuracy") for name, run in nested.items()} == {
        **{f"lr-000{number}": [(5, 0.25), (10, 0.5)] for number in range(3)},
        "lr-0003": [(5, 0.75)],
    }
    assert history(place, study, "best/eval/accuracy") == [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.75)]
    assert not list((place / "spool").iterdir())
    assert [note for note in tracker.notes if "refused" in note] == []


def test_the_source_of_a_version_is_the_run_of_its_trial(make_plan: MakePlan, place: Path) -> None:
    import torch

    plan = make_plan("digits-1", "registry={model: digits, alias: champion}")
    folder = place / "step-0000000005/model"
    folder.mkdir(parents=True)
    signature = Signature((TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1, 2)),))
    card = ModelSpec("tiny:Tiny", {"width": 4}, signature, "lr-0000", 5, {"eval/accuracy": 0.5})
    write_spec(folder, card, None)
    write_weights(folder, torch.nn.Linear(4, 2).state_dict())

    tracker = open_study_tracker(plan, print)
    tracker.start()
    play(tracker, plan, trial_of(0), 0.5)
    registered = tracker.register(folder, card)
    elsewhere = tracker.register(folder, replace(card, run_id="elsewhere", step=6))
    tracker.finish("FINISHED", None, {})
    assert registered is not None
    assert elsewhere is not None
    assert (registered.version, registered.alias) == ("models:/digits/1", "models:/digits@champion")
    study, nested = recorded(place)
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    assert client.get_model_version("digits", "1").run_id == nested["lr-0000"].info.run_id
    assert client.get_model_version("digits", "2").run_id == study.info.run_id
    assert nested["lr-0000"].info.status == "FINISHED"
    assert history(place, nested["lr-0000"], "eval/accuracy") == [(5, 0.5)]


def test_with_tracking_off_there_is_nothing_to_do(make_plan: MakePlan, place: Path) -> None:
    plan = make_plan("digits-1", "tracking.kind=off")
    tracker = open_study_tracker(plan, print)
    assert isinstance(tracker, NoStudyTracker)
    tracker.start()
    play(tracker, plan, trial_of(0), 0.5)
    tracker.finish("FINISHED", None, {"best.yaml": ""})
    assert (tracker.notes, dict(tracker.links)) == ((), {})


STUDIES = """
import multiprocessing
import sys

import mlflow.store.model_registry.sqlalchemy_store  # what takes seconds, once for all
import mlflow.store.tracking.sqlalchemy_store
import raystack.registry.store
from raystack.config import load
from raystack.plan import plan_tuning
from raystack.tuning.record import StudyStore
from raystack.tuning.tracking import open_study_tracker
from tests.unit.tuning.test_tracking import play, trial_of


def study(name, all_ready):
    plan = plan_tuning(load(sys.argv[1], [f"tuning.name={name}"]), name)
    StudyStore(plan.paths.folder).create(plan)
    said = []
    tracker = open_study_tracker(plan, said.append)
    all_ready.wait(60)
    tracker.start()
    for number in range(4):
        trial = trial_of(number)
        trial.id = f"{name}-{number}"
        play(tracker, plan, trial, 0.25, 0.5, 0.75)
    tracker.finish("FINISHED", None, {"best.yaml": "a: 1"})
    assert not said and not tracker.notes, (said, tracker.notes)


fork = multiprocessing.get_context("fork")
all_ready = fork.Barrier(len(sys.argv[2:]))
processes = [fork.Process(target=study, args=(name, all_ready), daemon=True) for name in sys.argv[2:]]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


@pytest.mark.usefixtures("empty_store")  # for MLflow's deprecated use of SQLAlchemy
def test_five_studies_make_one_store_together_and_lose_nothing(tmp_path: Path) -> None:
    """Five processes; the store is not there when they start."""
    (tmp_path / "config.yaml").write_text(CONFIG.format(storage=tmp_path))
    names = [f"study-{number}" for number in range(5)]
    done = subprocess.run(
        [sys.executable, "-c", STUDIES, str(tmp_path / "config.yaml"), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "[0, 0, 0, 0, 0]\n"

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "digits"]
    runs: Mapping[str, Run] = {
        str(run.info.run_name): run for run in client.search_runs([experiment.experiment_id])
    }
    assert sorted(runs) == sorted([*names, *(f"{name}-{number}" for name in names for number in range(4))])
    for name in names:
        assert runs[name].info.status == "FINISHED"
        assert len(client.get_metric_history(runs[name].info.run_id, "best/eval/accuracy")) == 4
        for number in range(4):
            run = runs[f"{name}-{number}"]
            assert run.data.tags[MLFLOW_PARENT_RUN_ID] == runs[name].info.run_id
            assert (run.info.status, run.data.params["task.args.width"]) == ("FINISHED", "8")
            points = client.get_metric_history(run.info.run_id, "eval/accuracy")
            assert sorted((point.step, point.value) for point in points) == [(5, 0.25), (10, 0.5), (15, 0.75)]
