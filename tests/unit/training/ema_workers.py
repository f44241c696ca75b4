"""Trains small models with a moving average of the weights under every strategy: three steps on two workers,
and from their checkpoint three more on one.

Run as a script: `python ema_workers.py <folder>` leaves <folder>/results.json, the largest differences of
each case to what its own checkpoints say: `{case: {averages, error, exported, ...}}`. As in
strategy_workers.py all processes are forks of one.
"""

import gc
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from parity_workers import CONFIG, Record, run
from strategy_workers import import_what_zero_needs, run_part
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from raystack.checkpoint import MODEL, CheckpointStore, Manifest, read_spec
from raystack.checkpoint.export import export
from raystack.checkpoint.sharded import read_whole
from raystack.checkpoint.weights import read_model
from raystack.code.loading import load as load_task
from raystack.config import load
from raystack.events import Evaluated, Event
from raystack.plan import TrainPlan, plan_training
from raystack.training.world import World

DECAY, EVERY, STEPS, SAVED, WORKERS = 0.8, 2, 6, 3, 2
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
NEXT = dict(zip(STRATEGIES, (*STRATEGIES[1:], "ddp"), strict=True))
"""The strategy that goes on from a checkpoint of another one."""
EMA = f"training.ema={{decay: {DECAY}, every_steps: {EVERY}, warmup: true}}"
OFTEN = "training={evaluate: {every_steps: 1}, checkpoint: {every_steps: 1, keep_last: 20}}"


OFFLOAD = "{device: cpu, pin_memory: false}"
OPTIONS = {
    "copies": ["training.strategy.shard=1"],
    "offload": ["training.strategy.offload=true"],
    "optimizer-offload": [f"training.strategy.offload_optimizer={OFFLOAD}"],
    "zero3-offload": [
        f"training.strategy.offload_optimizer={OFFLOAD}",
        f"training.strategy.offload_param={OFFLOAD}",
    ],
    "stage-0": ["training.strategy.stage=0"],
}


@dataclass(frozen=True)
class Case:
    """A model, a precision, and the strategies on two workers and then on one."""

    first: str
    then: str
    precision: str = "fp32"
    shape: str = "batchnorm"
    kind: str = ""
    """Of OPTIONS."""

    @property
    def name(self) -> str:
        return "-".join((self.precision, self.shape, self.first, *([self.kind] if self.kind else [])))

    def plan(self, folder: Path, workers: int, *overrides: str) -> TrainPlan:
        place = "inline" if workers == 1 else str(workers)
        strategy = self.first if workers > 1 else self.then
        settings = [
            f"strategy={strategy}",
            *(OPTIONS.get(self.kind, ()) if workers > 1 else ()),
            f"experiment.storage={folder}",
            f"task.args.shape={self.shape}",
            f"resources.workers={place}",
            f"training.precision={self.precision}",
        ]
        return plan_training(load(CONFIG, [*overrides, *settings]), self.name)


CASES = (
    *(Case(each, NEXT[each]) for each in STRATEGIES),
    *(Case(each, each, "bf16", "tied") for each in STRATEGIES),
    *(Case(each, NEXT[each], shape="frozen") for each in ("ddp", "fsdp", "zero1", "zero3")),
    Case("fsdp", "fsdp", kind="copies"),
    Case("fsdp", "fsdp", kind="offload"),
    Case("zero2", "zero3", kind="optimizer-offload"),
    Case("zero3", "ddp", "bf16", "tied", "zero3-offload"),
    Case("zero1", "ddp", kind="stage-0"),
    Case("zero1", "ddp", "bf16", "tied", kind="stage-0"),
)


@dataclass
class Errors(Record):
    """The evaluation after each step as well."""

    errors: dict[int, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, Evaluated):
            self.errors[event.step] = event.metrics["eval/error"]


def on_two(folder: Path, world: World) -> dict[str, Any]:
    """Every case until step 3, and what its losses are without averages and evaluations."""
    results: dict[str, Any] = {}
    for case in CASES:
        record, alone = Errors(), Errors()
        run(case.plan(folder, WORKERS, EMA, OFTEN), world, record, stop_at=SAVED)
        run(case.plan(folder / "alone", WORKERS), world, alone, stop_at=SAVED)
        same = record.losses == alone.losses
        results[case.name] = {"errors": record.errors, "losses": record.losses, "trains alike": same}
    results["broken"] = broken(folder, world)
    return results


def broken(folder: Path, world: World) -> list[str]:
    """Names of the averages that differ in any bit between an unbroken run of ddp and one that ends again and
    again.
    """
    case = Case("ddp", "ddp")
    plans = [case.plan(folder / name, WORKERS, EMA) for name in ("whole", "broken")]
    run(plans[0], world, Record(), stop_at=None)
    for stop in (1, 2, 4, 5, None):
        run(plans[1], world, Record(), stop_at=stop)
    whole, again = (state(plan, STEPS) for plan in plans)
    return [name for name in whole | again if not torch.equal(whole[name], again[name])]


def on_one(folder: Path, world: World) -> dict[str, Any]:
    """Every case to its end, compared."""
    before = json.loads((folder / "on_two.json").read_text())
    results = {}
    for case in CASES:
        record = Errors()
        plan = case.plan(folder, 1, EMA, OFTEN)
        run(plan, world, record, stop_at=None)
        errors = {int(step): error for step, error in before[case.name]["errors"].items()} | record.errors
        results[case.name] = before[case.name] | compared(plan, errors)
    return results | {"broken": before["broken"]}


def state(plan: TrainPlan, step: int, prefix: str = "ema/") -> dict[str, Tensor]:
    store = CheckpointStore(plan.paths.checkpoints)
    manifest = store.read(step)
    assert isinstance(manifest, Manifest)
    with store.fetch(step, manifest.state) as folder:
        return read_whole(folder, prefix)


def expected(plan: TrainPlan, model: nn.Module) -> dict[int, dict[str, Tensor]]:
    """The averages after each step, of the weights in the checkpoints."""
    names = [name for name, one in model.named_parameters() if one.requires_grad]
    averages = {name: model.get_parameter(name).detach().float().flatten() for name in names}
    result = {}
    for step in range(1, STEPS + 1):
        weights = state(plan, step, "model/")
        if step % EVERY == 0:
            done = step // EVERY - 1
            decay = min(DECAY, (1 + done) / (10 + done))
            averages = {name: averages[name] * decay + weights[name] * (1 - decay) for name in names}
        result[step] = averages
    return result


def compared(plan: TrainPlan, errors: Mapping[int, float]) -> dict[str, Any]:
    """Return the largest differences of the averages, evaluations and exports to what is expected."""
    task: Any = load_task(plan.config.task)
    torch.manual_seed(plan.seed)
    model = task.model()
    wanted = expected(plan, model)
    stored = {step: state(plan, step) for step in wanted}
    assert all(stored[step].keys() == wanted[step].keys() for step in wanted)
    store = CheckpointStore(plan.paths.checkpoints)
    exported = {}
    for step in (SAVED, STEPS):
        manifest = store.read(step)
        assert isinstance(manifest, Manifest)
        export(store, manifest)
        with store.fetch(step, MODEL) as folder:
            assert read_spec(folder).averaged
            exported[step] = dict(read_model(folder)[1].named_parameters())
    return {
        "averages": max(
            _apart(stored[step][name], wanted[step][name]) for step in wanted for name in wanted[step]
        ),
        "exported": max(
            _apart(exported[step][name].detach().flatten(), wanted[step][name])
            for step in exported
            for name in wanted[step]
        ),
        "error": max(abs(errors[step] / error(task, model, plan, step, wanted[step]) - 1) for step in wanted),
        "weights' own error": max(
            abs(errors[step] / error(task, model, plan, step, {}) - 1) for step in wanted
        ),
    }


def error(task: Any, model: nn.Module, plan: TrainPlan, step: int, averages: Mapping[str, Tensor]) -> float:
    """The metric of a checkpoint's model with `averages` in the place of its weights."""
    values = {**state(plan, step, "model/"), **averages}
    there = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in values.items():
            there[name].copy_(value.view(there[name].shape))
        model.eval()
        evals = task.eval_data()
        batch = task.collate([evals[index] for index in range(len(evals))])
        return float(task.metrics(model, batch)["error"].mean())


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-3))


PARTS = ((on_two, WORKERS), (on_one, 1))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    import_what_zero_needs()
    gc.freeze()  # DeepSpeed collects garbage at every start, and need not look through what was imported
    for part, (work, workers) in enumerate(PARTS):
        start_processes(run_part, (work, workers, part, folder), nprocs=workers, start_method="fork")
    shutil.move(folder / "on_one.json", folder / "results.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
