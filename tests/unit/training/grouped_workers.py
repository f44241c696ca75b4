"""Trains a model with every setting of the optimizer under every strategy, on two workers and then on one,
and the other way round.

Run as a script: `python grouped_workers.py <folder> [case ...]` leaves <folder>/results.json, `{case:
{strategy: {way: cell}}}`. A cell is {losses, weights}, the differences to a plain torch loop of the losses
and of the exported weights; or {refused: text} of a run that was refused before its first step; or {raised:
text}. As in strategy_workers.py all processes are forks of one.
"""

import gc
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from parity_workers import Record, run
from strategy_workers import import_what_zero_needs
from torch import nn
from torch.multiprocessing.spawn import start_processes

from raystack.checkpoint import MODEL, CheckpointStore
from raystack.checkpoint.weights import read_model
from raystack.code.loading import load as load_task
from raystack.config import load
from raystack.errors import RaystackError
from raystack.plan import TrainPlan, plan_training
from raystack.task import Progress
from raystack.training.schedule import rate_factor
from raystack.training.world import World

CONFIG = Path(__file__).with_name("grouped") / "config.yaml"
STEPS, GLOBAL = 6, 8
STRATEGIES = {
    "ddp": ["strategy=ddp"],
    "fsdp": ["strategy=fsdp"],
    "zero0": ["strategy=zero1", "training.strategy.stage=0"],
    "zero1": ["strategy=zero1"],
    "zero2": ["strategy=zero2"],
    "zero3": ["strategy=zero3", "training.strategy.persistence_kb=0"],
}
WAYS = {"2 > 1": 3, "1 > 2": 4}
"""Numbers of workers before and after a checkpoint, and its step."""
FIRST, SECOND, THIRD = (1, ("1 > 2",)), (2, ("2 > 1", "1 > 2")), (1, ("2 > 1",))
"""Processes that follow each other, and what each does a part of."""


@dataclass(frozen=True)
class Case:
    """One config, and what plain torch does for it."""

    overrides: list[str]
    strategies: tuple[str, ...] = ("ddp", "fsdp", "zero1", "zero3")
    """Those that can have it; the others refuse it, or are like one of these."""
    ways: tuple[str, ...] = ("2 > 1",)
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW
    options: dict[str, Any] = field(default_factory=dict)
    """Of torch's optimizer, for all parameters."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factors of the rate by the beginning of a name."""
    decays: dict[str, float] = field(default_factory=dict)
    """Weight decay by the beginning of a name; the others have that of the options if they are matrices."""
    own: bool = False
    """Whether the task makes the optimizer."""
    until: dict[str, int] = field(default_factory=dict)
    """Steps from which on parameters are trained, by the beginning of a name."""
    muons: dict[str, Any] | None = None
    """Of torch's Muon, which then has the parameters in MUONS."""
    gan: bool = False
    """Whether the task has two objectives."""
    clip_norm: float | None = None
    clip_value: float | None = None

    @property
    def cells(self) -> Iterator[tuple[str, str]]:
        """The strategies and ways that are trained."""
        return product(self.strategies, self.ways)


ADAMW = "training.optimizer={kind: adamw, lr: 1.0e-2, weight_decay: 0.1%s}"
GROUPS = "[{match: '*norm*', weight_decay: 0.5}, {match: h*, lr_scale: 3.0}]"
OPTIONS = {"lr": 1e-2, "weight_decay": 0.1}
FREEZE = (
    "training.freeze=[{match: embed.*}, {match: [blocks.0.*, head.bias], until_step: 2}, {match: norm.*,"
    " until_step: 5}]"
)
UNTIL = {"embed": 99, "blocks.0": 2, "head.bias": 2, "norm": 5}
MUONS = ("embed.weight", "blocks.0.inner.weight", "blocks.1.inner.weight")
CASES = {
    "groups": Case(
        [
            ADAMW % f", layer_decay: 0.5, groups: {GROUPS}",
            "training.schedule={kind: cosine, warmup_fraction: 0.4, floor: 0.1}",
            "training.clip_norm=0.5",
        ],
        options=OPTIONS,
        rates={"embed": 0.125, "blocks.0": 0.25, "blocks.1": 0.5, "head": 3.0},
        decays={"blocks.0.norm": 0.5, "blocks.1.norm": 0.5, "norm": 0.5},
        clip_norm=0.5,
    ),
    "freeze": Case(
        [ADAMW % "", FREEZE, "training.clip_norm=0.5"],
        tuple(STRATEGIES),
        tuple(WAYS),
        options=OPTIONS,
        until=UNTIL,
        clip_norm=0.5,
    ),
    "freeze sgd": Case(
        ["training.optimizer={kind: sgd, lr: 0.05, momentum: 0.9, weight_decay: 0.1}", FREEZE],
        ("fsdp", "zero2"),
        kind=torch.optim.SGD,
        options={"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
        until=UNTIL,
    ),
    "adam clip value": Case(
        ["training.optimizer={kind: adam, lr: 1.0e-2, weight_decay: 0.1}", "training.clip_value=0.05"],
        tuple(STRATEGIES),
        kind=torch.optim.Adam,
        options=OPTIONS,
        clip_value=0.05,
    ),
    "rmsprop": Case(
        ["training.optimizer={kind: rmsprop, lr: 1.0e-3, weight_decay: 0.1, momentum: 0.5}"],
        kind=torch.optim.RMSprop,
        options={"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.5},
    ),
    "adagrad": Case(
        ["training.optimizer={kind: adagrad, lr: 1.0e-2, weight_decay: 0.1, initial_accumulator: 0.1}"],
        ("ddp", "fsdp"),
        kind=torch.optim.Adagrad,
        options={**OPTIONS, "initial_accumulator_value": 0.1},
    ),
    "adafactor": Case(
        ["training.optimizer={kind: adafactor, lr: 1.0e-2, weight_decay: 0.1}"],
        ("ddp",),
        kind=torch.optim.Adafactor,
        options=OPTIONS,
    ),
    "lion": Case(
        ["task.entry=task:Own", "task.args={kind: lion}", FREEZE, "training.schedule={kind: linear}"],
        tuple(STRATEGIES),
        until=UNTIL,
        own=True,
    ),
    "lamb": Case(["task.entry=task:Own", "task.args={kind: lamb}"], ("ddp",), own=True),
    "gan": Case(
        [
            "task.entry=task:Gan",
            "training.optimizer={kind: rmsprop, lr: 1.0e-3}",
            "training.schedule={kind: linear}",
            "training.clip_norm=0.3",
        ],
        ("ddp",),
        tuple(WAYS),
        gan=True,
        clip_norm=0.3,
    ),
    "muon": Case(
        ["training.optimizer={kind: muon, lr: 1.0e-2, weight_decay: 0.1, adamw: head.weight}"],
        ("ddp", "fsdp"),
        options=OPTIONS,
        muons={"momentum": 0.95, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"},
    ),
}


def planned(folder: Path, case: str, strategy: str, way: str, workers: int) -> TrainPlan:
    overrides = [
        f"experiment.storage={folder}",
        f"resources.workers={workers if workers > 1 else 'inline'}",
        *STRATEGIES[strategy],
        *CASES[case].overrides,
    ]
    return plan_training(load(CONFIG, overrides), run_id(case, strategy, way))


def run_id(case: str, strategy: str, way: str) -> str:
    return f"{case}-{strategy}-{way}".replace(" > ", "").replace(" ", "-")


def plain(plan: TrainPlan, case: Case) -> tuple[dict[int, float], nn.Module]:
    """What plain torch does: one process, one pass in each step, one parameter group for each parameter."""
    task: Any = load_task(plan.config.task)
    torch.manual_seed(plan.seed)
    model = task.model()
    data = task.train_data()
    optimizers = [task.optimizer([*model.named_parameters()])] if case.own else _optimizers(case, model)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    losses = {}
    for step in range(STEPS):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(step >= _of(case.until, name, 0))
        samples = [data[at] for at in range(step * GLOBAL, min((step + 1) * GLOBAL, len(data)))]
        loss = task.loss(model, tuple(torch.stack(column) for column in zip(*samples, strict=True)))
        loss.backward()
        if case.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), case.clip_norm)
        if case.clip_value is not None:
            nn.utils.clip_grad_value_(model.parameters(), case.clip_value)
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * rate_factor(plan.training.schedule, step, STEPS)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        losses[step + 1] = float(loss.detach())
    return losses, model


def plain_gan(plan: TrainPlan) -> tuple[dict[int, float], nn.Module]:
    """What plain torch does with two losses: the critic's turn, and in every other step the generator's."""
    task: Any = load_task(plan.config.task)
    torch.manual_seed(plan.seed)
    model = task.model()
    data, losses = task.train_data(), {}
    critic = torch.optim.Adam(model.critic.parameters(), lr=2e-2)
    generator = torch.optim.RMSprop(model.generator.parameters(), lr=1e-3)
    for step in range(STEPS):
        samples = [data[at] for at in range(step * GLOBAL, min((step + 1) * GLOBAL, len(data)))]
        batch = tuple(torch.stack(column) for column in zip(*samples, strict=True))
        total, count = task.critic_loss(model, batch)
        _descend(total / count, critic, model.critic, 2e-2 * (1 - step / (STEPS - 1)))
        losses[step + 1] = float(total.detach() / count)
        if step % 2 == 0:
            loss, _ = task.generator_loss(model, batch, Progress(step, STEPS, None, step / STEPS))
            _descend(loss, generator, model.generator, 1e-3 * (1 - step / (STEPS - 1)))
            losses[step + 1] += float(loss.detach())
    return losses, model


def _descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer, part: nn.Module, rate: float) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(part.parameters(), 0.3)
    optimizer.param_groups[0]["lr"] = rate
    optimizer.step()


def _optimizers(case: Case, model: nn.Module) -> list[torch.optim.Optimizer]:
    groups = {name: _group(case, name, one) for name, one in model.named_parameters()}
    if case.muons is None:
        return [case.kind([*groups.values()], **case.options)]
    theirs = [group for name, group in groups.items() if name in MUONS]
    others = [group for name, group in groups.items() if name not in MUONS]
    return [torch.optim.Muon(theirs, **case.options, **case.muons), torch.optim.AdamW(others, **case.options)]


def _group(case: Case, name: str, parameter: nn.Parameter) -> dict[str, Any]:
    decay = case.options.get("weight_decay", 0.0) if parameter.dim() >= 2 else 0.0
    return {
        "params": [parameter],
        "lr": case.options["lr"] * _of(case.rates, name, 1.0),
        "weight_decay": _of(case.decays, name, decay),
    }


def _of(values: dict[str, Any], name: str, default: Any) -> Any:
    return next((value for start, value in values.items() if name.startswith(start)), default)


def compared(plan: TrainPlan, case: Case, losses: dict[int, float]) -> dict[str, float]:
    """Return the largest relative differences to the plain loop."""
    expected, model = plain_gan(plan) if case.gan else plain(plan, case)
    with CheckpointStore(plan.paths.checkpoints).fetch(STEPS, MODEL) as folder:
        ours = read_model(folder)[1].state_dict()
    assert losses.keys() == expected.keys()
    apart = [(ours[name] - one).abs().max() / one.abs().max() for name, one in model.state_dict().items()]
    return {
        "losses": max(abs(losses[step] / loss - 1) for step, loss in expected.items()),
        "weights": float(max(apart)),
    }


def cell(folder: Path, world: World, case: str, strategy: str, way: str) -> dict[str, Any]:
    """Return how one part of one cell ended, on rank 0."""
    before, record = folder / f"{run_id(case, strategy, way)}.json", Record()
    begins = way.startswith(str(world.size))
    if not begins:
        kept = json.loads(before.read_text())
        if "losses" not in kept:
            return dict(kept)
        record.losses = {int(step): loss for step, loss in kept["losses"].items()}
    result: dict[str, Any]
    try:
        plan = planned(folder, case, strategy, way, world.size)
        run(plan, world, record, stop_at=WAYS[way] if begins else None)
        result = {"losses": record.losses} if begins else {}
        if not begins and world.rank == 0:
            result = compared(plan, CASES[case], record.losses)
    except RaystackError as error:
        result = {"raised" if record.losses else "refused": str(error)}
    except Exception as error:
        result = {"raised": f"{type(error).__name__}: {error}"}
    if begins and world.rank == 0:
        before.write_text(json.dumps(result))
    return result


def worker(rank: int, workers: int, ways: tuple[str, ...], folder: Path, cases: tuple[str, ...]) -> None:
    if workers > 1:
        timeout = timedelta(seconds=60)
        rendezvous = f"file://{folder}/rendezvous"
        dist.init_process_group(
            "gloo", init_method=rendezvous, rank=rank, world_size=workers, timeout=timeout
        )
    world = World(rank, workers, torch.device("cpu"), attempt=workers)
    file = folder / "results.json"
    results: dict[str, dict[str, dict[str, Any]]] = json.loads(file.read_text()) if file.exists() else {}
    for case in cases:
        for strategy, way in CASES[case].cells:
            if way in ways:
                made = cell(folder, world, case, strategy, way)
                results.setdefault(case, {}).setdefault(strategy, {})[way] = made
    if rank == 0:
        file.write_text(json.dumps(results, indent=1))
    if workers > 1:
        dist.destroy_process_group()


def main(folder: Path, cases: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    import_what_zero_needs()
    gc.freeze()  # DeepSpeed collects garbage at every start, and need not look through what was imported
    for workers, ways in (FIRST, SECOND, THIRD):
        start_processes(worker, (workers, ways, folder, cases), nprocs=workers, start_method="fork")


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or tuple(CASES))
