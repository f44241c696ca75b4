"""An elastic run on a cluster that loses a node and gets another: 2 workers, 1, 2 again, with a fixed-size
run's losses.
"""

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from driver import Driver
from processes import Command, kill_session

from raystack.checkpoint import CheckpointStore

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@contextmanager
def node(address: str, seats: int) -> Iterator[None]:
    """A node of the cluster, with room for `seats` workers; lost, without a warning, at the end of
    the block.
    """
    # A folder of its own: in a shared one `ray start` ends at a file that another user's cluster has left.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options = {
            "address": address,
            "temp-dir": folder,
            "num-cpus": seats,
            "resources": json.dumps({"seat": seats}),
            "object-store-memory": 100 * 2**20,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "dashboard-agent-listen-port": 0,
        }
        ray = str(Path(sys.executable).with_name("ray"))
        before = _nodes()
        started = Command(
            [ray, "start", "--block", *(f"--{name}={value}" for name, value in options.items())],
            {**os.environ, "RAY_AUTH_MODE": "token"},
        )
        try:
            _wait_for_another(before, started)
            yield
            assert started.process.poll() is None, started.output
        finally:
            kill_session(started.process.pid)
            started.wait(10)


def _nodes() -> set[str]:
    """Nodes that have seats and are alive. One that was killed is among them until Ray notices it."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("seat")}


def _wait_for_another(before: set[str], started: Command) -> None:
    deadline = time.monotonic() + 60
    while not _nodes() - before:
        assert started.process.poll() is None, started.output
        assert time.monotonic() < deadline, started.output
        time.sleep(0.1)


OPTIONS = (
    "~training.epochs",
    "training.steps=130",
    "training.checkpoint.every_steps=5",
    "training.clip_norm=0.5",
    "training.batch={global: 32, micro: 16}",
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "strategy",
    ["ddp", *(pytest.param(name, marks=pytest.mark.long) for name in ("fsdp", "zero1", "zero2", "zero3"))],
)
def test_a_run_shrinks_and_grows_with_its_cluster_and_keeps_its_losses(
    strategy: str, tmp_path: Path, ray_cluster: str
) -> None:
    fixed = Driver(*OPTIONS, f"experiment.storage={tmp_path}", "resources=inline")
    assert fixed.wait() == 0, fixed.output
    elastic = [
        f"experiment.storage={tmp_path}",
        f"strategy={strategy}",
        f"target.address={ray_cluster}",
        "resources={workers: [1, 2], custom: {seat: 1}}",
        "task.args.step_s=0.15",
    ]
    with node(ray_cluster, 1):
        with node(ray_cluster, 1):
            run = Driver(*OPTIONS, *elastic)
            run.until(r"^step 1\d: checkpoint")
        run.until(r", 1 worker on")
        run.until(r"^step [34]\d: checkpoint")
        with node(ray_cluster, 1):
            assert run.wait() == 0, run.output
    assert sizes(run) == [2, 1, 2]
    expected = fixed.losses()
    losses = {step: run.losses()[step] for step in expected}
    assert losses == pytest.approx(expected, rel=1e-4)  # printed with four digits
    assert final_metrics(tmp_path, run.run) == pytest.approx(final_metrics(tmp_path, fixed.run), rel=1e-5)


def sizes(run: Driver) -> list[int]:
    """Numbers of workers of the attempts."""
    return [int(found[1]) for line in run.lines if (found := re.search(r", (\d) workers? on", line))]


def final_metrics(storage: Path, run: str) -> dict[str, float]:
    """Metrics of the last checkpoint."""
    return dict(CheckpointStore(str(storage / "runs" / run / "checkpoints")).manifests()[-1].metrics)
