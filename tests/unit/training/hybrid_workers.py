"""Trains one small model on four workers in groups, and goes on from checkpoints of other groups.

Run as a script: `python hybrid_workers.py <folder>` leaves <folder>/results.json, `{case: {step: [loss, norm,
error]}}`, and of each case a run in <folder>/<case>. The error is that of the evaluation after the step, of
the averaged weights. As in strategy_workers.py all processes are forks of one.
"""

import gc
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from parity_workers import Record, run
from strategy_workers import import_what_zero_needs, run_part
from torch import nn
from torch.multiprocessing.spawn import start_processes

from raystack.config import load
from raystack.events import Evaluated, Event, Stepped
from raystack.plan import TrainPlan, plan_training
from raystack.training.optimizer import make_optimizer
from raystack.training.strategy import build
from raystack.training.world import World

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
WORKERS, SAVED = 4, 3
FSDP, TWO = ["strategy=fsdp"], ["strategy=fsdp", "training.strategy.shard=2"]
ZERO = ["strategy=zero3", "training.strategy.persistence_kb=0"]
SECOND = [*ZERO, "training.strategy.secondary_shard=2"]
BF16 = "training.precision=bf16"
FROM_THE_START = {
    "ddp": ["strategy=ddp"],
    "4": FSDP,
    "2x2": TWO,
    "2x2 sgd": [*TWO, "training.optimizer={kind: sgd, lr: 0.1, momentum: 0.9}"],
    "ddp sgd": ["training.optimizer={kind: sgd, lr: 0.1, momentum: 0.9}"],
    "1x4": [*FSDP, "training.strategy.shard=1"],
    "2x2 offload": [*TWO, "training.strategy.offload=true"],
    "2x2 kept": [*TWO, "training.strategy.reshard_after_forward=false", "training.strategy.wrap=whole"],
    "2x2 bf16": [*TWO, BF16],
    "4 bf16": [*FSDP, BF16],
    "zero3 bf16": [*ZERO, BF16],
    "second": SECOND,
    "second bf16": [*SECOND, BF16],
    "second persistent": [*SECOND, "training.strategy.persistence_kb=1"],
}
GOES_ON = {
    "2x2 to 4": ("2x2", FSDP),
    "4 to 2x2": ("4", TWO),
    "2x2 to ddp": ("2x2", ["strategy=ddp"]),
    "1 to 2x2": ("1", TWO),
    "2x2 to second": ("2x2", SECOND),
    "second to 4": ("second", FSDP),
    "2x2 to 1": ("2x2", ["strategy=fsdp"]),
}


def planned(folder: Path, case: str, workers: int, *overrides: str) -> TrainPlan:
    """A plan of six steps with accumulation, clipping and a last, smaller one."""
    (folder / case).mkdir(exist_ok=True)
    place = "inline" if workers == 1 else str(workers)
    settings = [
        f"experiment.storage={folder / case}",
        f"resources.workers={place}",
        "task.args.length=85",
        "training.epochs=1",
        "training.batch={global: 16, micro: 2}",
        "training.clip_norm=0.5",
        "training.evaluate.every_steps=1",
        "training.ema={decay: 0.5}",
    ]
    return plan_training(load(TINY, [*overrides, *settings]), "hybrid")


@dataclass
class Norms(Record):
    """The norm of the gradient of each step and its evaluation as well."""

    norms: dict[int, float] = field(default_factory=dict)
    errors: dict[int, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, Stepped):
            self.norms[event.step] = event.metrics["train/grad_norm"]
        elif isinstance(event, Evaluated):
            self.errors[event.step] = event.metrics["eval/error"]


def result(plan: TrainPlan, world: World, stop_at: int | None = None) -> dict[int, tuple[float, ...]]:
    """Loss, norm and error of the steps of a run; it stops after step `stop_at`."""
    record = Norms()
    run(plan, world, record, stop_at=stop_at)
    return {step: (loss, record.norms[step], record.errors[step]) for step, loss in record.losses.items()}


def on_one(folder: Path, world: World) -> dict[str, object]:
    return {"1": result(planned(folder, "1", 1), world, SAVED)}


def on_four(folder: Path, world: World) -> dict[str, object]:
    results: dict[str, object] = {"apart": apart(folder, world), "halves": halves(folder, world)}
    for case, overrides in FROM_THE_START.items():
        results[case] = result(planned(folder, case, WORKERS, *overrides), world)
    for source in ("2x2", "4", "second"):
        results[f"{source} stopped"] = result(
            planned(folder, f"{source} stopped", WORKERS, *FROM_THE_START[source]), world, SAVED
        )
    for case, (source, overrides) in GOES_ON.items():
        if world.rank == 0:
            shutil.copytree(folder / (source if source == "1" else f"{source} stopped"), folder / case)
        dist.barrier()
        if not case.endswith(" to 1"):
            results[case] = result(planned(folder, case, WORKERS, *overrides), world)
    return results


def on_one_again(folder: Path, world: World) -> dict[str, object]:
    case = "2x2 to 1"
    return {case: result(planned(folder, case, 1, *GOES_ON[case][1]), world)}


def apart(folder: Path, world: World) -> Sequence[str]:
    """Names of the state that differs in any bit between the two copies, after some steps."""
    plan = planned(folder, "bits", WORKERS, *TWO)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    strategy = build(plan, model, list(model), partial(make_optimizer, plan.training.optimizer), world)
    torch.manual_seed(world.rank)
    for _ in range(20):
        with strategy.micro_step(last=True):
            strategy.backward(strategy.loss(lambda net, x: net(x).square().mean() * 10, torch.randn(3, 4)))
        strategy.step(0.01, 0.1, want_norm=True)
    mine = {name: part.data.clone() for name, part in strategy.state().items()}
    everyone = world.gather_objects(mine)
    return [
        name
        for one, other in ((0, 2), (1, 3))
        for name in everyone[one]
        if not torch.equal(everyone[one][name], everyone[other][name])
    ]


def halves(folder: Path, world: World) -> dict[str, bool]:
    """Whether a group of two holds a second copy of each weight after a forward pass."""
    plan = planned(folder, "halves", WORKERS, *SECOND)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    strategy = build(plan, model, list(model), partial(make_optimizer, plan.training.optimizer), world)
    strategy.loss(lambda net, x: net(x).square().mean(), torch.randn(3, 4))
    named: list[tuple[str, Any]] = list(strategy.bare.named_parameters())
    return {name: one.ds_secondary_tensor.numel() in _half(one.ds_numel) for name, one in named}


def _half(number: int) -> range:
    return range(-(-number // 2), number // 2 + WORKERS)  # it is padded to a multiple of the workers


PARTS = ((on_one, 1), (on_four, WORKERS), (on_one_again, 1))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    import_what_zero_needs()
    gc.freeze()  # DeepSpeed collects garbage at every start, and need not look through what was imported
    results: dict[str, object] = {}
    for part, (work, workers) in enumerate(PARTS):
        start_processes(run_part, (work, workers, part, folder), nprocs=workers, start_method="fork")
        results |= json.loads((folder / f"{work.__name__}.json").read_text())
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
