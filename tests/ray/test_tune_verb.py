"""`raystack tune` as it is typed: what it leaves, what it refuses, and how it is stopped and goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from processes import ROOT, Command

from raystack import Study
from raystack.config import dump, load

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TINY = "tests/tiny/config.yaml"
SEARCH = ("tuning.metric=eval/error", "tuning.mode=min", "training.optimizer.lr=interval(1e-3,1e-1)")


def environment(storage: Path) -> dict[str, str]:
    return {**os.environ, "RAYSTACK_STORAGE": str(storage)}


def raystack(storage: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "raystack", *words],
        cwd=ROOT,
        env=environment(storage),
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_study_ends_with_the_best_config_which_trains_to_the_same_value(tmp_path: Path) -> None:
    done = raystack(tmp_path, "tune", TINY, *SEARCH, "tuning.trials=3")
    assert done.returncode == 0, done.stderr
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in done.stdout.splitlines())
    assert shown["trials"] == "3 finished"
    assert shown["best"].startswith("trial ")
    assert "(was 0.01)" in shown["training.optimizer.lr"]
    assert Path(shown["page"]).is_file()
    assert Path(shown["best config"]).is_file()

    best = raystack(tmp_path, "tune", "best", "tiny")
    file = tmp_path / "best.yaml"
    file.write_text(best.stdout)
    assert "tuning" not in yaml.safe_load(best.stdout)
    trained = raystack(tmp_path, "train", str(file), "--json")
    assert trained.returncode == 0, trained.stderr
    found = Study.open(str(tmp_path / "studies" / "tiny"))
    assert found.best is not None
    value = json.loads(trained.stdout)["metrics"]["eval/error"]
    assert value == pytest.approx(found.value_of(found.best), rel=1e-5)
    assert dump(load(file)) == dump(found.best_config)

    again = raystack(tmp_path, "tune", TINY, *SEARCH)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("error: tuning.name: there is a study of that name (got tiny)")
    assert "--resume" in again.stderr


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)],
)
def test_a_signal_leaves_a_record_from_which_the_study_goes_on(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "raystack.tune", TINY, *SEARCH, "tuning.trials=4", "tuning.parallel=1"]
    # A test run may have SIGINT ignored, and its commands would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = Command([*words, "task.args.step_s=0.3"], environment(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    run.until("^trial 1: ")
    run.process.send_signal(number)
    assert run.wait() == status, run.output
    assert "Traceback" not in run.output
    folder = str(tmp_path / "studies" / "tiny")
    left = Study.open(folder)
    assert left.status == ("paused" if status == 75 else "interrupted")
    assert left.records[0].status == "finished"
    assert any(line.startswith("paused: " if status == 75 else "interrupted") for line in run.lines)

    resumed = Command([*words, "--resume"], environment(tmp_path))
    assert resumed.wait() == 0, resumed.output
    whole = Study.open(folder)
    assert [trial.status for trial in whole.records] == ["finished"] * 4
    assert whole.records[0] == left.records[0]
