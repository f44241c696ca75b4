"""What `target=job` promises, on a real cluster with token authentication that was started by itself: nothing
here is faked.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from driver import ROOT, TINY
from started import TOKEN, started, until

from raystack.checkpoint import CheckpointStore

pytestmark = [pytest.mark.ray, pytest.mark.slow]
LONG = ["training.epochs=200", "task.args.step_s=0.1", "training.checkpoint={every_steps: 5, keep_last: 2}"]


@dataclass(frozen=True)
class Cluster:
    """Its dashboard, and the commands that are sent to it."""

    address: str
    environment: dict[str, str]

    def raystack(self, *words: str, token: str = TOKEN) -> subprocess.Popen[str]:
        """A command as a user types it, with stdout and stderr in one."""
        command = [sys.executable, "-m", "raystack", *words]
        where = {**self.environment, "RAY_AUTH_TOKEN": token}
        return subprocess.Popen(
            command, cwd=ROOT, env=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def train(self, *words: str, token: str = TOKEN) -> subprocess.Popen[str]:
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
    output, _ = refused.communicate(timeout=30)
    assert refused.returncode == 4
    assert re.search(r"error: target\.token: the cluster refuses the token", output), output

    waiting = cluster.train("--wait", "resources.workers=1", f"experiment.storage={tmp_path}")
    output, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, output
    (run,) = (tmp_path / "runs").iterdir()
    assert CheckpointStore(str(run / "checkpoints")).manifests()[-1].step == 6
    assert f"job/{run.name} is succeeded" in output
    assert ", 1 worker on " in output  # the driver's own words

    config = cluster.raystack("logs", f"job/{run.name}", "--address", cluster.address)
    output, _ = config.communicate(timeout=30)
    assert config.returncode == 0, output
    assert len(re.findall(r"^step 6: checkpoint ", output, re.MULTILINE)) == 1


def test_a_job_whose_driver_is_lost_goes_on_with_its_run_is_followed_and_leaves_a_checkpoint_when_cancelled(
    cluster: Cluster, tmp_path: Path
) -> None:
    with cluster.train("--wait", f"experiment.storage={tmp_path}", "target.retries=1", *LONG) as waiting:
        until(lambda: len(list(tmp_path.glob("runs/*/checkpoints/step-*/manifest.json"))) == 2, 60)
        (run,) = (tmp_path / "runs").iterdir()
        first = _driver(run)
        os.kill(int(str(first["pid"])), signal.SIGKILL)
        with cluster.raystack("logs", "-f", f"job/{run.name}", "--address", cluster.address) as following:
            until(lambda: _driver(run)["number"] == 2, 60)
            assert following.stdout is not None
            lines = [next(line for line in following.stdout if re.search(r", from step \d+", line))]
            lines += [next(line for line in following.stdout if re.match(r"step \d+: checkpoint", line))]
            cancel = cluster.raystack("cancel", f"job/{run.name}", "--address", cluster.address)
            told, _ = cancel.communicate(timeout=60)
            assert cancel.returncode == 0, told
            lines += following.stdout.readlines()
            assert following.wait(30) == 0
        output, _ = waiting.communicate(timeout=30)

    assert f"job/{run.name} is retrying: its driver was lost" in output
    assert f"job/{run.name} is running, attempt 2" in output
    (start,) = re.findall(r"from step (\d+)", "".join(lines))
    assert int(start) >= 10
    paused = re.search(r"is stopped, attempt 2: paused: step (\d+): .*go on with --resume", told)
    assert paused is not None, told
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.name]
    assert CheckpointStore(str(run / "checkpoints")).manifests()[-1].step == int(paused[1])
    last = _driver(run)
    assert (first["attempt"], last["attempt"], last["number"], last["held"]) == (1, 2, 2, False)
