"""Trains one small model under every strategy, on one worker and on two, and writes down every loss and
gradient norm.

Run as a script: `python strategy_workers.py <folder>` leaves <folder>/results.json, `{case: [[loss, norm],
...]}`. Importing torch and DeepSpeed takes longest, so the script imports them once, and forks a process
for each part: one worker, two workers, one worker again.

Cases: `plain` and `plain sgd` are torch without a strategy; `<precision>/<strategy>@<workers>` ran from the
start, where STRATEGIES and OPTIONS have the settings; `<case> > <strategy>@<workers>` went on from the
checkpoint of <case>.
"""

import gc
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torch.utils.checkpoint import checkpoint

from raystack.checkpoint.sharded import read, write
from raystack.checkpoint.state import share
from raystack.config import load
from raystack.plan import TrainPlan, plan_training
from raystack.training.optimizer import make_optimizer
from raystack.training.schedule import rate_factor
from raystack.training.strategy import Strategy, build, zero
from raystack.training.world import World

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
STEPS, SAVED, AFTER = 30, 15, 5
WORKERS, MICROS, MICRO = 2, 2, 2
WORDS, WIDTH, FEATURES = 29, 12, 5
SGD = "training.optimizer={kind: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01}"
OFFLOAD = "{device: cpu, pin_memory: false}"
STRATEGIES = {
    "ddp": ["strategy=ddp"],
    "fsdp": ["strategy=fsdp"],
    "zero0": ["strategy=zero1", "training.strategy.stage=0"],
    "zero1": ["strategy=zero1"],
    "zero2": ["strategy=zero2"],
    "zero3": ["strategy=zero3", "training.strategy.persistence_kb=0"],
}
OPTIONS = {
    "fsdp sgd recompute": [*STRATEGIES["fsdp"], SGD, "training.strategy.reshard_after_forward=false"],
    "zero1 sgd": [*STRATEGIES["zero1"], SGD],
    "zero3 sgd recompute": [*STRATEGIES["zero3"], SGD],
    "fsdp offload": [*STRATEGIES["fsdp"], "training.strategy.offload=true", "training.strategy.wrap=size"],
    "zero2 offload": [*STRATEGIES["zero2"], f"training.strategy.offload_optimizer={OFFLOAD}"],
    "zero3 offload": [
        "strategy=zero3",
        f"training.strategy.offload_optimizer={OFFLOAD}",
        f"training.strategy.offload_param={OFFLOAD}",
    ],
}
Record = tuple[float, float]
"""Mean loss of a step over all workers, and the norm of its gradient before clipping."""


class Block(nn.Module):
    """A norm, a layer with a bias, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + torch.tanh(self.inner(self.norm(x)))
        return result


class Model(nn.Module):
    """Next word from a word and some floats; the embedding and the head are one weight. One parameter is
    frozen.
    """

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words, self.features = nn.Embedding(WORDS, WIDTH), nn.Linear(FEATURES, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight
        self.features.bias.requires_grad_(False)
        self.register_buffer("counts", torch.arange(3))

    def forward(self, words: Tensor, features: Tensor) -> Tensor:
        x = self.words(words) + self.features(features)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def new_model() -> Model:
    torch.manual_seed(5)
    return Model()


def micro_batch(step: int, worker: int, micro: int) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """A micro batch and the weight of its mean loss. The last step is smaller: one worker has half a micro
    batch, one none.
    """
    generator = torch.Generator().manual_seed(1000 * step + 10 * worker + micro)
    words = torch.randint(WORDS, (MICRO,), generator=generator)
    batch = words, torch.randn(MICRO, FEATURES, generator=generator), (words * 7 + 3) % WORDS
    if step < STEPS - 1:
        return batch, 1 / MICROS
    return batch, (2 / 3, 1 / 3)[micro] * WORKERS if worker == 0 else 0.0


def factor(plan: TrainPlan, step: int) -> float:
    return rate_factor(plan.training.schedule, step, STEPS)


def task_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    words, features, target = batch
    return F.cross_entropy(model(words, features), target)


def plain(plan: TrainPlan) -> list[Record]:
    """The reference: torch alone, one process, all micro batches of a step."""
    model = new_model()
    optimizer = make_optimizer(plan.training.optimizer, model.named_parameters())
    assert plan.training.clip_norm is not None
    records = []
    for step in range(STEPS):
        total = 0.0
        for worker in range(WORKERS):
            for micro in range(MICROS):
                batch, weight = micro_batch(step, worker, micro)
                loss = task_loss(model, batch) * weight / WORKERS
                loss.backward()
                total += float(loss.detach())
        norm = nn.utils.clip_grad_norm_(model.parameters(), plan.training.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * factor(plan, step)
        optimizer.step()
        optimizer.zero_grad()
        records.append((total, float(norm)))
    return records


def train(plan: TrainPlan, strategy: Strategy, world: World, steps: range) -> Iterator[Record]:
    """As the loop does it. One worker alone has the micro batches of both."""
    for step in steps:
        if world.size == 1:
            mine = [
                (batch, weight / WORKERS)
                for w in range(WORKERS)
                for batch, weight in (micro_batch(step, w, m) for m in range(MICROS))
            ]
        else:
            mine = [micro_batch(step, world.rank, micro) for micro in range(MICROS)]
        total = 0.0
        for batch, weight in mine:
            with strategy.micro_step(last=batch is mine[-1][0]):
                with strategy.autocast():
                    loss = strategy.loss(task_loss, batch) * weight
                strategy.backward(loss)
            total += float(loss.detach())
        norm = strategy.step(factor(plan, step), plan.training.clip_norm, want_norm=True)
        assert norm is not None
        yield sum(row[0] for row in world.gather([total])) / world.size, float(norm)


def fp16_works() -> bool:
    """Whether this CPU computes in fp16: with AVX512-FP16 or AMX-FP16, which most do not have."""
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


@cache
def planned(name: str, world: World, precision: str = "fp32") -> TrainPlan:
    batch = f"{{global: {WORKERS * MICROS * MICRO}, micro: {MICRO}}}"
    workers = world.size if world.size > 1 else "inline"
    overrides = [
        f"resources.workers={workers}",
        f"training.precision={precision}",
        f"training.batch={batch}",
        "training.clip_norm=0.5",
    ]
    optimizer = "training.optimizer={kind: adamw, lr: 1.0e-2, weight_decay: 0.1}"
    bucket = ["training.strategy.bucket_mb=1"] if name.startswith("zero") else []
    return plan_training(
        load(TINY, [optimizer, *(STRATEGIES | OPTIONS)[name], *overrides, *bucket]), "strategies"
    )


def built(plan: TrainPlan, world: World, *, recompute: bool = False) -> Strategy:
    model = new_model()
    if recompute:
        for block in model.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return build(plan, model, list(model.blocks), partial(make_optimizer, plan.training.optimizer), world)


def check_start(strategy: Strategy) -> None:
    """A run starts from exactly the weights that the task made, whatever its precision, each under its name
    and in its place.
    """
    made = dict(new_model().state_dict())
    for name, part in strategy.state().items():
        if name.startswith("model/"):
            whole = made[name.removeprefix("model/")].view(-1)
            frozen = "features.bias" in name
            expected = whole[part.start : part.start + part.data.numel()].to(
                part.data.dtype if frozen else whole.dtype
            )
            assert part.total == whole.numel(), name
            assert torch.equal(part.data, expected), name


def evaluate(strategy: Strategy) -> None:
    """A pass as an evaluation makes it, which changes nothing."""
    strategy.module.eval()
    with torch.no_grad(), strategy.autocast():
        task_loss(strategy.module, micro_batch(0, 0, 0)[0])
    strategy.module.train()


def from_the_start(
    folder: Path, world: World, name: str, precision: str = "fp32", steps: int = STEPS
) -> tuple[Strategy, list[Record]]:
    """A run that leaves a checkpoint on its way, in a folder of the case's name."""
    plan = planned(name, world, precision)
    strategy = built(plan, world, recompute=name.endswith("recompute"))
    check_start(strategy)
    records = [*train(plan, strategy, world, range(SAVED))]
    evaluate(strategy)
    state = share(strategy.state(), world.rank, world.size)
    write(folder / precision / f"{name}@{world.size}", state, dist.group.WORLD if world.size > 1 else None)
    return strategy, [*records, *train(plan, strategy, world, range(SAVED, steps))]


def goes_on(folder: Path, world: World, strategy: Strategy, name: str, source: str) -> list[Record]:
    """The steps after the checkpoint that `source` left."""
    strategy.load(partial(read, folder / source))
    return [
        *train(planned(name, world, source.partition("/")[0]), strategy, world, range(SAVED, SAVED + AFTER))
    ]


def on_one(folder: Path, world: World) -> dict[str, list[Record]]:
    """Torch alone, then every strategy from the start."""
    records = {"plain": plain(planned("ddp", world)), "plain sgd": plain(planned("zero1 sgd", world))}
    for name in STRATEGIES:
        _, records[f"fp32/{name}@1"] = from_the_start(folder, world, name, steps=SAVED + AFTER)
    return records


def on_two(folder: Path, world: World) -> dict[str, list[Record]]:
    """Every strategy from the start, then from a checkpoint of another one on one worker."""
    records: dict[str, list[Record]] = {}
    for precision in ("fp32", "bf16"):
        for index, name in enumerate(STRATEGIES):
            strategy, records[f"{precision}/{name}@2"] = from_the_start(folder, world, name, precision)
            if precision == "fp32":
                source = f"fp32/{list(STRATEGIES)[index - 1]}@1"
                records[f"{source} > {name}@2"] = goes_on(folder, world, strategy, name, source)
    for name in OPTIONS:
        _, records[f"fp32/{name}@2"] = from_the_start(folder, world, name, steps=SAVED)
    for name in ("zero1", "zero2", "zero3") if fp16_works() else ():
        strategy, records[f"fp16/{name}@2"] = from_the_start(folder, world, name, "fp16", SAVED + AFTER)
        records[f"fp16/{name}@2 > {name}@2"] = goes_on(folder, world, strategy, name, f"fp16/{name}@2")
    return records


def on_one_again(folder: Path, world: World) -> dict[str, list[Record]]:
    """Every strategy, new, from every strategy's checkpoint on two workers; in bf16 from its own."""
    records: dict[str, list[Record]] = {}
    for name in STRATEGIES:
        strategy = built(planned(name, world), world)
        for source in STRATEGIES:
            records[f"fp32/{source}@2 > {name}@1"] = goes_on(
                folder, world, strategy, name, f"fp32/{source}@2"
            )
        strategy = built(planned(name, world, "bf16"), world)
        records[f"bf16/{name}@2 > {name}@1"] = goes_on(folder, world, strategy, name, f"bf16/{name}@2")
    return records


PARTS: tuple[tuple[Callable[[Path, World], dict[str, list[Record]]], int], ...] = (
    (on_one, 1),
    (on_two, WORKERS),
    (on_one_again, 1),
)
"""With the number of workers of each."""


def worker(rank: int, part: int, folder: Path) -> None:
    run, workers = PARTS[part]
    if workers > 1:
        rendezvous = f"file://{folder}/rendezvous"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=workers)
    records = run(folder, World(rank, workers, torch.device("cpu")))
    if rank == 0:
        (folder / f"{run.__name__}.json").write_text(json.dumps(records))
    if workers > 1:
        dist.destroy_process_group()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    import_what_zero_needs()
    gc.freeze()  # DeepSpeed collects garbage at every start, and need not look through what was imported
    records: dict[str, list[Record]] = {}
    for part, (run, workers) in enumerate(PARTS):
        start_processes(worker, (part, folder), nprocs=workers, start_method="fork")
        records |= json.loads((folder / f"{run.__name__}.json").read_text())
    (folder / "results.json").write_text(json.dumps(records))


def run_part(
    rank: int, work: Callable[[Path, World], object], workers: int, number: int, folder: Path
) -> None:
    """Run a part of a script, alone or as one of several gloo processes; rank 0 leaves what it returns."""
    if workers > 1:
        rendezvous, limit = f"file://{folder}/rendezvous", timedelta(seconds=120)
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=workers, timeout=limit)
    results = work(folder, World(rank, workers, torch.device("cpu"), attempt=number))
    if rank == 0:
        (folder / f"{work.__name__}.json").write_text(json.dumps(results))
    if workers > 1:
        dist.destroy_process_group()


def import_what_zero_needs() -> None:
    """DeepSpeed, and with one of its optimizers torch's compiler: seconds, which no process spends again."""
    zero._import("cpu")
    importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
