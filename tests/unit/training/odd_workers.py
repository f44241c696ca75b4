"""Trains the tasks of tests/odd, on one worker or on two over gloo, without Ray.

Run as a script: `python odd_workers.py <folder>` leaves <folder>/results.json, `{check: result}`.
As in strategy_workers.py both processes are forks of one that has imported what they need.
"""

import gc
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from strategy_workers import import_what_zero_needs
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from raystack.checkpoint import MODEL, CheckpointStore
from raystack.checkpoint.weights import read_model
from raystack.code.archive import pack
from raystack.config import load
from raystack.errors import ConfigError, TrainingError
from raystack.events import Event, Stepped
from raystack.plan import TrainPlan, plan_training
from raystack.training.equalize import equalize
from raystack.training.evaluate import evaluate
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.meters import MeterSet
from raystack.training.watchdog.hang import Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

ODD = Path(__file__).parents[2] / "odd" / "config.yaml"
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")


def planned(folder: Path, world: World, name: str, *overrides: str) -> TrainPlan:
    """The plan of a run called `name`; the overrides may set the task."""
    workers = f"resources.workers={world.size if world.size > 1 else 'inline'}"
    return plan_training(load(ODD, [f"experiment.storage={folder}", workers, *overrides]), name)


def run(plan: TrainPlan, world: World, events: list[Event] | None = None) -> list[Event]:
    """Train as a worker does, and return what rank 0 has told."""
    events = [] if events is None else events
    heartbeats = HeartbeatSender(
        lambda heartbeat: Orders(), attempt=1, rank=world.rank, world=world.size, node="here", folder=None
    )
    folder = plan.config.task.folder
    assert folder is not None
    spec = WorkerSpec(plan, pack(folder), token="odd")
    events.append(train(spec, world, events.append, GracefulStop(world), heartbeats))
    return events


def losses(events: list[Event], metric: str = "train/loss") -> list[float]:
    return [event.metrics[metric] for event in events if isinstance(event, Stepped)]


class Remembering(nn.Module):
    """Buffers of all kinds, and a number that is none."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.norm, self.largest = nn.BatchNorm1d(2), 10.0 + rank
        self.register_buffer("hidden", torch.tensor(rank == 0), persistent=False)
        self.register_buffer("spectrum", torch.full((2,), complex(rank, 1)))
        self.register_buffer("grown", torch.arange(3 + 2 * rank))
        self.register_buffer("late", torch.ones(2) if rank == 0 else None)
        self.register_buffer("other", None if rank == 0 else torch.ones(5))
        self.norm.running_mean = torch.tensor([1.0, 2.0]) + rank
        self.norm.num_batches_tracked = torch.tensor(5 + rank)

    def get_extra_state(self) -> Any:
        return {"largest": self.largest}

    def set_extra_state(self, state: Any) -> None:
        self.largest = state["largest"]


def buffers_of_worker_0(folder: Path, world: World) -> Any:
    """Each worker's buffers after they were made equal, as text."""
    model = Remembering(world.rank)
    equalize(model, world)
    mine = {name: str(model.get_buffer(name).tolist()) for name, _ in Remembering(0).named_buffers()}
    kept = sorted(name for name in model.state_dict() if "hidden" in name)
    return world.gather_objects({**mine, "largest": model.largest, "kept": kept})


def metrics_by_name(folder: Path, world: World) -> Any:
    """Metrics of which each worker has met other names."""

    class Names:
        def metrics(self, model: nn.Module, batch: Tensor) -> dict[str, Any]:
            return {f"class_{int(batch[0])}": batch.double(), "all": batch.double()}

    batches = iter([(torch.tensor([3 * world.rank, 6]), 2), (torch.tensor([7]), 1 - world.rank)])
    names: Any = Names()
    return evaluate(names, nn.Identity(), batches, world, MeterSet(names, world, None))


def token_means(folder: Path, world: World) -> Any:
    """Losses and gradient norms of a loss that is a pair, under every strategy, by name."""
    found = {}
    for name in STRATEGIES:
        for more in ((), ("training.precision=bf16",)):
            options = ["task.entry=task:Tokens", "training.clip_norm=0.5", f"strategy={name}", *more]
            plan = planned(folder, world, f"{name}-{len(more)}", *options, "training.batch.micro=2")
            events = run(plan, world)
            found[plan.run_id] = [losses(events), losses(events, "train/grad_norm")]
    return found


def parts(folder: Path, world: World) -> Any:
    """Losses of a task that calls a part of its model, by strategy; or what it is told."""
    return _by_strategy(folder, world, "Encodes")


def penalties(folder: Path, world: World) -> Any:
    """Losses of a task that takes gradients in its loss, by strategy; or what it is told."""
    return _by_strategy(folder, world, "Penalty")


def _by_strategy(folder: Path, world: World, task: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in STRATEGIES:
        plan = planned(folder, world, f"{task}-{name}", f"task.entry=task:{task}", f"strategy={name}")
        try:
            found[name] = losses(run(plan, world))
        except (ConfigError, TrainingError) as error:
            found[name] = str(error)
    return found


def untouched(folder: Path, world: World) -> Any:
    """By strategy, the largest change of a layer that is used, and of one that is not."""
    found = {}
    for name in ("fsdp", "zero1", "zero2", "zero3"):
        for precision in ("fp32", "bf16"):
            options = ("task.entry=task:Partial", f"strategy={name}", f"training.precision={precision}")
            plan = planned(folder, world, f"left-{name}-{precision}", *options)
            run(plan, world)
            if world.rank == 0:
                with CheckpointStore(plan.paths.checkpoints).fetch(6, MODEL) as model:
                    trained = read_model(model)[1].state_dict()
                world.seed(plan.seed)
                new = nn.Sequential(nn.Linear(4, 1), nn.Linear(4, 4)).state_dict()
                apart = {key: float((trained[key] - new[key]).abs().max()) for key in new}
                found[f"{name} {precision}"] = [apart["0.weight"], apart["1.weight"]]
    return found


def unused(folder: Path, world: World) -> Any:
    """What a run with a layer that is not used is told, and its losses with the setting that it is told."""
    told = ""
    try:
        run(planned(folder, world, "unused", "task.entry=task:Partial"), world)
    except TrainingError as error:
        told = str(error)
    find = "training.strategy.find_unused_parameters=true"
    return told, losses(run(planned(folder, world, "found", "task.entry=task:Partial", find), world))


CHECKS: tuple[Callable[[Path, World], Any], ...] = (
    buffers_of_worker_0,
    metrics_by_name,
    token_means,
    parts,
    penalties,
    unused,
    untouched,
)


def worker(rank: int, folder: Path) -> None:
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    world = World(rank, 2, torch.device("cpu"))
    results = {check.__name__: check(folder, world) for check in CHECKS}
    if rank == 0:
        (folder / "results.json").write_text(json.dumps(results))
    dist.destroy_process_group()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    import_what_zero_needs()
    gc.freeze()
    start_processes(worker, (folder,), nprocs=2, start_method="fork")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
