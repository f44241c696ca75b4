"""What a study promises as a job of a Ray cluster, on real ones: it outlives its driver, and its cluster."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from driver import TINY
from processes import Command, kill_session
from started import Started, started, until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.minutes]

TRIALS = 6
TUNING = (
    f"tuning={{metric: eval/error, mode: min, trials: {TRIALS}, parallel: 2,"
    " space: {training.optimizer.lr: {loguniform: [0.001, 0.1]}}}"
)


def tune(cluster: Started, storage: Path, *words: str) -> Command:
    """The tiny task's study, submitted as a job and waited for; a trial takes three seconds."""
    target = ("target=job", f"target.address={cluster.dashboard}", f"experiment.storage={storage}")
    command = [sys.executable, "-m", "raystack", "tune", str(TINY), *target, TUNING, "--wait", *words]
    return Command([*command, "task.args.step_s=0.5"], cluster.environment)


def trials(storage: Path) -> dict[str, dict[str, Any]]:
    """The study's record, by trial; a file that is just being written is left out."""
    found = {}
    for file in storage.glob("studies/tiny/trials/*.json"):
        try:
            found[file.stem] = json.loads(file.read_text())
        except ValueError:
            continue
    return found


def finished(storage: Path) -> dict[str, dict[str, Any]]:
    return {name: trial for name, trial in trials(storage).items() if trial["status"] == "finished"}


def holder(storage: Path) -> dict[str, Any]:
    """The driver that drove the study last."""
    held: dict[str, Any] = json.loads(max(storage.glob("studies/tiny/drivers/*.json")).read_text())
    return held


def check_finished_once(storage: Path, before: dict[str, dict[str, Any]]) -> None:
    """All trials are over, and those that were over before were not touched again."""
    after = finished(storage)
    assert len(trials(storage)) == len(after) == TRIALS
    assert sorted(trial["number"] for trial in after.values()) == list(range(TRIALS))
    assert {name: after[name] for name in before} == before
    outcome = json.loads((storage / "studies/tiny/outcome.json").read_text())
    assert (outcome["status"], outcome["run_id"]) == ("succeeded", "tiny")
    assert (storage / "studies/tiny/best.yaml").is_file()


def test_a_study_whose_driver_is_lost_goes_on_in_the_next_attempt_of_its_job(tmp_path: Path) -> None:
    with started() as cluster:
        waiting = tune(cluster, tmp_path, "target.retries=1")
        until(lambda: len(finished(tmp_path)) >= 2, 240)
        before, lost = finished(tmp_path), holder(tmp_path)
        os.kill(int(lost["pid"]), signal.SIGKILL)
        assert waiting.wait(240) == 0, waiting.output
        assert "is retrying: its driver was lost" in waiting.output
        assert (lost["attempt"], holder(tmp_path)["attempt"]) == (1, 2)
        check_finished_once(tmp_path, before)


def test_a_study_whose_cluster_is_lost_goes_on_on_another_from_its_storage(tmp_path: Path) -> None:
    with started() as cluster:
        tune(cluster, tmp_path)
        until(lambda: len(finished(tmp_path)) >= 2, 240)
        kill_session(cluster.head.pid)
        before = finished(tmp_path)
    with started() as cluster:
        again = tune(cluster, tmp_path)
        assert again.wait(240) != 0, "a new submission does not go on by itself"
        assert "there is a study of that name" in again.output
        resumed = tune(cluster, tmp_path, "--resume")
        assert resumed.wait(240) == 0, resumed.output
        check_finished_once(tmp_path, before)
