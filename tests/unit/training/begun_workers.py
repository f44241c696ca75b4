"""Runs of the task in begun/, without Ray: in this process, or on several that it forks.

Run as a script, `python begun_workers.py <folder> <workers>...` trains every plan of <folder>/plans.json,
`[[run, [override, ...], [... with one worker]], ...]`, on so many gloo workers, one after the other, and
leaves <folder>/<workers>.json: the losses of each, or its error.
"""

import gc
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from strategy_workers import import_what_zero_needs
from torch import nn
from torch.multiprocessing.spawn import start_processes

from raystack.checkpoint import MODEL, CheckpointStore
from raystack.checkpoint.weights import read_model
from raystack.code.archive import pack
from raystack.config import load
from raystack.errors import RaystackError
from raystack.events import Event, Stepped
from raystack.plan import TrainPlan, plan_training
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

BEGUN = Path(__file__).with_name("begun") / "config.yaml"


def planned(storage: Path, *overrides: str, run: str = "begun-1") -> TrainPlan:
    """A plan of the task in begun/; the folder that it writes into is that of its storage."""
    (storage / run).mkdir(parents=True, exist_ok=True)
    place = [f"experiment.storage={storage}", f"task.args.ledger={storage}/{run}"]
    return plan_training(load(BEGUN, [*place, *overrides]), run)


def train_on(plan: TrainPlan, world: World, **spec: Any) -> list[Event]:
    """Train as one of the workers, from the newest checkpoint if there is one; return all events."""
    folder = plan.config.task.folder
    assert folder is not None
    events: list[Event] = []
    heartbeats = HeartbeatSender(
        lambda heartbeat: Orders(), attempt=1, rank=world.rank, world=world.size, node="here", folder=None
    )
    sent = WorkerSpec(plan, pack(folder), token="one", **spec)
    events.append(train(sent, world, events.append, GracefulStop(world), heartbeats))
    return events


def run(storage: Path, *overrides: str, name: str = "begun-1", **spec: Any) -> list[Event]:
    """Train in this process."""
    return train_on(planned(storage, *overrides, run=name), World(0, 1, torch.device("cpu"), 1), **spec)


def losses(events: list[Event]) -> dict[int, float]:
    return {event.step: event.metrics["train/loss"] for event in events if isinstance(event, Stepped)}


def lines(storage: Path, name: str, run: str = "begun-1") -> list[dict[str, Any]]:
    """What the task wrote down."""
    file = storage / run / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def model_of(storage: Path, run: str = "begun-1") -> nn.Module:
    """The exported model of a run's newest checkpoint."""
    store = CheckpointStore(planned(storage, run=run).paths.checkpoints)
    with store.fetch(store.manifests()[-1].step, MODEL) as folder:
        return read_model(folder)[1]


def on_workers(folder: Path, plans: list[tuple[str, list[str], list[str]]], *workers: int) -> dict[int, Any]:
    """Train every plan (run, overrides, more on one worker) on gloo workers; return how each ended."""
    (folder / "plans.json").write_text(json.dumps(plans))
    command = [sys.executable, __file__, str(folder), *map(str, workers)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    return {count: json.loads((folder / f"{count}.json").read_text()) for count in workers}


def _worker(rank: int, workers: int, folder: Path) -> None:
    if workers > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=workers,
            timeout=timedelta(seconds=60),
        )
    world = World(rank, workers, torch.device("cpu"), attempt=workers)
    ended: dict[str, Any] = {}
    for name, overrides, alone in json.loads((folder / "plans.json").read_text()):
        place = f"resources={{workers: {workers}}}" if workers > 1 else "resources=inline"
        more = alone if workers == 1 else []
        try:
            ended[name] = losses(train_on(planned(folder, place, *overrides, *more, run=name), world))
        except RaystackError as error:
            ended[name] = str(error)
    if rank == 0:
        (folder / f"{workers}.json").write_text(json.dumps(ended))
    if workers > 1:
        dist.destroy_process_group()


def main(folder: Path, counts: list[int]) -> None:
    torch.set_num_threads(1)
    import_what_zero_needs()
    gc.freeze()  # DeepSpeed collects garbage at every start, and need not look through what was imported
    for count in counts:
        start_processes(_worker, (count, folder), nprocs=count, start_method="fork")
        (folder / "rendezvous").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(count) for count in sys.argv[2:]])
