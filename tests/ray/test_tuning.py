"""Studies on a real Ray: what their trials get, how they end, and what is left of them."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import TINY
from processes import Command

from raystack import Experiment, RaystackError, Study
from raystack.errors import ConfigError, PlanError, TrainingError
from raystack.events import Event, TrialEnded, TrialExploited
from raystack.tuning.record import StudyStore, Trial

pytestmark = [pytest.mark.ray, pytest.mark.slow]
LR = "training.optimizer.lr"
SPACE = f"{{{LR}: {{loguniform: [1.0e-4, 1.0]}}}}"
REPORTS = ("training.evaluate.every_steps=1",)
"""Six reports: two epochs of 96 samples in batches of 32."""


def overrides(storage: Path, *more: str, space: str = SPACE) -> list[str]:
    return [
        f"experiment.storage={storage}",
        "tuning.metric=eval/error",
        "tuning.mode=min",
        f"tuning.space={space}",
        *more,
    ]


def tune(
    storage: Path,
    *more: str,
    space: str = SPACE,
    resume: bool = False,
    listen: Callable[[Event], None] = lambda event: None,
) -> Study:
    """A study of the tiny task in this process, on the one Ray of the test run."""
    return Experiment(TINY, *overrides(storage, *more, space=space)).tune(listen, resume=resume)


def trials(storage: Path) -> list[Trial]:
    return StudyStore(f"{storage}/studies/tiny").trials()


def best(study: Study) -> int:
    """Number of its best trial."""
    assert study.best is not None
    return study.best.number


def points(storage: Path) -> list[dict[str, Any]]:
    return [trial.point for trial in trials(storage)]


@pytest.mark.timeout(600)
def test_a_study_whose_driver_was_killed_goes_on_as_if_it_had_not_been(
    ray_cluster: str, tmp_path: Path
) -> None:
    # Suggestions of a model, so that they depend on what it was told before.
    search = ("tuning.trials=12", "tuning.parallel=1", "tuning.search={kind: tpe, startup: 3}")
    tune(tmp_path / "whole", *search)
    whole = points(tmp_path / "whole")
    assert len({point[LR] for point in whole}) == 12
    for number in (1, 5, 11):
        storage = tmp_path / str(number)
        words = [sys.executable, "-m", "raystack.tune", str(TINY), f"target.address={ray_cluster}"]
        driver = Command([*words, *overrides(storage, *search)])
        folder = storage / "studies" / "tiny" / "trials"
        deadline = time.monotonic() + 120
        while not (folder / f"tiny-{number:04d}.json").exists():
            assert driver.process.poll() is None, driver.output
            assert time.monotonic() < deadline, driver.output
            time.sleep(0.005)
        driver.kill()
        before = {trial.number: trial for trial in trials(storage) if trial.over}
        tune(storage, *search, resume=True)
        after = trials(storage)
        assert [trial.status for trial in after] == ["finished"] * 12
        assert {number: after[number] for number in before} == before
        assert points(storage) == whole, number


@pytest.mark.timeout(600)
def test_a_seeded_study_is_the_same_twice(ray_cluster: str, tmp_path: Path) -> None:
    asha = ("tuning.trials=6", "tuning.parallel=1", "tuning=asha", "tuning.search.startup=3", *REPORTS)
    studies = [tune(tmp_path / name, *asha) for name in ("one", "two")]
    told = [
        [
            (trial.point, trial.status, [each.metrics["eval/error"] for each in trial.reports])
            for trial in each
        ]
        for each in (trials(tmp_path / "one"), trials(tmp_path / "two"))
    ]
    assert told[0] == told[1]
    assert best(studies[0]) == best(studies[1])
    # With trials in parallel random points stay the same: each depends on the seed and its number alone.
    parallel = [tune(tmp_path / name, "tuning.trials=6") for name in ("three", "four")]
    assert points(tmp_path / "three") == points(tmp_path / "four")
    assert best(parallel[0]) == best(parallel[1])


def test_a_pruned_trial_stops_at_its_report_and_leaves_no_checkpoint(
    ray_cluster: str, tmp_path: Path
) -> None:
    study = tune(
        tmp_path,
        "tuning.trials=6",
        "tuning.parallel=1",
        "tuning.search={kind: grid}",
        "tuning.scheduler={kind: asha, reduction: 2}",
        "training.checkpoint.every_steps=1",
        *REPORTS,
        space=f"{{{LR}: {{choice: [0.05, 1.0e-6, 1.0e-7, 1.0e-8, 1.0e-9, 1.0e-10]}}}}",
    )
    first, *others = trials(tmp_path)
    assert (first.status, first.steps) == ("finished", 6)
    assert {trial.status for trial in others} == {"pruned"}
    assert max(trial.steps for trial in others) <= 2  # the rungs are at 1, 2 and 4 reports
    left = sorted(path.parts[-3] for path in tmp_path.glob("studies/tiny/runs/*/checkpoints/step-*"))
    assert set(left) == {"tiny-0000"}
    assert best(study) == 0
    # Its config trains as it is.
    Experiment(study.best_config, f"experiment.storage={tmp_path}").train(lambda event: None)


def test_a_trial_that_ends_early_is_finished(ray_cluster: str, tmp_path: Path) -> None:
    early = "training.early_stopping={metric: eval/error, mode: min, patience: 1, min_change: 1.0e-3}"
    grid = ("tuning.search={kind: grid}", "tuning.parallel=1", *REPORTS)
    space = f"{{{LR}: {{choice: [0.05, 1.0e-9]}}}}"
    tune(tmp_path / "early", early, *grid, space=space)
    whole, stopped = trials(tmp_path / "early")
    assert (whole.status, whole.steps, stopped.status, stopped.steps) == ("finished", 6, "finished", 2)
    assert [report.step for report in stopped.reports] == [1, 2]
    # Without an evaluation before its last step.
    tune(tmp_path / "time", "training.max_time_s=1.0e-6", *grid[:2], space=space)
    assert [(trial.status, trial.steps) for trial in trials(tmp_path / "time")] == [("finished", 1)] * 2


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", ["inline", pytest.param("2", marks=pytest.mark.long)])
def test_a_population_copies_checkpoints_and_changes_the_learning_rate(
    workers: str, ray_cluster: str, tmp_path: Path
) -> None:
    # The second is so bad that it always takes over from the first, unless that has ended before it starts.
    seen: list[TrialExploited] = []
    tune(
        tmp_path,
        "tuning=pbt",
        "tuning.trials=2",
        "tuning.scheduler.quantile=0.5",
        "training.epochs=8",
        "training.schedule={kind: constant, warmup_steps: 0}",
        f"task.args.step_s={0.6 if workers == 'inline' else 1.0}",
        f"resources.workers={workers}",
        f"tuning.points=[{{{LR}: 0.05}}, {{{LR}: 1.0e-4}}]",
        "training.evaluate.every_steps=8",
        listen=lambda event: seen.append(event) if isinstance(event, TrialExploited) else None,
    )
    exploits = [(trial.number, each) for trial in trials(tmp_path) for each in trial.exploits]
    assert exploits
    for number, exploit in exploits:
        assert exploit.donor != number
        assert exploit.step % 8 == 0
        assert exploit.point[LR] != 1e-4
    assert len(seen) == len(exploits)
    assert [trial.status for trial in trials(tmp_path)] == ["finished"] * 2
    # It went on from the donor's step, with another learning rate than it began with.
    number, last = exploits[-1]
    later = [each for each in trials(tmp_path)[number].reports if each.step > last.step]
    assert later
    assert {each.metrics["train/lr"] for each in later} == {last.point[LR]}


def test_a_trial_gets_the_workers_that_were_sampled(ray_cluster: str, tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    pages: dict[int, int] = {}

    def count(event: Event) -> None:
        if isinstance(event, TrialEnded):
            pages[event.number] = len(list((tmp_path / "ledger").glob("*.txt"))) - sum(pages.values())

    tune(
        tmp_path,
        "tuning=grid",
        "tuning.parallel=1",
        f"task.args.ledger={tmp_path}/ledger",
        space="{resources.workers: {grid: [1, 2, 64, inline]}}",
        listen=count,
    )
    one, two, many, inline = trials(tmp_path)
    assert (one.workers, two.workers, inline.workers) == (1, 2, 1)
    assert (pages[0], pages[1], pages[3]) == (1, 2, 1)
    assert many.status == "infeasible"
    assert many.reason is not None
    assert re.search(r"64|divi", many.reason)


def test_infeasible_points_are_recorded_with_their_reason_and_do_not_count(
    ray_cluster: str, tmp_path: Path
) -> None:
    ended: list[TrialEnded] = []
    tune(
        tmp_path,
        "tuning.trials=4",
        "training.optimizer.kind=sgd",
        space=(
            "{training.optimizer.nesterov: {choice: [true, false]},"
            " training.optimizer.momentum: {choice: [0.0, 0.5]}}"
        ),
        listen=lambda event: ended.append(event) if isinstance(event, TrialEnded) else None,
    )
    found = trials(tmp_path)
    infeasible = [trial for trial in found if trial.status == "infeasible"]
    assert infeasible
    assert sum(trial.status == "finished" for trial in found) == 4
    for trial in infeasible:
        assert trial.point == {"training.optimizer.nesterov": True, "training.optimizer.momentum": 0.0}
        assert "nesterov needs momentum above 0" in str(trial.reason)
    assert len(ended) == len(found)


def test_a_limit_stops_what_runs_with_a_checkpoint(ray_cluster: str, tmp_path: Path) -> None:
    study = tune(
        tmp_path,
        "tuning.trials=50",
        "tuning.parallel=1",
        "training.epochs=1000",
        "task.args.step_s=0.05",
        "tuning.limits.worker_hours=0.001",
        *REPORTS,
    )
    (trial,) = trials(tmp_path)
    assert trial.status == "stopped"
    assert 3.6 <= trial.seconds < 30
    assert list(tmp_path.glob("studies/tiny/runs/tiny-0000/checkpoints/step-*/manifest.json"))
    assert "worker_hours" in str(study.outcome)


def test_a_trial_that_is_larger_than_the_cluster_is_refused_before_the_first(
    ray_cluster: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=r"resources: a trial needs 64 CPU, and the cluster has 4"):
        tune(tmp_path, "resources.workers=2", "resources.cpus_per_worker=32")
    assert trials(tmp_path) == []


def test_a_metric_that_no_trial_reports_is_refused_at_the_first_evaluation(
    ray_cluster: str, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"tuning\.metric: no trial reports this metric .*eval/eror.*eval/error"
    ):
        tune(tmp_path, "tuning.metric=eval/eror", "training.epochs=1000", *REPORTS)
    reports = [len(trial.reports) for trial in trials(tmp_path)]
    assert 1 in reports
    assert max(reports) == 1


def test_trials_that_fail_are_recorded_and_too_many_end_the_study(ray_cluster: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"3 trials failed, the last one: .*a bad sample"):
        tune(
            tmp_path,
            "tuning=grid",
            "tuning.parallel=1",
            "tuning.limits.failures=2",
            space="{task.args.raise_at: {grid: [null, 2, 3, 1, null]}}",
        )
    statuses = [trial.status for trial in trials(tmp_path)]
    assert statuses[:4] == ["finished", "failed", "failed", "failed"]
    assert "a bad sample" in (tmp_path / "studies/tiny/runs/tiny-0001/error.txt").read_text()


def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(
    ray_cluster: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    ledger.mkdir()

    def kill(event: Event) -> None:
        pages = list(ledger.glob("*.txt"))
        if type(event).__name__ == "TrialReported" and getattr(event, "step", 0) == 3 and len(pages) == 1:
            os.kill(int(pages[0].stem.partition("-")[2]), signal.SIGKILL)

    tune(
        tmp_path,
        "tuning.trials=1",
        f"task.args.ledger={ledger}",
        "task.args.step_s=0.2",
        "training.checkpoint.every_steps=1",
        *REPORTS,
        listen=kill,
    )
    (trial,) = trials(tmp_path)
    assert trial.status == "finished"
    assert [report.step for report in trial.reports] == [1, 2, 3, 4, 5, 6]
    first, second = sorted(ledger.glob("*.txt"))
    assert len(second.read_text().splitlines()) < 6
    assert first != second


def test_a_study_told_to_stop_pauses_and_goes_on(ray_cluster: str, tmp_path: Path) -> None:
    more = ("tuning.trials=3", "tuning.parallel=1", "task.args.step_s=0.3", *REPORTS)
    words = [sys.executable, "-m", "raystack.tune", str(TINY), f"target.address={ray_cluster}"]
    driver = Command([*words, *overrides(tmp_path, *more)])
    record = tmp_path / "studies/tiny/trials/tiny-0001.json"
    deadline = time.monotonic() + 120
    while not (record.exists() and json.loads(record.read_text())["reports"]):
        assert driver.process.poll() is None, driver.output
        assert time.monotonic() < deadline, driver.output
        time.sleep(0.05)
    os.kill(driver.process.pid, signal.SIGTERM)
    assert driver.wait(60) == 75, driver.output
    assert "Traceback" not in driver.output
    first, second = trials(tmp_path)
    assert (first.status, second.status) == ("finished", "running")
    assert list(tmp_path.glob("studies/tiny/runs/tiny-0001/checkpoints/step-*/manifest.json"))
    with pytest.raises(RaystackError, match="there is a study of that name"):
        tune(tmp_path, *more)
    with pytest.raises(ConfigError, match="there is a study of that name with another space"):
        tune(tmp_path, *more, space="{training.clip_norm: {uniform: [0.1, 1]}}", resume=True)
    tune(tmp_path, *more, resume=True)
    assert [trial.status for trial in trials(tmp_path)] == ["finished"] * 3
    assert trials(tmp_path)[0] == first
    assert [report.step for report in trials(tmp_path)[1].reports] == [1, 2, 3, 4, 5, 6]
