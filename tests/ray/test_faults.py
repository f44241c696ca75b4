"""What a run survives, on real workers: a signal to stop, and a step that does not end. `test_kills.py` has
the deaths.
"""

import re
import time
from pathlib import Path

import pytest
from driver import Driver, attempts, steps

pytestmark = [pytest.mark.ray, pytest.mark.slow]
EPOCHS, LENGTH, BATCH = 9, 330, 32


def options(storage: Path, address: str) -> list[str]:
    (storage / "ledger").mkdir(exist_ok=True)
    return [
        f"experiment.storage={storage}",
        f"target.address={address}",
        "resources.workers=2",
        f"task.args={{length: {LENGTH}, step_s: 0.05, ledger: {storage / 'ledger'}}}",
        f"training.epochs={EPOCHS}",
        f"training.batch.global={BATCH}",
        "training.checkpoint={every_steps: 2, keep_last: 3}",
    ]


@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.long), "zero2"])
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
