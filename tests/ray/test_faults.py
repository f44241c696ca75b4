"""What a run survives, on real workers: their deaths, its driver's, a signal to stop, a step that does not
end.
"""

import random
import re
import time
from pathlib import Path

import pytest
from driver import Driver, alive, attempts, kill, steps

from raystack.checkpoint import CheckpointStore

pytestmark = [pytest.mark.ray, pytest.mark.slow]
KILLS = 20
EPOCHS, LENGTH, BATCH = 9, 330, 32


def options(storage: Path, address: str, ledger: str = "ledger", step_s: float = 0.05) -> list[str]:
    (storage / ledger).mkdir(exist_ok=True)
    return [
        f"experiment.storage={storage}",
        f"target.address={address}",
        "resources.workers=2",
        f"task.args={{length: {LENGTH}, step_s: {step_s}, ledger: {storage / ledger}}}",
        f"training.epochs={EPOCHS}",
        f"training.batch.global={BATCH}",
        "training.checkpoint={every_steps: 2, keep_last: 3}",
    ]


@pytest.mark.minutes
@pytest.mark.timeout(900)
def test_twenty_killed_workers_and_a_killed_driver_cost_no_sample_and_change_no_loss(
    ray_cluster: str, tmp_path: Path
) -> None:
    unbroken = Driver(*options(tmp_path, ray_cluster, "unbroken", step_s=0))
    assert unbroken.wait() == 0, "".join(unbroken.lines)

    draw = random.Random(0)
    ledger = tmp_path / "ledger"
    config = [*options(tmp_path, ray_cluster), "training.faults.lost={times: 5}"]
    drivers = [Driver(*config)]
    for number in range(KILLS + 1):
        victims = _some_steps_later(ledger, number + 1, draw.randint(2, 6), drivers[-1])
        if number == KILLS // 2:
            drivers[-1].kill()
            while alive(ledger):
                time.sleep(0.05)
            drivers.append(Driver(*config, "--run", drivers[0].run))
        else:
            kill(draw.choice(victims))
    assert drivers[-1].wait() == 0, "".join(drivers[-1].lines)

    assert sum("goes on from" in line for driver in drivers for line in driver.lines) == KILLS
    starts = [
        int(found[1]) if (found := re.search(r"from step (\d+)", line)) else 0
        for driver in drivers
        for line in driver.lines
        if " parameters, " in line
    ]
    runs = [steps(pages) for pages in attempts(ledger, 2)]
    assert len(runs) == len(starts) == KILLS + 2
    ends = [*starts[1:], starts[-1] + len(runs[-1])]
    consumed = [ids for run, start, end in zip(runs, starts, ends, strict=True) for ids in run[: end - start]]
    assert consumed == steps(attempts(tmp_path / "unbroken", 2)[0])
    assert sorted(index for ids in consumed for index in ids) == sorted([*range(LENGTH)] * EPOCHS)
    last = -(-EPOCHS * LENGTH // BATCH)
    assert drivers[-1].losses()[last] == pytest.approx(
        unbroken.losses()[last], rel=1e-4
    )  # printed with four digits
    assert _final_metrics(tmp_path, drivers[0].run) == pytest.approx(
        _final_metrics(tmp_path, unbroken.run), rel=1e-6
    )


def _some_steps_later(ledger: Path, attempt: int, later: int, driver: Driver) -> list[Path]:
    """Wait until both workers of the attempt are `later` steps far; returns their pages."""
    deadline = time.monotonic() + 120
    while True:
        groups = attempts(ledger, 2)
        if len(groups) == attempt and len(groups[-1]) == 2 and len(steps(groups[-1])) >= later:
            return groups[-1]
        assert driver.process.poll() is None, "".join(driver.lines)
        assert time.monotonic() < deadline, "".join(driver.lines)
        time.sleep(0.01)


def _final_metrics(storage: Path, run: str) -> dict[str, float]:
    manifest = CheckpointStore(str(storage / "runs" / run / "checkpoints")).manifests()[-1]
    return dict(manifest.metrics)


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_sigterm_leaves_a_checkpoint_of_that_very_step_and_a_status_that_says_resume(
    strategy: str, ray_cluster: str, tmp_path: Path
) -> None:
    config = [*options(tmp_path, ray_cluster), f"strategy={strategy}", "training.checkpoint.every_steps=1000"]
    first = Driver(*config)
    first.until(r"^step 1/")
    time.sleep(0.4)
    first.terminate()
    assert first.wait() == 75, "".join(first.lines)
    told = re.search(r"paused: step (\d+): .*; go on with --resume", "".join(first.lines))
    assert told is not None
    ledger = tmp_path / "ledger"
    assert len(steps(attempts(ledger, 2)[0])) == int(told[1]) < 93
    second = Driver(*config, "--resume")
    assert second.wait() == 0, "".join(second.lines)
    assert any(f"from step {told[1]}" in line for line in second.lines)
    consumed = [index for pages in attempts(ledger, 2) for ids in steps(pages) for index in ids]
    assert sorted(consumed) == sorted([*range(LENGTH)] * EPOCHS)


def test_a_worker_that_hangs_is_named_and_the_run_goes_on_without_it(
    ray_cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "ledger").mkdir()
    run = Driver(
        *options(tmp_path, ray_cluster),
        f"task.args={{length: {LENGTH}, step_s: 0.05, hang_at: 15, ledger: {tmp_path / 'ledger'}}}",
        "training.epochs=3",
        "training.watchdog={multiple: 10, min_s: 2}",
        "training.faults.hang={times: 1}",
    )
    assert run.wait() == 0, "".join(run.lines)
    (alarm,) = (
        line
        for line in run.lines
        if line.startswith("warning: ") and "in loss" in line and "goes on" not in line
    )
    named = re.search(r"rank (\d) \(pid (\d+)", alarm)
    assert named is not None, alarm
    assert named[2] == (tmp_path / "ledger" / "hung").read_text()
    assert re.search(r"task\.py:\d+", alarm)
    assert any("goes on from step" in line and "hang: 1 of 1" in line for line in run.lines)
