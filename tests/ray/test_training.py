"""What a run promises on Ray Train workers: the same losses, the same samples, errors that are told, metrics
that are seen.
"""

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from driver import Driver, alive, attempts, steps

from raystack.checkpoint import CheckpointStore
from raystack.errors import PlanError, TrainingError
from raystack.events import Event, Stepped
from raystack.launch.dashboard import Dashboard
from raystack.plan import TrainPlan
from raystack.training.driver.fit import fit

pytestmark = pytest.mark.ray
PlanTiny = Callable[..., TrainPlan]


def losses(plan: TrainPlan, *, resume: bool = False) -> dict[int, float]:
    events: list[Event] = []
    fit(plan, events.append, resume=resume)
    return {event.step: event.metrics["train/loss"] for event in events if isinstance(event, Stepped)}


def test_workers_and_accumulation_change_no_loss_and_the_dashboard_has_the_metrics(
    plan_tiny: PlanTiny, ray_cluster: str
) -> None:
    alone = losses(plan_tiny("training.batch.micro=32"))
    accumulated = losses(plan_tiny("training.batch={micro: 16, accumulation: 2}", run_id="tiny-accumulated"))
    two = losses(
        plan_tiny(
            "resources.workers=2",
            "training.batch.micro=16",
            f"target.address={ray_cluster}",
            run_id="tiny-two",
        )
    )
    assert len(alone) == 6
    assert accumulated == pytest.approx(alone, rel=1e-5)
    assert two == pytest.approx(alone, rel=1e-5)
    assert 'run_id="tiny-two"' in _metric("ray_raystack_train_loss")


def test_a_run_is_in_the_train_view_of_rays_dashboard(
    plan_tiny: PlanTiny, ray_cluster: str, dashboard: str
) -> None:
    losses(plan_tiny("resources.workers=2", f"target.address={ray_cluster}", run_id="tiny-seen"))
    seen = Dashboard(dashboard).get("/api/train/v2/runs/v1")
    assert seen is not None
    (run,) = [run for run in seen["train_runs"] if run["name"] == "tiny-seen"]
    assert run["status"] == "FINISHED"
    assert run["run_settings"]["train_loop_config"]["experiment"]["name"] == "tiny"
    (attempt,) = run["attempts"]
    assert [worker["world_rank"] for worker in attempt["workers"]] == [0, 1]
    for one in (run["controller_log_file_path"], *(worker["log_file_path"] for worker in attempt["workers"])):
        assert Path(one).is_file()


def test_a_worker_that_fails_ends_the_run_with_its_reason(plan_tiny: PlanTiny, ray_cluster: str) -> None:
    plan = plan_tiny(
        "resources.workers=2",
        "task.args.raise_at=3",
        "training.checkpoint.every_steps=1",
        f"target.address={ray_cluster}",
    )
    with pytest.raises(
        TrainingError,
        match=(
            r"step 3, rank \d: ValueError: a bad sample; see task.py:\d+; last good checkpoint:"
            r" .*step-000000000[12]"  # what is published within the wait for it
        ),
    ):
        fit(plan, lambda event: None, resume=False)


def test_more_workers_than_fit_are_refused_at_once(plan_tiny: PlanTiny, ray_cluster: str) -> None:
    plan = plan_tiny("resources.workers=16", f"target.address={ray_cluster}")
    with pytest.raises(
        PlanError, match=r"resources: 16 workers need 16 CPU; the cluster has 4 CPU \(got 12 CPU missing\)"
    ):
        fit(plan, lambda event: None, resume=False)


def test_a_run_killed_in_an_epoch_goes_on_elsewhere_with_every_sample_once(
    plan_tiny: PlanTiny, ray_cluster: str, tmp_path: Path
) -> None:
    def options(ledger: str) -> list[str]:
        (tmp_path / ledger).mkdir()
        length = [
            "training.epochs=3",
            "task.args.length=330",
            "training.batch.global=32",
            "training.checkpoint.every_steps=4",
        ]
        return [*length, "task.args.step_s=0.1", f"task.args.ledger={tmp_path / ledger}"]

    losses(plan_tiny(*options("unbroken"), "task.args.step_s=0"))
    config = [
        *options("killed"),
        f"experiment.storage={tmp_path}",
        "resources.workers=2",
        f"target.address={ray_cluster}",
    ]
    driver = Driver(*config)
    while len(steps(sorted((tmp_path / "killed").glob("*.txt")))) < 14:
        assert driver.process.poll() is None, "".join(driver.lines)
        time.sleep(0.05)
    driver.kill()
    while alive(tmp_path / "killed"):
        time.sleep(0.05)
    found = CheckpointStore(str(tmp_path / "runs" / driver.run / "checkpoints")).latest_good().manifest
    assert found is not None
    assert 330 < found.samples < 660
    losses(plan_tiny(*options("resumed"), run_id=found.run_id), resume=True)

    (unbroken,), (resumed,) = attempts(tmp_path / "unbroken", 1), attempts(tmp_path / "resumed", 1)
    (killed,) = attempts(tmp_path / "killed", 2)
    went_on = steps(killed)[: found.step] + steps(resumed)
    assert went_on == steps(unbroken)
    consumed = [index for step in went_on for index in step]
    assert sorted(consumed) == sorted([*range(330)] * 3)


def _metric(name: str) -> str:
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    token = Path("~/.ray/auth_token").expanduser()
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
        ) as response:
            for line in response.read().decode().splitlines():
                if line.startswith(name):
                    return str(line)
        time.sleep(0.5)
    return ""
