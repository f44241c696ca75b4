"""What a run promises on Ray Train workers: the same losses, the same samples, errors that are told, metrics that are seen."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from raystack.checkpoint import Store
from raystack.errors import PlanError, TrainingError
from raystack.events import Event, Stepped
from raystack.plan import TrainPlan
from raystack.training.fit import fit

pytestmark = pytest.mark.ray
PlanTiny = Callable[..., TrainPlan]
ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny" / "config.yaml"


def losses(plan: TrainPlan, *, resume: bool = False) -> dict[int, float]:
    events: list[Event] = []
    fit(plan, events.append, resume=resume)
    return {event.step: event.metrics["train/loss"] for event in events if isinstance(event, Stepped)}


def test_workers_and_accumulation_change_no_loss_and_the_dashboard_has_the_metrics(plan_tiny: PlanTiny, ray_cluster: str) -> None:
    alone = losses(plan_tiny("training.batch.micro=32"))
    accumulated = losses(plan_tiny("training.batch={micro: 16, accumulation: 2}"))
    two = losses(plan_tiny("resources.workers=2", "training.batch.micro=16", f"target.address={ray_cluster}", run_id="tiny-two"))
    assert len(alone) == 6
    assert accumulated == pytest.approx(alone, rel=1e-5)
    assert two == pytest.approx(alone, rel=1e-5)
    assert 'run_id="tiny-two"' in _metric("ray_raystack_train_loss")


def test_a_worker_that_fails_ends_the_run_with_its_reason(plan_tiny: PlanTiny, ray_cluster: str) -> None:
    plan = plan_tiny("resources.workers=2", "task.args.raise_at=3", "training.checkpoint.every_steps=1", f"target.address={ray_cluster}")
    with pytest.raises(
        TrainingError, match=r"step 3, rank \d: ValueError: a bad sample; see task.py:\d+; last good checkpoint: .*step-0000000002"
    ):
        fit(plan, lambda event: None, resume=False)


def test_more_workers_than_fit_are_refused_at_once(plan_tiny: PlanTiny, ray_cluster: str) -> None:
    plan = plan_tiny("resources.workers=16", f"target.address={ray_cluster}")
    with pytest.raises(PlanError, match=r"resources: 16 workers need 16 CPU; the cluster has 4 CPU \(got 12 CPU missing\)"):
        fit(plan, lambda event: None, resume=False)


def test_a_run_killed_in_an_epoch_goes_on_elsewhere_with_every_sample_once(plan_tiny: PlanTiny, ray_cluster: str, tmp_path: Path) -> None:
    def options(ledger: str) -> list[str]:
        (tmp_path / ledger).mkdir()
        length = ["training.epochs=3", "task.args.length=330", "training.batch.global=32", "training.checkpoint.every_steps=4"]
        return [*length, "task.args.step_s=0.1", f"task.args.ledger={tmp_path / ledger}"]

    losses(plan_tiny(*options("unbroken"), "task.args.step_s=0"))
    asked = [*options("killed"), f"experiment.storage={tmp_path}", "resources.workers=2", f"target.address={ray_cluster}"]
    store = _kill_after(asked, tmp_path, steps=14)
    found = store.latest_good().manifest
    assert found is not None
    assert 330 < found.samples < 660
    losses(plan_tiny(*options("resumed"), run_id=found.run_id), resume=True)

    unbroken = _steps(tmp_path / "unbroken")
    went_on = _steps(tmp_path / "killed")[: found.step] + _steps(tmp_path / "resumed")
    assert went_on == unbroken
    consumed = [index for step in unbroken for index in step]
    assert sorted(consumed) == sorted([*range(330)] * 3)


def _kill_after(asked: list[str], storage: Path, steps: int) -> Store:
    """Start a run of its own, and kill it without a warning once it is `steps` steps far. Returns its checkpoints."""
    command = [sys.executable, "-m", "raystack.train", str(TINY), *asked]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(_steps(storage / "killed")) < steps:
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    (run,) = (storage / "runs").glob("tiny-2*")
    while _alive(storage / "killed"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return Store(str(run / "checkpoints"))


def _steps(ledger: Path) -> list[list[int]]:
    """Sample ids of each step that all workers of a run have begun, sorted."""
    workers = [[line.split() for line in file.read_text().splitlines()] for file in ledger.iterdir()]
    return [sorted(int(index) for part in parts for index in part) for parts in zip(*workers, strict=False)]


def _alive(ledger: Path) -> bool:
    """Whether a worker that wrote into the ledger still runs."""
    return any(Path("/proc", file.stem).exists() for file in ledger.iterdir())


def _metric(name: str) -> str:
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    token = Path("~/.ray/auth_token").expanduser()
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)) as response:
            for line in response.read().decode().splitlines():
                if line.startswith(name):
                    return str(line)
        time.sleep(0.5)
    return ""
