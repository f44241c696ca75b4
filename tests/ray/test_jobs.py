"""What `target=job` promises, on a real cluster with token authentication that was started by itself: nothing
here is faked.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from driver import TINY
from processes import Command
from started import TOKEN, started, until

from raystack.checkpoint import CheckpointStore

pytestmark = [pytest.mark.ray, pytest.mark.slow]
LONG = ["training.epochs=200", "task.args.step_s=0.1", "training.checkpoint={every_steps: 5, keep_last: 2}"]


@dataclass(frozen=True)
class Cluster:
    """Its dashboard, and the commands that are sent to it."""

    address: str
    environment: dict[str, str]

    def raystack(self, *words: str, token: str = TOKEN) -> Command:
        """A command that reaches it."""
        return Command(
            [sys.executable, "-m", "raystack", *words], {**self.environment, "RAY_AUTH_TOKEN": token}
        )

    def train(self, *words: str, token: str = TOKEN) -> Command:
        """The tiny task, submitted as a job."""
        return self.raystack(
            "train", str(TINY), "target=job", f"target.address={self.address}", *words, token=token
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started() as it:
        yield Cluster(it.dashboard, it.environment)


def _driver(run: Path) -> dict[str, object]:
    """The lease of a run."""
    held: dict[str, object] = json.loads(max((run / "drivers").glob("*.json")).read_text())
    return held


def test_a_job_with_a_worker_runs_to_its_end_and_a_wrong_token_does_not_get_in(
    cluster: Cluster, tmp_path: Path
) -> None:
    refused = cluster.train("--wait", token="wrong")
    assert refused.wait(30) == 4
    assert re.search(r"error: target\.token: the cluster refuses the token", refused.output), refused.output

    waiting = cluster.train("--wait", "resources.workers=1", f"experiment.storage={tmp_path}")
    assert waiting.wait(120) == 0, waiting.output
    (run,) = (tmp_path / "runs").iterdir()
    assert CheckpointStore(str(run / "checkpoints")).manifests()[-1].step == 6
    assert f"job/{run.name} is succeeded" in waiting.output
    assert ", 1 worker on " in waiting.output  # the driver's own words

    logs = cluster.raystack("logs", f"job/{run.name}", "--address", cluster.address)
    assert logs.wait(30) == 0, logs.output
    assert len(re.findall(r"^step 6: checkpoint ", logs.output, re.MULTILINE)) == 1


def test_a_job_whose_driver_is_lost_goes_on_with_its_run_is_followed_and_leaves_a_checkpoint_when_cancelled(
    cluster: Cluster, tmp_path: Path
) -> None:
    waiting = cluster.train("--wait", f"experiment.storage={tmp_path}", "target.retries=1", *LONG)
    until(lambda: len(list(tmp_path.glob("runs/*/checkpoints/step-*/manifest.json"))) == 2, 60)
    (run,) = (tmp_path / "runs").iterdir()
    first = _driver(run)
    os.kill(int(str(first["pid"])), signal.SIGKILL)
    following = cluster.raystack("logs", "-f", f"job/{run.name}", "--address", cluster.address)
    until(lambda: _driver(run)["number"] == 2, 60)
    (start,) = following.until(r", from step \d+")
    written = len(re.findall(r"^step \d+: checkpoint", following.output, re.MULTILINE))
    following.until(r"^step \d+: checkpoint", times=written + 1)
    cancel = cluster.raystack("cancel", f"job/{run.name}", "--address", cluster.address)
    assert cancel.wait(60) == 0, cancel.output
    assert following.wait(30) == 0
    assert waiting.wait(30) == 75, waiting.output

    assert f"job/{run.name} is retrying: its driver was lost" in waiting.output
    assert f"job/{run.name} is running, attempt 2" in waiting.output
    (step,) = re.findall(r", from step (\d+)", following.output)
    assert step in start
    assert int(step) >= 10
    paused = re.search(r"is stopped, attempt 2 \(\d+ s\): step (\d+): .*go on with --resume", cancel.output)
    assert paused is not None, cancel.output
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.name]
    assert CheckpointStore(str(run / "checkpoints")).manifests()[-1].step == int(paused[1])
    last = _driver(run)
    assert (first["attempt"], last["attempt"], last["number"], last["held"]) == (1, 2, 2, False)
