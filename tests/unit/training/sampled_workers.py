"""Runs of the task in sampled/, without Ray: in this process, or on several that it forks.

Run as a script, `python sampled_workers.py <folder> <workers>` trains every plan of <folder>/plans.json,
`[[storage, override, ...], ...]`, one after the other on gloo workers, and leaves <folder>/ended.json: how
each ended.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from raystack.code.archive import pack
from raystack.config import load
from raystack.errors import RaystackError
from raystack.events import Event
from raystack.plan import TrainPlan, plan_training
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

SAMPLED = Path(__file__).with_name("sampled") / "config.yaml"


def planned(storage: Path, *overrides: str) -> TrainPlan:
    """A plan of the task in sampled/; the folder that it writes into is that of its storage."""
    storage.mkdir(exist_ok=True)
    place = [f"experiment.storage={storage}", f"task.args.ledger={storage}"]
    return plan_training(load(SAMPLED, [*place, *overrides]), "sampled-1")


def train_on(plan: TrainPlan, rank: int, workers: int, events: list[Event] | None = None) -> list[Event]:
    """Train as one of the workers, from the newest checkpoint if there is one; return all events."""
    folder = plan.config.task.folder
    assert folder is not None
    world, events = World.join(rank, workers, torch.device("cpu")), [] if events is None else events
    heartbeats = HeartbeatSender(
        lambda heartbeat: Orders(), attempt=1, rank=rank, world=workers, node="here", folder=None
    )
    events.append(
        train(
            WorkerSpec(plan, pack(folder), token="one"), world, events.append, GracefulStop(world), heartbeats
        )
    )
    return events


def on_workers(folder: Path, workers: int, plans: list[list[str]]) -> list[str]:
    """Train every plan, its storage and overrides, on gloo workers; return the errors, "" for none."""
    (folder / "plans.json").write_text(json.dumps(plans))
    command = [sys.executable, __file__, str(folder), str(workers)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    ended: list[str] = json.loads((folder / "ended.json").read_text())
    return ended


def passes(ledger: Path, rank: int = 0) -> list[dict[str, Any]]:
    """What the task wrote down on a worker, one entry for each forward pass."""
    file = ledger / f"{rank}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _worker(rank: int, workers: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=workers)
    ended: list[str] = []
    for storage, *overrides in json.loads((folder / "plans.json").read_text()):
        try:
            train_on(planned(Path(storage), f"resources={{workers: {workers}}}", *overrides), rank, workers)
            ended.append("")
        except RaystackError as error:
            ended.append(str(error))
    if rank == 0:
        (folder / "ended.json").write_text(json.dumps(ended))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, count = Path(sys.argv[1]), int(sys.argv[2])
    start_processes(_worker, (count, where), nprocs=count, start_method="fork")
