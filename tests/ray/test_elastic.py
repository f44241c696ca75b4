"""An elastic run on a cluster that loses a node and gets another: 2 workers, 1, 2 again, with a fixed-size
run's losses.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import kill_session

from raystack.events import Evaluated, Event, Started, Stepped
from raystack.outcome import Outcome
from raystack.plan import TrainPlan
from raystack.training.driver.fit import fit

pytestmark = [pytest.mark.ray, pytest.mark.slow]
LONGEST_S = 120.0


@contextmanager
def node(address: str, seats: int) -> Iterator[None]:
    """A node of the cluster, with room for `seats` workers; lost, without a warning, at the end of
    the block.
    """
    room = [
        "--num-cpus",
        str(seats),
        "--resources",
        json.dumps({"seat": seats}),
        "--object-store-memory",
        str(100 * 2**20),
    ]
    ports = ["--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0"]
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--address",
        address,
        *room,
        *ports,
        "--block",
    ]
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    before = _nodes()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_for_another(before)
        yield
    finally:
        kill_session(process.pid)
        process.wait(10)


def _nodes() -> set[str]:
    """Nodes that have seats and are alive. One that was killed is among them until Ray notices it."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("seat")}


def _wait_for_another(before: set[str]) -> None:
    deadline = time.monotonic() + 60
    while not _nodes() - before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


LENGTH = (
    "~training.epochs",
    "training.steps=130",
    "training.checkpoint.every_steps=5",
    "training.clip_norm=0.5",
)
BATCH = "training.batch={global: 32, micro: 16}"


@pytest.mark.parametrize(
    "strategy",
    ["ddp", *(pytest.param(name, marks=pytest.mark.long) for name in ("fsdp", "zero1", "zero2", "zero3"))],
)
def test_a_run_shrinks_and_grows_with_its_cluster_and_keeps_its_losses(
    strategy: str, plan_tiny: Callable[..., TrainPlan], ray_cluster: str
) -> None:
    fixed: list[Event] = []
    fit(plan_tiny(*LENGTH, BATCH, run_id="fixed"), fixed.append, resume=False)
    elastic = [
        f"strategy={strategy}",
        f"target.address={ray_cluster}",
        "resources={workers: [1, 2], custom: {seat: 1}}",
    ]
    plan = plan_tiny(*LENGTH, BATCH, *elastic, "task.args.step_s=0.15", run_id="elastic")
    events: list[Event] = []
    with ThreadPoolExecutor(1) as pool, node(ray_cluster, 1):
        with node(ray_cluster, 1):
            run = pool.submit(fit, plan, events.append, resume=False)
            _until(lambda: any(isinstance(event, Stepped) and event.step > 10 for event in events), run)
        _until(lambda: sizes(events) == [2, 1], run)
        with node(ray_cluster, 1):
            run.result(LONGEST_S)
    assert sizes(events) == [2, 1, 2]
    assert losses(events) == pytest.approx(losses(fixed), rel=1e-5)
    (expected, *_), (measured, *_) = (
        [event.metrics for event in some if isinstance(event, Evaluated)] for some in (fixed, events)
    )
    assert measured == pytest.approx(expected, rel=1e-5)


def sizes(events: list[Event]) -> list[int]:
    """Numbers of workers of the attempts."""
    return [event.world_size for event in events if isinstance(event, Started)]


def losses(events: list[Event]) -> dict[int, float]:
    """By step; of one that was done again, the last."""
    return {event.step: event.metrics["train/loss"] for event in events if isinstance(event, Stepped)}


def _until(what: Callable[[], bool], run: "Future[Outcome]") -> None:
    deadline = time.monotonic() + LONGEST_S
    while not what():
        assert not run.done(), run.result()
        assert time.monotonic() < deadline
        time.sleep(0.05)
