"""Trains every model shape under every strategy: three steps on two workers, and from their checkpoint three
more on one.

Run as a script: `python parity_workers.py <folder> [shape ...]` leaves <folder>/results.json, `{shape:
{strategy: cell}}`. A cell is {losses, error, weights}, the differences to a plain torch loop of the losses,
of the evaluation at the end and of the exported weights; or {refused: text} of a run that was refused before
its first step; or {raised: text}. As in strategy_workers.py all processes are forks of one.
"""

import gc
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
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
from raystack.code.loading import load as load_task
from raystack.config import load
from raystack.errors import PausedError, RaystackError
from raystack.events import Evaluated, Event, Stepped
from raystack.plan import TrainPlan, plan_training
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.seeds import mixed
from raystack.training.watchdog.hang import Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

CONFIG = Path(__file__).parents[2] / "shapes" / "config.yaml"
SHAPES = (
    "batchnorm",
    "dropout",
    "tied",
    "frozen",
    "unused",
    "complex",
    "jagged",
    "double backward",
    "extra state",
    "sparse",
    "compiled",
    "recomputed",
)
STRATEGIES = ("ddp", "fsdp", "zero1", "zero3")
STEPS, SAVED, WORKERS, MICRO = 6, 3, 2, 4
SGD = "training.optimizer={kind: sgd, lr: 0.05, momentum: 0.0, weight_decay: 0.0}"
OPTIONS = {
    "unused ddp": ["training.strategy.find_unused_parameters=true"],
    "sparse": [SGD],
    "recomputed": ["training.gradient_checkpointing=true"],
}


def planned(folder: Path, shape: str, strategy: str, workers: int) -> TrainPlan:
    overrides = [
        f"experiment.storage={folder}",
        f"task.args.shape={shape}",
        f"strategy={strategy}",
        f"resources.workers={workers if workers > 1 else 'inline'}",
        *OPTIONS.get(shape, []),
        *OPTIONS.get(f"{shape} {strategy}", []),
    ]
    return plan_training(load(CONFIG, overrides), f"{shape.replace(' ', '-')}-{strategy}")


@dataclass
class Record:
    """What a run did: the loss of each step, and the last evaluation."""

    losses: dict[int, float] = field(default_factory=dict)
    error: float = math.nan

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self.losses[event.step] = event.metrics["train/loss"]
        elif isinstance(event, Evaluated):
            self.error = event.metrics["eval/error"]


def run(plan: TrainPlan, world: World, record: Record, *, stop_at: int | None) -> None:
    """Train as a worker does, from the newest checkpoint; stop after step `stop_at`, with a checkpoint."""
    graceful_stop = GracefulStop(world)
    if world.size > 1:
        dist.distributed_c10d._get_default_store().delete_key("raystack/stop")

    def tell(event: Event) -> None:
        record(event)
        # An order to stop is obeyed at the end of the step after the report.
        if stop_at is not None and isinstance(event, Stepped) and event.step == stop_at - 1:
            graceful_stop.requested = "terminate"

    heartbeats = HeartbeatSender(
        lambda heartbeat: Orders(),
        attempt=world.attempt,
        rank=world.rank,
        world=world.size,
        node="here",
        folder=None,
    )
    folder = plan.config.task.folder
    assert folder is not None
    try:
        train(WorkerSpec(plan, pack(folder), token="parity"), world, tell, graceful_stop, heartbeats)
    except PausedError:
        assert stop_at is not None


def plain(plan: TrainPlan) -> tuple[Record, nn.Module]:
    """Return what plain torch does: the passes that two workers, and then one, would have done."""
    task: Any = load_task(plan.config.task)
    torch.manual_seed(plan.seed)
    model = task.model()
    data, evals = task.train_data(), task.eval_data()
    optimizer = _optimizer(plan, model)
    record = Record()
    for step in range(STEPS):
        total = 0.0
        began = _state(model)
        for number in range(WORKERS):
            # One worker's passes follow each other. Two begin with the same state, and rank 1's is not kept.
            rank, part = (number, 0) if step < SAVED else (0, number)
            torch.manual_seed(mixed(plan.seed, step, rank, part))
            start = step * WORKERS * MICRO + number * MICRO
            batch = task.collate([data[index] for index in range(start, start + MICRO)])
            with _as_another_worker(model, began) if rank > 0 else nullcontext():
                loss = task.loss(model, batch) / WORKERS
                loss.backward()
            total += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
        record.losses[step + 1] = total
    modes = {name: module.training for name, module in model.named_modules()}
    model.eval()
    with torch.no_grad():
        batch = task.collate([evals[index] for index in range(len(evals))])
        record.error = float(task.metrics(model, batch)["error"].mean())
    assert plan.config.task.args["shape"] != "frozen" or not all(modes.values())
    return record, model


def _optimizer(plan: TrainPlan, model: nn.Module) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    config = plan.training.optimizer
    if config.kind == "sgd":
        return torch.optim.SGD(trained, lr=config.lr)
    assert config.kind == "adamw"
    groups = [
        {"params": [one for one in trained if one.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [one for one in trained if one.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=config.betas, eps=config.eps
    )


@contextmanager
def _as_another_worker(model: nn.Module, began: dict[str, Any]) -> Iterator[None]:
    """Run a pass from the state that the step `began` with, and take back what it changes."""
    now = _state(model)
    model.load_state_dict(began, strict=False)
    yield
    model.load_state_dict(now, strict=False)


def _state(model: nn.Module) -> dict[str, Any]:
    """What a forward pass changes: all state but the parameters."""
    learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {
        name: value.clone() if isinstance(value, Tensor) else dict(value)
        for name, value in model.state_dict().items()
        if name not in learned
    }


def compared(plan: TrainPlan, record: Record) -> dict[str, Any]:
    """Return the largest differences to the plain loop, relative to the size of what is compared."""
    expected, model = plain(plan)
    store = CheckpointStore(plan.paths.checkpoints)
    with store.fetch(STEPS, MODEL) as folder:
        _, exported, _ = read_model(folder)
    theirs, ours = model.state_dict(), exported.state_dict()
    assert theirs.keys() == ours.keys()
    weights = [_apart(ours[name], theirs[name]) for name in theirs if isinstance(theirs[name], Tensor)]
    extra = {name for name in theirs if not isinstance(theirs[name], Tensor) and theirs[name] != ours[name]}
    assert not extra, f"other extra state: {extra}"
    assert record.losses.keys() == expected.losses.keys()
    return {
        "losses": max(abs(record.losses[step] / loss - 1) for step, loss in expected.losses.items()),
        "error": abs(record.error / expected.error - 1),
        "weights": max(weights),
    }


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-3))


def cell(folder: Path, world: World, shape: str, strategy: str) -> dict[str, Any]:
    """Return how one part of one cell ended, on rank 0."""
    plan = planned(folder, shape, strategy, world.size)
    # The losses of the steps on two workers, which one worker alone takes up.
    before = folder / f"{plan.run_id}.json"
    record = Record()
    result: dict[str, Any]
    if world.size == 1:
        kept = json.loads(before.read_text())
        if kept.keys() != {"losses"}:
            return dict(kept)
        record.losses = {int(step): loss for step, loss in kept["losses"].items()}
    try:
        run(plan, world, record, stop_at=SAVED if world.size > 1 else None)
        result = compared(plan, record) if world.size == 1 else {"losses": record.losses}
    except RaystackError as error:
        result = {"raised" if record.losses else "refused": str(error)}
    except Exception as error:
        result = {"raised": f"{type(error).__name__}: {error}"}
    if world.size > 1 and world.rank == 0:
        before.write_text(json.dumps(result))
    return result


def worker(rank: int, workers: int, folder: Path, shapes: tuple[str, ...]) -> None:
    if workers > 1:
        rendezvous = f"file://{folder}/rendezvous"
        dist.init_process_group(
            "gloo",
            init_method=rendezvous,
            rank=rank,
            world_size=workers,
            timeout=timedelta(seconds=60),
        )
    world = World(rank, workers, torch.device("cpu"), attempt=workers)
    results: dict[str, dict[str, Any]] = {}
    for shape in shapes:
        for strategy in STRATEGIES:
            results.setdefault(shape, {})[strategy] = cell(folder, world, shape, strategy)
    if workers == 1:
        (folder / "results.json").write_text(json.dumps(results, indent=1))
    else:
        dist.destroy_process_group()


def main(folder: Path, shapes: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    import_what_zero_needs()
    gc.freeze()  # DeepSpeed collects garbage at every start, and need not look through what was imported
    for workers in (WORKERS, 1):
        start_processes(worker, (workers, folder, shapes), nprocs=workers, start_method="fork")


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or SHAPES)
